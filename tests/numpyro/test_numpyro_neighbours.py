"""Ports of the window, of DRAW with one, and of the composite: as torch has them, in double precision."""

import numpy as np
import pytest

pytest.importorskip("numpyro")

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import torch
from numpyro import handlers
from pyro import poutine

import guides
import guides.numpyro as guide_ports
import ppl_models
import ppl_models.numpyro as ports
from ppl_models.factorization import compare
from ppl_models.inference.numpyro import evaluate, fit
from ppl_models.numpyro import like_torch
from ppl_models.numpyro.parts import Composite, Window
from ppl_models.numpyro.parts.program import named_parameters
from ppl_models.parts import Composite as TorchComposite, Window as TorchWindow
from tests.helpers.cases import few
from tests.numpyro.test_numpyro_ports import same_terms

KEY = jax.random.key(0)


def shaken(module: torch.nn.Module) -> torch.nn.Module:
    for parameter in module.double().parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return module


def jnps(*tensors: torch.Tensor) -> list[jax.Array]:
    return [jnp.asarray(t.detach().numpy()) for t in tensors]


def test_windows_are_torchs(wide):
    """Filters, patches and images of two channels that are no squares, of states with a dimension more."""
    theirs = shaken(TorchWindow(4, (2, 5, 7), 3))
    ours = like_torch(Window(4, (2, 5, 7), 3, key=KEY), theirs)
    h, x, patch = torch.randn(3, 6, 4).double(), torch.randn(6, 70).double(), torch.randn(3, 6, 18).double()
    pairs = [*zip(ours(*jnps(h)), theirs(h), strict=True)]
    pairs += [
        (ours.read(*jnps(h, x, -x)), theirs.read(h, x, -x)),
        (ours.write(*jnps(h, patch)), theirs.write(h, patch)),
    ]
    for mine, wanted in pairs:
        np.testing.assert_allclose(mine, wanted.detach().numpy(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("likelihood", "family"),
    few(
        [("bernoulli", "diagonal"), ("gaussian", "full"), ("bernoulli", "iaf:hidden=6,context=3")],
        lambda likelihood, family: family == "diagonal",
    ),
)
def test_attention_has_the_bound_and_the_gradient_of_torch(wide, monkeypatch, likelihood, family):
    """Terms by site to 1e-10, the bound and all gradients to 1e-8."""
    torch.manual_seed(0)
    sizes = {"event": (1, 2, 3), "steps": 3, "latent": 2, "hidden": 4, "window": 2, "likelihood": likelihood}
    reads = {"hidden": 4, "window": 3, "image": (1, 2, 3), "family": family}
    x = torch.bernoulli(torch.full((4, 6), 0.5, dtype=torch.double))
    p = shaken(ppl_models.DRAW(**sizes))
    q = shaken(guides.Recurrent(p, x[:3], **reads))
    port = like_torch(ports.DRAW(**sizes, key=KEY), p)
    port_guide = like_torch(guide_ports.Recurrent(port, jnp.asarray(x[:3].numpy()), **reads, key=KEY), q)
    same_terms(monkeypatch, (p, q), (port, port_guide), x)


def test_what_a_model_tells_may_be_of_any_shape_and_type():
    """A number, a matrix and a count of each datum; what lies outside the data is not read."""

    def walk(x: jax.Array) -> None:
        numpyro.deterministic("two", jnp.array(2.0))
        with numpyro.plate("data", len(x)):
            at = jnp.zeros((len(x), 2))
            for t in range(2):
                numpyro.deterministic(f"sum{t}", at.sum(-1))
                numpyro.deterministic(f"square{t}", at[..., None] * at[..., None, :])
                numpyro.deterministic(f"step{t}", jnp.full(len(x), t))
                at = at + numpyro.sample(f"z{t}", dist.Normal(jnp.zeros(2), 1.0).to_event(1))
            numpyro.sample("x", dist.Normal(at, 1.0).to_event(1), obs=x)

    x = jnp.ones((4, 2))
    q = guide_ports.Recurrent(walk, x, hidden=4, key=KEY)
    assert q.factors.reading.state == 6 and "two" not in q.factors.reading.told
    assert compare(walk, q, x).verdict == "faithful, minimal, perfect"
    assert np.isfinite(evaluate(walk, q, x, particles=3, progress=False).elbo)


def test_a_composite_has_the_density_of_torch(wide):
    """Of two models of one class, whose parameters stay apart; it trains as a model like any other."""
    torch.manual_seed(0)
    sizes = (
        {"event": 4, "latent": 2, "hidden": 8},
        {"event": 2, "latent": 3, "hidden": 8, "likelihood": "shared-gaussian"},
    )
    theirs = shaken(TorchComposite(*(ppl_models.VAE(**each) for each in sizes)))
    ours = like_torch(Composite(*(ports.VAE(**each, key=KEY) for each in sizes)), theirs)
    x = torch.bernoulli(torch.full((5, 4), 0.5, dtype=torch.double))
    trace = poutine.trace(theirs).get_trace(x)
    values = {name: jnp.asarray(trace.nodes[name]["value"].detach().numpy()) for name in ("u1", "z")}
    seeded = handlers.seed(handlers.substitute(ours, data=values), KEY)
    found = handlers.trace(seeded).get_trace(jnp.asarray(x.numpy()))
    trace.compute_log_prob()
    assert [name for name, site in found.items() if site["type"] == "sample"] == ["u1", "z", "x"]
    for name in ("u1", "z", "x"):
        mine = found[name]["fn"].log_prob(found[name]["value"])
        np.testing.assert_allclose(mine, trace.nodes[name]["log_prob"].detach().numpy(), rtol=1e-10)
    guide = guide_ports.BottomUp(ours, jnp.asarray(x.numpy()), hidden=8, key=KEY)
    before = named_parameters(ours)
    run = fit(ours, guide, jnp.asarray(x.numpy()), steps=3, batch_size=5, progress=False, seed=0)
    after = named_parameters(run.model)
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    assert {name.split(".")[0] for name in moved} == {"first", "second"} and "second.likelihood.log_scale" in moved


@pytest.mark.parametrize(("event", "wanted"), [(1, "more"), (3, "fewer")])
def test_rows_that_are_no_codes_are_refused(event, wanted):
    first = ports.VAE(event=4, latent=2, hidden=8, key=KEY)
    two = Composite(first, ports.VAE(event=event, latent=2, hidden=8, likelihood="gaussian", key=KEY))
    with pytest.raises(ValueError, match=f"Composite: found {event} values in a row .*, want {wanted}: as many"):
        numpyro.handlers.seed(two, KEY)(n=3)
