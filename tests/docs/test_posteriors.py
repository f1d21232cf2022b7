"""The programs of posteriordb: every quantity of the reference, the same density in either language."""

from functools import partial

import numpy as np
import pyro
import pytest
import torch
from pyro import poutine

from benchmarks.posteriordb import error
from benchmarks.posteriors import POSTERIORS, columns_of, reference_of, root

pytestmark = pytest.mark.skipif(not root().exists(), reason="needs posteriordb")


def run_of(name):
    """A run on draws of the prior, and the columns."""
    pyro.set_rng_seed(0)
    columns = columns_of(name)
    with torch.no_grad(), poutine.trace() as capture:
        POSTERIORS[name].model(pyro, *map(torch.tensor, columns))
    return capture.trace, columns


@pytest.mark.parametrize("name", POSTERIORS)
def test_a_program_has_the_quantities_of_the_reference(name):
    trace, _ = run_of(name)
    latents = {n: node["value"].numpy()[None] for n, node in trace.nodes.items() if n in trace.stochastic_nodes}
    assert POSTERIORS[name].quantities(latents).keys() == reference_of(name).keys()


def test_the_error_is_the_largest_of_means_and_deviations():
    """Of draws whose means are off by 0.1 deviations, and of one that is 0.3 too wide."""
    quantities = reference_of("gp_regr")
    noise = np.tile([-1.0, 1.0], 500)
    draws = {key: mean + sd * (noise + 0.1) for key, (mean, sd) in quantities.items()}
    assert error("gp_regr", draws)[0] == pytest.approx(0.1)
    mean, sd = quantities["alpha"]
    assert error("gp_regr", draws | {"alpha": mean + 1.3 * sd * noise}) == (pytest.approx(0.3), "alpha")


@pytest.mark.parametrize("name", ["gp_pois_regr", "low_dim_gauss_mix", "arK"])
def test_a_program_is_the_same_in_numpyro(name):
    numpyro = pytest.importorskip("numpyro")
    import jax

    from tests.helpers.precision import quick

    trace, columns = run_of(name)
    values = {n: trace.nodes[n]["value"].numpy() for n in trace.stochastic_nodes}
    with jax.enable_x64(True):
        program = partial(POSTERIORS[name].model, numpyro)
        density = quick(lambda *given: numpyro.infer.util.log_density(program, given, {}, values)[0])
        found = density(*map(jax.numpy.asarray, columns))
    np.testing.assert_allclose(found, trace.log_prob_sum().item(), rtol=1e-4)
