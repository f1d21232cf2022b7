"""Configurations of before: a size that they lack means what the class did when they were written."""

import pytest
from pyro.infer.autoguide import AutoGuide

from ppl_models.runs import names

SIZES = {"event": 6, "layers": 2, "latent": 2, "hidden": 8, "depth": 1, "likelihood": "bernoulli", "network": "mlp"}


@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_a_sere_vae_without_the_word_features_is_that_of_version_0_1(backend):
    more = {}
    if backend == "numpyro":
        jax = pytest.importorskip("jax")
        more["key"] = jax.random.key(0)
    string = names.import_string("model", "sere-vae", backend)

    def build(**sizes):
        chosen = {"name": "sere-vae", "import": string, "sizes": {**SIZES, **sizes}}
        return names.build("model", chosen, (), AutoGuide, backend, **more)

    assert not build().shared and not build(features="separate").shared and build(features="shared").shared
