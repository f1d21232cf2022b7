"""What is asked of a loaded run in one call is what the functions of its language give for its pair."""

from pathlib import Path

import numpy as np
import pytest
import torch

from guides import BottomUp
from ppl_models import DLGM, inference
from ppl_models.runs import LoadedRun

X = torch.bernoulli(torch.full((4, 6), 0.5), generator=torch.Generator().manual_seed(0))
SIZES = {"event": 6, "latent": (3, 2), "hidden": 4}


def loaded(model, guide, example, backend: str) -> LoadedRun:
    return LoadedRun(model, guide, {"backend": backend}, Path("run"), example)


def of_pyro() -> LoadedRun:
    model = DLGM(**SIZES)
    return loaded(model, BottomUp(model, X[:3], hidden=4), X[:3], "pyro")


def test_a_loaded_run_answers_in_one_call():
    run, x = of_pyro(), X
    pair = run.model, run.guide
    for rows in (x, x.numpy()):
        assert torch.equal(run.encode(rows)["z1"], inference.encode(*pair, x)["z1"])
    assert {name: tuple(z.shape) for name, z in run.encode(x, draws=True, seed=3).items()} == {
        "z1": (4, 3),
        "z2": (4, 2),
    }
    assert torch.equal(run.sample(5, seed=1), inference.ancestral(run.model, torch.zeros(5, 6), seed=1))
    assert torch.equal(run.reconstruct(x, latents=["z2"]), inference.reconstruct(*pair, x, latents=["z2"]))
    codes = {"z1": np.zeros((2, 3), np.float32)}
    decoded = inference.decode(run.model, {"z1": torch.zeros(2, 3)}, x, seed=2)
    assert torch.equal(run.decode(codes, seed=2), decoded)
    assert torch.equal(run.interpolate(x, x.flip(0), steps=3), inference.interpolate(*pair, x, x.flip(0), steps=3))
    walk = {"units": [1], "values": [0.0, 1.0]}
    assert torch.equal(run.traverse(x, "z2", **walk), inference.traverse(*pair, x, "z2", **walk))
    for wrong in (lambda: run.sample(0), lambda: run.encode(x, draws="no"), lambda: run.traverse(x, "z9")):
        with pytest.raises(ValueError, match="found .*, want"):
            wrong()


@pytest.mark.slow
def test_a_loaded_run_of_numpyro_answers_alike():
    jax = pytest.importorskip("jax")
    from guides.numpyro import BottomUp as GuidePort
    from ppl_models.numpyro import DLGM as Port, like_torch

    keys, both, x = jax.random.split(jax.random.key(0)), of_pyro(), X
    model = like_torch(Port(**SIZES, key=keys[0]), both.model)
    guide = like_torch(GuidePort(model, X[:3].numpy(), hidden=4, key=keys[1]), both.guide)
    run = loaded(model, guide, jax.numpy.asarray(X[:3].numpy()), "numpyro")
    assert isinstance(run.sample(5), jax.Array) and run.sample(5).shape == (5, 6)
    codes = both.encode(x)
    assert {name: z.shape for name, z in run.encode(x, draws=True).items()} == {"z1": (4, 3), "z2": (4, 2)}
    np.testing.assert_allclose(np.asarray(run.decode(codes)), both.decode(codes), atol=1e-5)
    walk = {"units": [1], "values": [0.0, 1.0]}
    ours, theirs = both.traverse(x, "z2", codes=codes, **walk), run.traverse(x, "z2", codes=codes, **walk)
    np.testing.assert_allclose(ours, np.asarray(theirs), atol=1e-5)
    assert run.reconstruct(x, latents=["z2"]).shape == (4, 6)
    assert run.interpolate(x, x.flip(0), steps=3).shape == (3, 4, 6)
