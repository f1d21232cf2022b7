"""No program of the collection without its port, and no port without parity: of every pair, with the same noise."""

import importlib
import inspect
import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("numpyro")

import equinox as eqx
import jax
import jax.numpy as jnp
import torch
from jax.flatten_util import ravel_pytree
from scipy.stats import norm

import guides
import guides.numpyro
import ppl_models.inference as torch_side
from ppl_models.inference.numpyro import elbo, terms
from ppl_models.inference.pyro.passes.terms import terms as torch_terms
from ppl_models.numpyro import from_torch, like_torch
from ppl_models.numpyro.parts.program import named_parameters, training
from ppl_models.runs.naming import names
from tests.helpers.cases import few
from tests.helpers.collection import GUIDE_SIZES, PAIRS, SIZES, data_of

ROOT = Path(__file__).parents[2]
KEY, ROWS = jax.random.key(0), 4
# pairs that are compared every time; guides with an order of their own are compared in test_numpyro_guides
OFTEN = ("hierarchical-vae", "ladder"), ("sere-vae", "self-reflective"), ("infusion", "infused")
PARTS = ("bijectors", "bits", "composite", "distributions", "likelihoods", "pixels", "vamp")
NETS = tuple(f"nets.{name}" for name in ("attention", "convolutions", "ladder", "perceptrons", "pixelcnn", "recurrent"))
FLOWS = ("flows.autoregressive", "flows.densities", "flows.images", "flows.priors", "flows.raster")


# every program has a port


@pytest.mark.parametrize("kind", ["model", "guide"])
def test_every_program_has_a_port_and_every_port_a_program(kind):
    ours, ports = names.catalogue(kind), names.catalogue(kind, "numpyro")
    assert ours.keys() == ports.keys()
    for name, program in ours.items():
        port = ports[name]
        assert port.__name__ == program.__name__
        stem = name.replace("-", "_")
        assert port.__module__ == f"{names.package_of(kind, 'numpyro')}.{stem}"
        mine, theirs = inspect.signature(program).parameters, dict(inspect.signature(port).parameters)
        key = theirs.pop("key")
        assert key.kind is key.KEYWORD_ONLY and key.default is key.empty
        generator = {"generator"} if name == "linear-gaussian" else set()  # torch's way to say which numbers are drawn
        assert list(theirs) == [p for p in mine if p not in generator], name
        assert all(theirs[p].default == mine[p].default and theirs[p].kind == mine[p].kind for p in theirs), name


