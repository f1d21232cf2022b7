"""Pairs whose numbers are not finite: evaluations say which site and how many data; files hold no NaN."""

import json

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as jax_dist
import pyro
import pyro.distributions as dist
import pytest
import torch

from guides import MeanField
from ppl_models import VAE
from ppl_models.inference import evaluate, fit, mutual_information
from ppl_models.inference.results import as_records
from ppl_models.inference.storage.files import json_of, write_json
from ppl_models.numpyro import evaluate as evaluate_numpyro

X = np.linspace(-1, 1, 8, dtype=np.float32)
HOW = {"particles": 3, "progress": False}


def pair(scale):
    """x | z is N(z, 1), and has the density NaN of data above 0."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0).mask(x < 2), obs=x)
            pyro.factor("bad", torch.where(x > 0, scale, 0.0))

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 0.7))

    return model, guide


def test_evaluate_names_the_site_and_counts_the_data():
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="evaluate: found .*'bad' is not finite for 4 of 8 data, want finite"):
            evaluate(*pair(bad), torch.from_numpy(X), rows=9, **HOW)
    assert np.isfinite(evaluate(*pair(1.0), torch.from_numpy(X), **HOW).nll)


def test_evaluate_of_programs_of_numpyro_names_the_site_and_counts_the_data():
    def model(x):
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", jax_dist.Normal(0.0, 1.0))
            numpyro.sample("x", jax_dist.Normal(z, 1.0), obs=x)
            numpyro.factor("bad", jnp.where(x > 0, jnp.nan, 0.0))

    def guide(x):
        with numpyro.plate("data", len(x)):
            numpyro.sample("z", jax_dist.Normal(x / 2, 0.7))

    with pytest.raises(ValueError, match="evaluate: found ELBO nan, NLL nan.*'bad' is not finite for 4 of 8 data"):
        evaluate_numpyro(model, guide, X, **HOW)


def test_parameters_that_are_not_numbers_are_told_by_their_site_and_not_printed():
    torch.manual_seed(0)
    x = torch.rand(20, 6).round()
    model = VAE(event=6, latent=2, hidden=4)
    guide = MeanField(model, x[:3], hidden=4)
    with torch.no_grad():
        next(guide.parameters()).fill_(float("nan"))
    for asks, call in (
        ("evaluate", lambda: evaluate(model, guide, x, **HOW)),
        ("mutual_information", lambda: mutual_information(model, guide, x)),
        ("fit", lambda: fit(model, guide, x, steps=2, progress=False)),
    ):
        with pytest.raises(
            ValueError, match=rf"^{asks}: found .*site 'z1' is not finite for \d+ of \d+ data"
        ) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_json_has_null_for_what_is_not_finite(tmp_path):
    content = {"a": float("nan"), "b": [1.0, float("inf")], "c": {"d": (-float("inf"), "x", 2)}}
    write_json(tmp_path / "file.json", content)
    text = (tmp_path / "file.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {"a": None, "b": [1.0, None], "c": {"d": [None, "x", 2]}}
    assert json_of({"a": 1.5}) == '{"a": 1.5}'
    with pytest.raises(TypeError):
        json_of({"a": object()})
    assert np.isnan(as_records([{"step": 1, "negative_elbo": None}])[0]["negative_elbo"])


def test_a_schedule_that_goes_below_zero_ends_a_training_in_both_languages():
    from ppl_models.numpyro import fit as fit_numpyro

    def port(x):
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", jax_dist.Normal(numpyro.param("loc", 0.0), 1.0))
            numpyro.sample("x", jax_dist.Normal(z, 1.0), obs=x)

    def port_guide(x):
        with numpyro.plate("data", len(x)):
            numpyro.sample("z", jax_dist.Normal(x / 2, 0.7))

    x = torch.rand(20, 6).round()
    model = VAE(event=6, latent=2, hidden=4)
    pairs = ((fit, (model, MeanField(model, x[:3], hidden=4), x)), (fit_numpyro, (port, port_guide, X)))
    for train, given in pairs:
        for option, value in (("schedule", -1.0), ("beta", "a"))[: 2 if train is fit else 1]:
            with pytest.raises(ValueError, match=rf"fit: found {option}\(1\)=.*, want "):
                train(*given, steps=3, progress=False, **{option: lambda t, v=value: v if t else 1.0})
