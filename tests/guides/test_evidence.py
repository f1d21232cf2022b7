"""Evidence is the model's argument, however the observed sites are cut out of it, in both languages."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pyro
import pytest
import torch

from guides import BottomUp, Ladder, MeanField, SelfReflective
from guides.parts.looks.layout import inspect_model
from guides.parts.pyro import PYRO
from ppl_models import SeReVAE
from ppl_models.inference import fit, load, save
from ppl_models.inference.pyro.training.checkpoint import contents
from ppl_models.inference.storage import checkpoint_file

try:
    import jax
    import jax.numpy as jnp
    import numpyro

    import guides.numpyro as ports
    from guides.numpyro.parts.numpyro import NUMPYRO
    from ppl_models.inference.numpyro import load as load_port
    from ppl_models.numpyro import SeReVAE as Port
except ImportError:
    numpyro = None

LANGUAGES = ["pyro", pytest.param("numpyro", marks=pytest.mark.skipif(numpyro is None, reason="needs NumPyro"))]
ROWS, COLOUR, WIDTH = 3, (3, 4, 1), 12
ORDER = np.random.default_rng(0).permutation(WIDTH)


def bands(x: Any, lib: Any) -> list[Any]:
    image = x.reshape(len(x), *COLOUR)
    return [image[:, :, :1].reshape(len(x), -1), image[:, :, 1:].reshape(len(x), -1)]


# the arguments cut into what is observed, by operators and functions that torch and JAX share
CUTS: dict[str, Callable[[Any, Any], list[Any]]] = {
    "rows": lambda x, lib: [x],
    "rows of channels last": lambda x, lib: [lib.swapaxes(x.reshape(ROWS, 4, 3), 1, 2).reshape(ROWS, -1)],
    "blocks": lambda x, lib: [x[:, :7], x[:, 7:]],
    "blocks from the end": lambda x, lib: [lib.concatenate([x[:, 7:], x[:, :0]], 1), lib.concatenate([x[:, :7]], 1)],
    "bands": bands,
    "bands in single precision": lambda x, lib: bands(lib.asarray(x, dtype=lib.float32), lib),
    "crop": lambda x, lib: [x.reshape(ROWS, *COLOUR)[:, :, 1:3].reshape(ROWS, -1)],
    "permutation": lambda x, lib: [x[:, ORDER]],
    "permutation by a table": lambda x, lib: (
        [lib.take_along_dim(x, lib.asarray(ORDER)[None], 1)]
        if lib is torch
        else [lib.take_along_axis(x, lib.asarray(ORDER)[None], 1)]
    ),
    "backwards": lambda x, lib: [lib.flip(x, (1,))],
    "pixels": lambda x, lib: [lib.stack([x[:, k] for k in range(i, WIDTH, 2)], 1) for i in (1, 0)],
}


def program(language: str, cut: Callable) -> Callable:
    lib, arrays = (pyro, torch) if language == "pyro" else (numpyro, jnp)
    dist = lib.distributions

    def model(x: Any) -> None:
        with lib.plate("data", ROWS):
            z = lib.sample("z", dist.Normal(x[:, 0] * 0.0, 1.0))
            for i, part in enumerate(cut(x, arrays)):
                loc = z[:, None] + arrays.zeros(part.shape[1:])
                lib.sample(f"x{i}", dist.Normal(loc, 1.0).to_event(1), obs=part)

    return model


def data(language: str, dtype: Any = np.float64) -> Any:
    rows = np.arange(ROWS * WIDTH).reshape(ROWS, WIDTH).astype(dtype)
    return torch.from_numpy(rows) if language == "pyro" else jnp.asarray(rows)


def evidence(language: str, cut: Callable, x: Any) -> np.ndarray:
    model = program(language, cut)
    layout = inspect_model(PYRO if language == "pyro" else NUMPYRO, "Test", model, (x,))
    with pyro.validation_enabled(False), nullcontext() if language == "pyro" else numpyro.handlers.seed(rng_seed=0):
        (found,) = layout.evidence(model, (x + 1,), {})[0].values()  # of other data than the example
    return np.asarray(found)


@pytest.mark.parametrize("zeros", [False, True])  # whose values tell nothing
@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_evidence_is_the_argument(language, cut, zeros):
    x = data(language)
    x = x * 0 if zeros else x
    np.testing.assert_array_equal(evidence(language, CUTS[cut], x), np.asarray(x + 1))


@pytest.mark.parametrize("dtype", [np.int64, np.uint8])
@pytest.mark.parametrize("language", LANGUAGES)
def test_integers_in_bands_are_rows_too(language, dtype):
    x = data(language, dtype)
    cut = CUTS["bands in single precision"]
    np.testing.assert_array_equal(evidence(language, cut, x), np.asarray(x + 1))


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_computed_is_read_as_it_is_observed(language):
    x = data(language)
    for cut in (
        lambda x, lib: [2 * x],
        lambda x, lib: [x[:, :7], x[:, 7:] ** 2],
        lambda x, lib: [x[:, lib.argsort(-x[0])]],  # an index of these data
        lambda x, lib: [x[lib.asarray([2, 0, 1])]],  # other rows
    ):
        wanted = np.concatenate([np.asarray(part) for part in cut(x + 1, torch if language == "pyro" else jnp)], 1)
        np.testing.assert_array_equal(evidence(language, cut, x), wanted)


def test_what_is_written_to_is_no_part_of_the_argument():
    def cut(x: Any, lib: Any) -> list[Any]:
        part = x[:, :7].clone()
        part[:, 0] = 5.0
        return [part, x[:, 7:].clone()]

    x = data("pyro")
    wanted = torch.cat(cut(x + 1, torch), 1)
    np.testing.assert_array_equal(evidence("pyro", cut, x), wanted)


# ---- the encoder


def pair(image: tuple[int, ...], guide: type = MeanField) -> tuple[torch.Tensor, SeReVAE, Any]:
    x = torch.arange(2.0 * np.prod(image)).reshape(2, -1) / 100
    model = SeReVAE(event=image, layers=2, latent=2, hidden=16, likelihood="gaussian", network="conv")
    return x, model, guide(model, x, encoder="conv", image=image, hidden=8)


@pytest.mark.parametrize("guide", [MeanField, BottomUp, Ladder, SelfReflective])
@pytest.mark.parametrize("image", [(1, 4, 4), (3, 4, 4)])
def test_a_convolutional_encoder_reads_the_rows(guide, image):
    x, _, q = pair(image, guide)
    seen = []
    q.factors.encoders[0].register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    q(x)
    assert torch.equal(seen[-1].reshape(2, -1), x)


# ---- files of before


def as_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_file, "FORMAT", checkpoint_file.EARLIER)


@pytest.mark.parametrize("image, moved", [((1, 12, 4), False), ((3, 4, 4), True)])
def test_a_file_of_a_guide_that_read_another_order_is_refused(image, moved, tmp_path, monkeypatch):
    x, model, guide = pair(image)
    path, how = tmp_path / "run" / "checkpoint.safetensors", {"steps": 2, "batch_size": 2, "seed": 0, "progress": False}
    with monkeypatch.context() as then:
        as_then(then)
        fit(model, guide, x, folder=tmp_path / "run", **how)
    told = "before format 3 of files .*MeanField read the observed sites x1, x2 one after another.*train it again"
    if moved:
        with pytest.raises(ValueError, match=told):
            load(path, contents(model, guide, (x,)))
        with pytest.raises(ValueError, match=told):
            fit(model, guide, x, folder=tmp_path / "run", resume=True, **how)
    else:
        load(path, contents(model, guide, (x,)))
        fit(model, guide, x, folder=tmp_path / "run", resume=True, **how)
    save(tmp_path / "now", {"model": model, "guide": guide})
    load(tmp_path / "now", {"model": model, "guide": guide})


@pytest.mark.skipif(numpyro is None, reason="needs NumPyro")
def test_the_port_refuses_it_likewise_and_takes_its_own(tmp_path, monkeypatch):
    image = (3, 4, 4)
    x, model, guide = pair(image)
    sizes = {"layers": 2, "latent": 2, "hidden": 16, "likelihood": "gaussian", "network": "conv"}
    port = Port(event=image, **sizes, key=jax.random.key(0))
    q = ports.MeanField(port, x.numpy(), encoder="conv", image=image, hidden=8, key=jax.random.key(0))
    save(tmp_path / "now", {"model": model, "guide": guide})
    with monkeypatch.context() as then:
        as_then(then)
        save(tmp_path / "then", {"model": model, "guide": guide})
        save(tmp_path / "of numpyro", {"model": model, "guide": guide}, about={"backend": "numpyro"})
    load_port(tmp_path / "now", port, q)
    load_port(tmp_path / "of numpyro", port, q)
    with pytest.raises(ValueError, match="written before format 3 .*x1, x2 one after another"):
        load_port(tmp_path / "then", port, q)