@pytest.mark.parametrize("part", (*PARTS, *NETS, *FLOWS))
def test_parts_have_ports(part):
    """Every public class and function of a file of parts is in the file of that name."""
    ours = importlib.import_module(f"ppl_models.parts.{part}")
    ports = importlib.import_module(f"ppl_models.numpyro.parts.{part}")
    mine = {
        name
        for name, value in vars(ours).items()
        if (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__ == ours.__name__
    }
    assert not {name for name in mine if not name.startswith("_") and not hasattr(ports, name)}


def test_files_of_guides_and_models_are_called_alike():
    """Those of either language: what knows neither is shared."""
    for package in ("guides", "ppl_models"):
        sources = {path.name: path.read_text() for path in (ROOT / package).glob("*.py")}
        files = {name for name, text in sources.items() if re.search(r"^(import|from) (pyro|torch)\b", text, re.M)}
        assert len(files) >= 5
        ports = {path.name for path in (ROOT / package / "numpyro").glob("*.py")}
        assert files <= ports, f"{package}: no port of {', '.join(sorted(files - ports))}"


# parity of every pair


class Noise:
    """Standard normal draws for both languages: the first one asked for, the second, ...; and uniform ones likewise."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        monkeypatch.setattr(jax.random, "normal", lambda key, shape=(), dtype=float: jnp.asarray(self(shape)))
        monkeypatch.setattr(
            jax.random, "uniform", lambda key, shape=(), dtype=float: jnp.asarray(norm.cdf(self(shape)))
        )
        monkeypatch.setattr(torch, "randn", lambda shape, **_: torch.tensor(self(shape)))
        monkeypatch.setattr(torch, "rand", lambda shape, **_: torch.tensor(norm.cdf(self(shape))))
        for place in ("normal", "multivariate_normal"):
            monkeypatch.setattr(
                importlib.import_module(f"torch.distributions.{place}"),
                "_standard_normal",
                lambda shape, dtype, device: torch.tensor(self(shape)),
            )

    def __call__(self, shape: tuple[int, ...]) -> np.ndarray:
        self.count += 1
        return np.random.default_rng([self.count, *shape]).normal(size=tuple(shape))


def built(model: str, guide: str, family: str | None = None, **options: object) -> tuple[tuple, tuple, torch.Tensor]:
    """((Pyro model, guide), (NumPyro model, guide) of the same weights, data)."""
    torch.manual_seed(0)
    x, sizes = data_of(model, ROWS).double(), {**SIZES[model], **options}
    p = names.catalogue("model")[model](**sizes)
    of_guide = {**GUIDE_SIZES[guide], **({} if family is None else {"family": family})}
    q = names.catalogue("guide")[guide](p, x[:3], **of_guide)
    for parameter in (*p.parameters(), *q.parameters()):  # what starts at zero hides mistakes
        parameter.data += 0.1 * torch.randn_like(parameter)
    port = like_torch(names.catalogue("model", "numpyro")[model](**sizes, key=KEY), p)
    example = jnp.asarray(x[:3].numpy())
    port_guide = names.catalogue("guide", "numpyro")[guide](port, example, **of_guide, key=KEY)
    return (p, q), (port, like_torch(port_guide, q)), x


@pytest.mark.parametrize(("model", "guide"), few(PAIRS, lambda *pair: pair in OFTEN))
def test_the_bound_and_its_gradient_are_those_of_torch(wide, monkeypatch, model, guide):
    """Same weights, same noise: terms by site to 1e-10, the ELBO and all gradients to 1e-8, in double precision."""
    same_terms(monkeypatch, *built(model, guide))


@pytest.mark.parametrize(
    ("model", "guide"),
    few([("sequential-vae", "mean-field"), ("infusion", "infused")], lambda model, guide: model == "infusion"),
)
def test_what_is_scored_at_every_step_is_what_torch_scores(wide, monkeypatch, model, guide):
    """In training mode, with the criterion that observes the data at every step: as above."""
    pair, ports, x = built(model, guide, criterion="per-step")
    assert pair[0].train().training
    with training():
        sites = same_terms(monkeypatch, pair, ports, x)
    assert {"x", "x1"} <= sites
    pair[0].eval()
    assert same_terms(monkeypatch, pair, ports, x) == {"x"}


ABLATIONS = [
    ({"feedback": feedback, "coupling": coupling}, guide)
    for feedback, coupling in ((True, False), (False, True), (False, False))
    for guide in ("mean-field", "self-reflective")
]


@pytest.mark.parametrize(
    ("switches", "guide"),
    few(ABLATIONS, lambda switches, guide: guide == "self-reflective" and not any(switches.values())),
)
@pytest.mark.slow
def test_the_ablations_of_a_sere_vae_are_those_of_torch(wide, monkeypatch, switches, guide):
    same_terms(monkeypatch, *built("sere-vae", guide, **switches))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "guide", "family"),
    [
        ("biva", "bidirectional", "diagonal:least=1"),
        ("matnet", "merging", "diagonal"),
        ("matnet", "ladder", "diagonal:least=1"),
    ],
)
def test_states_that_are_maps_are_those_of_torch(wide, monkeypatch, model, guide, family):
    """As above, of images, with standard deviations that are held up."""
    same_terms(monkeypatch, *built(model, guide, family, event=(1, 2, 3), network="conv"))


GUIDES_OF_FLOWS = [guide for guide in GUIDE_SIZES if guide != "infused"]
FAMILIES = ("iaf:hidden=6,context=3,depth=2", "maf:hidden=6,context=3", "nsf:hidden=6,context=3,steps=1")
PRIORS = ("maf:hidden=6,steps=2", "maf-mean:hidden=6,steps=2,depth=2", "nsf:hidden=6,steps=2,passes=2,bins=3")
BITS = ("bits", "autoregressive-bits:hidden=6,context=3,depth=2")
IN_FLOWS = [  # (model, its options, guide, family)
    *(("sere-vae", {}, guide, family) for guide in GUIDES_OF_FLOWS for family in FAMILIES),
    *((model, {"prior": word}, "mean-field", None) for model in ("vae", "pixel-vae") for word in PRIORS),
    *(("vae", {"prior": PRIORS[0]}, guide, FAMILIES[0]) for guide in GUIDES_OF_FLOWS),
    *(
        ("sere-vae", {"bijection": word, "prior": prior}, guide, family)
        for word in ("rank-one", "spline", "identity")
        for prior in ("learned", "standard")
        for guide, family in (("self-reflective", "diagonal"), ("ladder", FAMILIES[0]))
    ),
    *(("sere-vae", {"prior": "vamp"}, "self-reflective", family) for family in ("diagonal", FAMILIES[0])),
    ("sere-vae", {"prior": "vamp"}, "bottom-up", "diagonal"),
    *(("bit-vae", {}, guide, family) for guide in GUIDES_OF_FLOWS if guide != "ladder" for family in BITS),
]
FLOWS_OFTEN = (
    ("vae", {"prior": PRIORS[0]}, "ladder", FAMILIES[0]),
    ("sere-vae", {"bijection": "identity", "prior": "standard"}, "self-reflective", "diagonal"),
    ("bit-vae", {}, "mean-field", BITS[1]),
)


@pytest.mark.parametrize(("model", "options", "guide", "family"), few(IN_FLOWS, lambda *case: case in FLOWS_OFTEN))
def test_flows_are_those_of_torch(wide, monkeypatch, model, options, guide, family):
    """Families, priors and bijections of autoregressive steps: as above, of draws that are pushed through them."""
    same_terms(monkeypatch, *built(model, guide, family, **options))


@pytest.mark.parametrize(
    ("guide", "method"),
    few(
        [(guide, method) for guide in ("ladder", "bottom-up", "faithful") for method in ("dais", "hvi")],
        lambda *case: False,
    ),
)
def test_refined_guides_are_those_of_torch(wide, monkeypatch, guide, method):
    """The gradients are second derivatives of both languages."""
    (p, q), (port, port_guide), x = built("hierarchical-vae", guide)
    q = guides.Refined(q, steps=2, method=method, hidden=4)
    for parameter in (q.size, *q.reverse.parameters()):
        parameter.data += 0.1 * torch.randn_like(parameter)
    ported = guides.numpyro.Refined(port_guide, steps=2, method=method, hidden=4, key=KEY)
    assert (
        inspect.signature(guides.Refined).parameters.keys() | {"key"}
        == inspect.signature(type(ported)).parameters.keys()
    )
    same_terms(monkeypatch, (p, q), (port, like_torch(ported, q)), x)


def same_terms(monkeypatch: pytest.MonkeyPatch, pair: tuple, ports: tuple, x: torch.Tensor) -> set[str]:
    """Hold a pair and its port to each other; returns the observed sites."""
    (p, q), (port, port_guide) = pair, ports
    for module in (p, q):
        module.zero_grad()
    with monkeypatch.context() as patch:
        Noise(patch)
        found = torch_terms(p, q, (x,), states=True)  # no noise draws a discrete latent in both languages alike
        bound = torch_side.elbo(found)
    bound.backward()
    arrays = {"p": eqx.filter(port, eqx.is_inexact_array), "q": eqx.filter(port_guide.own(), eqx.is_inexact_array)}

    def value(arrays: dict) -> tuple[jax.Array, dict]:
        params = {port.param: arrays["p"], port_guide.param: arrays["q"]}
        mine = terms(port, port_guide, (jnp.asarray(x.numpy()),), key=KEY, params=params, states=True)
        return elbo(mine), {"kl": mine.kl, "x": mine.log_likelihood, "log_p": mine.log_p, "log_q": mine.log_q}

    with monkeypatch.context() as patch:
        Noise(patch)
        compiled = jax.jit(
            jax.value_and_grad(value, has_aux=True), compiler_options={"xla_backend_optimization_level": 0}
        )
        (mine, told), slopes = compiled(arrays)
    np.testing.assert_allclose(mine, bound.item(), rtol=1e-10)
    theirs = {"kl": found.kl, "x": found.log_likelihood, "log_p": found.log_p, "log_q": found.log_q}
    for kind, sites in theirs.items():
        assert told[kind].keys() == sites.keys()
        for site in sites:
            expected = sites[site].detach().numpy()
            np.testing.assert_allclose(told[kind][site], expected, rtol=1e-10, atol=1e-11, err_msg=f"{kind} {site}")
    for module, port_module, slope in ((p, port, slopes["p"]), (q, port_guide.own(), slopes["q"])):
        carried = from_torch(
            {k: torch.zeros_like(v) if v.grad is None else v.grad for k, v in module.named_parameters()}
        )
        gradients = named_parameters(slope)
        assert gradients.keys() == carried.keys() == named_parameters(port_module).keys()
        largest = max((float(abs(g).max()) for g in carried.values()), default=0.0)
        for name, gradient in gradients.items():
            np.testing.assert_allclose(gradient, carried[name], rtol=1e-8, atol=1e-9 * largest, err_msg=name)
    assert np.isfinite(ravel_pytree(slopes)[0]).all()
    return set(found.log_likelihood)
