"""`right(name)`: arguments with which a public function works, in a blink, for tests that make one of them wrong."""

from copy import deepcopy
from functools import cache
from typing import Any

import numpy as np
import torch

from ppl_models.inference import Calibration

SIZES: dict[str, dict[str, Any]] = {
    "VAE": {"event": 4, "latent": 2, "hidden": 4},
    "BitVAE": {"event": 4, "latent": 2, "hidden": 4},
    "VampVAE": {"event": 4, "latent": 2, "hidden": 4, "components": 3},
    "DRAW": {"event": 4, "steps": 2, "latent": 2, "hidden": 4},
    "DLGM": {"event": 4, "latent": (2, 2), "hidden": 4},
    "HierarchicalVAE": {"event": 4, "latent": (2, 2), "hidden": 4},
    "Infusion": {"event": 4, "steps": 2, "hidden": 4},
    "LinearGaussian": {"event": 2, "latent": (1, 1)},
    "BIVA": {"event": 4, "latent": (2, 2), "hidden": 4},
    "MatNet": {"event": 4, "latent": (2, 2), "hidden": 4},
    "MAF": {"event": 4, "hidden": 4, "steps": 2},
    "NSF": {"event": 4, "hidden": 4, "steps": 2},
    "RealNVP": {"event": 4, "hidden": 4, "steps": 2},
    "Glow": {"event": (1, 4, 4), "hidden": 4, "steps": 2},
    "PixelCNN": {"event": (1, 4, 4), "hidden": 4, "depth": 1},
    "PixelVAE": {"event": (1, 4, 4), "latent": 2, "hidden": 4, "depth": 1},
    "HierarchicalPixelVAE": {"event": (1, 4, 4), "latent": (2, 1), "hidden": 4, "depth": 1},
    "SeReMAF": {"event": 4, "layers": 2, "latent": 2, "hidden": 4, "code_hidden": 4},
    "SemiSupervisedVAE": {"event": 4, "latent": 2, "classes": 2, "hidden": 4},
    "SeReVAE": {"event": 4, "layers": 2, "latent": 2, "hidden": 4},
    "SequentialVAE": {"event": 4, "steps": 2, "latent": 2, "hidden": 4},
}
GUIDES = (
    "Bidirectional",
    "BottomUp",
    "Faithful",
    "Infused",
    "Ladder",
    "MeanField",
    "Merging",
    "Recurrent",
    "SelfReflective",
)
SHORT = {"steps": 1, "batch_size": 4, "progress": False, "compile": False}
X = np.eye(4, dtype=np.float32)[[0, 1, 2, 3, 0, 1]]


@cache
def pair(language: str) -> tuple[Any, Any]:
    """A model and its guide."""
    if language == "torch":
        from guides import MeanField
        from ppl_models import VAE

        torch.manual_seed(0)
        model = VAE(**SIZES["VAE"])
        return model, MeanField(model, torch.tensor(X[:3]), hidden=4)
    import jax

    from guides.numpyro import MeanField as MeanFieldPort
    from ppl_models.numpyro import VAE as Port

    keys = jax.random.split(jax.random.key(0))
    port = Port(**SIZES["VAE"], key=keys[0])
    return port, MeanFieldPort(port, X[:3], hidden=4, key=keys[1])


def right(door: str) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """(arguments by position, by name) of "room.name"; None where none are written down."""
    room, _, name = door.rpartition(".")
    ports = "numpyro" in room
    model, guide = pair("jax" if ports else "torch")
    if not ports:  # what trains one leaves the other as it was
        model, guide = deepcopy((model, guide))
    x = X if ports else torch.tensor(X)
    both, key = {"model": model, "guide": guide}, {}
    if ports:
        import jax

        key = {"key": jax.random.key(0)}
    if name in SIZES:
        return (), {**SIZES[name], **key}
    if name in GUIDES:
        small = {} if name == "Infused" else {"hidden": 4}
        if name == "Infused":
            from ppl_models import Infusion

            if ports:
                from ppl_models.numpyro import Infusion
            model = Infusion(**SIZES["Infusion"], **key)
        return (model, x[:3]), {**small, **key}
    known = {
        "Refined": {"guide": guide, **key},
        "FitConfig": {},
        "fit": {**both, "data": x, **SHORT},
        "price_edges": {"pair": lambda parents: (model, guide), "train": x, "test": x, "draws": 2, **SHORT},
        "evaluate": {**both, "data": x, "particles": 2, "progress": False},
        "mutual_information": {**both, "data": x},
        "sbc": {**both, "data": x, "simulations": 4, "draws": 3},
        "ais": {**both, "data": x, "chains": 2, "temperatures": 2, "leapfrogs": 1, "progress": False},
        "encode": {**both, "data": x},
        "active_units": {**both, "data": x},
        "encoder": {"guide": guide},
        "probe": {**both, "train": (x, [0, 1] * 3), "test": (x, [0, 1] * 3), "labels": 2, "draws": 1},
        "reversal": {**both, "data": x, "codes": torch.zeros(2, 2)},
        "training_step": {**both, "args": (x,)},
        "Loss": {},
        "ancestral": {"model": model, "x": x},
        "decode": {"model": model, "x": x, "codes": {"z1": torch.zeros(2, 2)}},
        "reconstruct": {**both, "x": x},
        "interpolate": {**both, "x": x, "y": x[:1].repeat(len(x), 0) if ports else x.flip(0), "steps": 2},
        "traverse": {**both, "x": x, "latent": "z1", "units": [0], "values": [0.0]},
        "markov_chain": {**both, "x": x, "steps": 1},
        "terms": {**both, "args": (x,), **key},
        "plate_nesting": {**both, "args": (x,), "kwargs": {}},
        "contents": {**both, "args": (x,)},
        "mmd": {"x": x, "y": x + 1},
        "moments": {"x": x, "y": x + 1},
        "sharpness": {"rows": torch.zeros(2, 16), "image": (1, 4, 4)},
        "Constant": {"value": 1.0},
        "Linear": {"steps": 3},
        "Cyclic": {"period": 3},
        "Cosine": {"total": 3},
        "Exponential": {"half_life": 3.0},
        "Saturating": {"steps": 3.0},
        "adaptive_free_bits": {},
        "geco": {"tolerance": 80.0},
        "rewo": {"tolerance": 80.0},
        "semi_supervised": {"alpha": 1.0},
        "vhp": {},
        "Joint": {"table": torch.eye(2) / 2},
        "Scale": {"levels": 256},
        "Binarize": {"levels": 256},
        "Dequantize": {"levels": 256},
        "Logit": {"levels": 256},
        "Training": {"steps": 3},
        "load": {"name": "digits"},
        "describe": {"name": "digits"},
        "image_grid": {"values": np.zeros((2, 16)), "shape": (1, 4, 4)},
        "reconstructions": {"x": np.zeros((2, 16)), "means": np.zeros((2, 16)), "shape": (1, 4, 4)},
        "film_strip": {"states": np.zeros((2, 2, 16)), "shape": (1, 4, 4)},
        "rank_ecdfs": {"found": Calibration({"z": np.arange(4)}, 3, ())},
        "history": {"records": [{"step": 1, "loss": 1.0, "negative_elbo": 1.0}]},
    }
    if name in ("compare", "to_arviz"):
        return (model, guide, x[:3]), {} if name == "compare" else {"draws": 4}
    if name == "load" and room != "ppl_models.data":
        return None
    return None if name not in known else ((), known[name])
