"""Every guide on every model of the collection: gradients, shapes, densities, divergences; and `Terms`."""

from collections.abc import Callable
from functools import partial
from itertools import product
from math import prod

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor
from torch.nn.functional import softplus

from guides import Bidirectional, BottomUp, Faithful, Ladder, MeanField, Merging, Recurrent, SelfReflective
from guides.parts import conditionals
from ppl_models import DLGM, DRAW, VAE, HierarchicalVAE, Infusion, LinearGaussian, PixelVAE, SequentialVAE, SeReVAE
from ppl_models.inference import load, save
from ppl_models.inference.objectives.bounds import elbo
from ppl_models.inference.pyro.passes.terms import terms
from tests.helpers.cases import few

GUIDES = (
    *(MeanField, BottomUp, Bidirectional, Ladder, SelfReflective, Merging, Faithful),
)  # Infused and Recurrent are not for all models
FAMILIES = ("diagonal", "rank-one", "full")
LIKELIHOODS = ("bernoulli", "gaussian", "gaussian:0.5", "logistic:8")
WIDTH, IMAGE, COLOUR = 16, (1, 4, 4), (3, 4, 4)

MODELS: dict[str, Callable] = {
    "vae": lambda likelihood: VAE(WIDTH, 4, 8, likelihood=likelihood),
    "vae-conv": lambda likelihood: VAE(IMAGE, 3, 16, likelihood=likelihood, network="conv"),
    "dlgm": lambda likelihood: DLGM(WIDTH, (3, 4), 8, likelihood=likelihood),
    "hierarchical": lambda likelihood: HierarchicalVAE(WIDTH, (2, 3, 4), 8, likelihood=likelihood),
    "hierarchical-skip": lambda likelihood: HierarchicalVAE(WIDTH, (2, 3, 4), 8, likelihood=likelihood, skip=True),
    "sere": lambda likelihood: SeReVAE(WIDTH, 3, 3, 8, likelihood=likelihood),
    "sere-conv": lambda likelihood: SeReVAE(IMAGE, 2, 3, 16, likelihood=likelihood, network="conv"),
    "linear": lambda likelihood: LinearGaussian(WIDTH, (2, 3, 2), {"x": ("z3", "z1"), "z3": ("z2", "z1")}),
    "pixel": lambda likelihood: PixelVAE(IMAGE, 3, 4, 2, likelihood=likelihood, components=2),
    "sequential": lambda likelihood: SequentialVAE(WIDTH, 3, 2, 8, likelihood=likelihood, predictor=True),
    "sequential-conv": lambda likelihood: SequentialVAE(IMAGE, 2, 2, 16, likelihood=likelihood, network="conv"),
    "infusion": lambda likelihood: Infusion(WIDTH, 3, 8),
    "draw": lambda likelihood: DRAW(IMAGE, 3, 2, 8, window=2, likelihood=likelihood),
    "vae-colour": lambda likelihood: VAE(COLOUR, 3, 16, likelihood=likelihood, network="conv"),
    "sere-colour": lambda likelihood: SeReVAE(COLOUR, 2, 3, 16, likelihood=likelihood, network="conv"),
    "pixel-colour": lambda likelihood: PixelVAE(COLOUR, 3, 4, 2, likelihood=likelihood, components=2),
    "sequential-colour": lambda likelihood: SequentialVAE(COLOUR, 2, 2, 16, likelihood=likelihood, network="conv"),
}
ENCODERS = ("separate", "shared", "bottom-up", "conv", "pyramid", "linear")
QUICK = ("sere-colour", "conv")
CASES = [(name, k) for name in MODELS for k in (("gaussian",) if name in ("linear", "infusion") else LIKELIHOODS)]


def image_of(name: str) -> tuple[int, ...]:
    return COLOUR if name.endswith("colour") else IMAGE


def data(likelihood: str, n: int = 5, width: int = WIDTH) -> Tensor:
    u = torch.rand(n, width, generator=torch.Generator().manual_seed(1))
    if likelihood == "bernoulli":
        return (u > 0.5).float()
    return (u * 7).round() / 7 if likelihood.startswith("logistic") else 2 * u - 1


def check(model, guide, x: Tensor) -> None:
    """One loss: finite, a gradient for every parameter of the pair, shapes as they should be."""
    loss = -elbo(terms(model, guide, (x,)))
    loss.backward()
    assert torch.isfinite(loss)
    assert not [name for module in (guide, model) for name, p in module.named_parameters() if p.grad is None]
    found = terms(model, guide, (x,), particles=3, nesting=1)
    for part in (found.log_likelihood, found.log_p, found.log_q, found.kl):
        assert all(t.shape in ((3, len(x)), (1, len(x))) for t in part.values())
    prior = poutine.trace(model).get_trace(x)
    for name, value in guide(x[:2]).items():
        assert value.shape == (2, *prior.nodes[name]["value"].shape[1:])


@pytest.mark.parametrize(
    ("name", "likelihood", "guide"),
    few(
        [(*case, guide) for case in CASES for guide in GUIDES],
        lambda name, kind, guide: (
            (name, guide) == ("vae", MeanField)
            or (kind == "gaussian" and (name == "sere" or (guide is SelfReflective and "-" in name)))
        ),
    ),
)
def test_every_guide_on_every_model_and_likelihood(name, likelihood, guide):
    model, x = MODELS[name](likelihood), data(likelihood, width=prod(image_of(name)))
    for family in FAMILIES:
        check(model, guide(model, x, family=family, hidden=8), x)


ALIKE = [case for case in CASES if case[0] not in ("dlgm", "hierarchical", "hierarchical-skip", "linear")]


@pytest.mark.parametrize(
    ("name", "likelihood"), few(ALIKE, lambda name, kind: kind == "gaussian" and name in ("sere", "draw", "infusion"))
)
def test_the_recurrent_guide_on_models_whose_latents_are_alike(name, likelihood):
    model, x = MODELS[name](likelihood), data(likelihood, width=prod(image_of(name)))
    for options in ({}, {"family": "rank-one"}, {"family": "full", "window": 2, "image": image_of(name)}):
        check(model, Recurrent(model, x, hidden=8, **options), x)


@pytest.mark.parametrize(
    ("name", "encoder", "guide"),
    few(
        [(n, e, g) for n in MODELS for e in ENCODERS for g in GUIDES],
        lambda name, encoder, guide: (
            (name == "sere" and (guide is SelfReflective or encoder == "separate"))
            or ((name, encoder) == QUICK and guide is SelfReflective)
        ),
    ),
)
def test_every_guide_with_every_encoder(name, encoder, guide):
    model, x = MODELS[name]("gaussian"), data("gaussian", width=prod(image_of(name)))
    if guide is Faithful and encoder in ("conv", "pyramid") and name == "sere":  # whose factors read some blocks only
        return
    check(model, guide(model, x, encoder=encoder, hidden=8, image=image_of(name)), x)


def test_a_factor_of_some_blocks_reads_no_image():
    model, x = SeReVAE(IMAGE, 3, 2, 16, likelihood="gaussian", network="conv"), data("gaussian")
    with pytest.raises(ValueError, match="encoder 'conv' reads rows of [0-9]+ values as images"):
        Faithful(model, x, encoder="conv", hidden=8, image=IMAGE)  # z3 needs x2 and x3, not x1


@pytest.mark.parametrize(
    ("name", "guide", "family"),
    few(
        product(("hierarchical-skip", "sere", "dlgm"), GUIDES, FAMILIES),
        lambda name, guide, family: name == "sere" and (guide is SelfReflective or family == "rank-one"),
    ),
)
def test_analytic_and_sampled_divergences_agree_in_mean(name, guide, family):
    model, x = MODELS[name]("gaussian").double(), data("gaussian").double()
    q = guide(model, x, family=family, hidden=8).double()
    with torch.no_grad():
        sampled = terms(model, q, (x,), particles=4000, nesting=1, analytic=False)
        exact = terms(model, q, (x,), particles=4000, nesting=1)
        noise = torch.stack([(sampled.kl[n] - exact.kl[n]).mean(1).expand(4000) for n in exact.kl])
    # five standard errors of the difference of two means over 4000 particles, datum-averaged, site by site
    assert (noise.mean(1).abs() <= 5 * noise.std(1) / 4000**0.5 + 1e-9).all()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("guide", GUIDES)
def test_the_density_of_a_draw_is_the_density_evaluated_there(guide, family):
    model, x = MODELS["sere"]("gaussian").double(), data("gaussian").double()
    q = guide(model, x, family=family, hidden=8).double()
    first = poutine.trace(q).get_trace(x)
    values = {name: first.nodes[name]["value"].detach().clone() for name in q.layout.latents}  # no cached inverse

    class Substitute(poutine.messenger.Messenger):
        def _pyro_sample(self, msg: dict) -> None:
            if msg["name"] in values:
                msg["value"], msg["done"] = values[msg["name"]], True

    with Substitute():
        second = poutine.trace(q).get_trace(x)
    for name in values:
        a, b = (t.nodes[name]["fn"].log_prob(t.nodes[name]["value"]) for t in (first, second))
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_merged_families_multiply_an_estimate_with_the_prior():
    """The precision exceeds the prior's by a positive definite matrix, and a vague estimate leaves the prior's mean."""
    model, x = MODELS["hierarchical"]("gaussian").double(), data("gaussian").double()
    for family in FAMILIES:
        q = Ladder(model, x, family=family, hidden=8).double()
        q(x)
        for name in ("z2", "z3"):
            node = q.trace.nodes[name]
            fn, prior = node["fn"], node["infer"]["prior"]
            covariance = fn.covariance_matrix if family != "diagonal" else torch.diag_embed(fn.variance)
            extra = torch.linalg.inv(covariance) - torch.diag_embed(1 / prior.variance)
            assert (torch.linalg.eigvalsh(extra) > -1e-9).all()


def test_a_full_estimate_at_the_top_is_a_cholesky_factor():
    """Nothing keeps a square root of any form from being singular for some data, there."""
    model, x = MODELS["hierarchical"]("gaussian").double(), data("gaussian").double()
    q = Ladder(model, x, family="full", hidden=8).double()
    shift, rest = q.factors.raw("z1", q.factors.encode(q.layout.evidence(model, (x,), {})[0]), {}).split((2, 3), -1)
    q(x)
    fn = q.trace.nodes["z1"]["fn"]
    torch.testing.assert_close(fn.mean, shift)
    assert (fn.scale_tril.diagonal(dim1=-2, dim2=-1) > 0).all()
    torch.testing.assert_close(fn.scale_tril[:, 1, 0], rest[:, 2])
    merged = Ladder(model, x, family="full", hidden=8, top="product")
    assert merged.factors.plan["z1"].outputs == 2 + 2 * 2


@pytest.mark.parametrize("family", ["diagonal", "iaf:steps=1,hidden=4"])
def test_a_ladder_whose_networks_give_estimates_has_the_densities_of_the_paper(family):
    """Its mean is (m / v + mu_p / s_p^2) s_q^2, eq. 18 of Sonderby et al. 2016; the shift is (m / v) s_q^2."""
    model, x = MODELS["hierarchical"]("gaussian").double(), data("gaussian").double()
    published = Ladder(model, x, hidden=8, family=family, mean="estimate").double()
    factor, n = published.factors.plan["z2"], published.factors.plan["z2"].size
    raw = torch.randn(5, factor.outputs, dtype=torch.double)
    own = published.factors.family("z2")
    loc, scale = torch.randn(5, n, dtype=torch.double), torch.rand(5, n, dtype=torch.double) + 0.5
    tau, prior = 1 / (softplus(raw[:, n : 2 * n]) + 1e-5), scale**-2
    shifted = torch.cat([raw[:, :n] * tau / (tau + prior), raw[:, n:]], -1)
    value = torch.randn(5, n, dtype=torch.double)
    found = factor.merged(own, raw, loc, scale)
    torch.testing.assert_close(found.log_prob(value), own.precision_weighted(shifted, loc, scale).log_prob(value))
    if family == "diagonal":
        torch.testing.assert_close(found.mean, (raw[:, :n] * tau + loc * prior) / (tau + prior))
    assert published.shifted == set() and Ladder(model, x, hidden=8, family=family).shifted == {"z2", "z3"}


def test_the_top_of_a_ladder_is_the_estimate_alone():
    """As in Sonderby et al. 2016: no product with the prior, so that its scale may exceed the prior's."""
    model, x = MODELS["hierarchical"]("gaussian").double(), data("gaussian").double()
    q = Ladder(model, x, hidden=8).double()
    q.factors.q_z1.bias.data += 3
    q(x)
    fn = q.trace.nodes["z1"]["fn"]
    estimate, spread = q.factors.raw("z1", q.factors.encode(q.layout.evidence(model, (x,), {})[0]), {}).chunk(2, -1)
    torch.testing.assert_close(fn.mean, estimate, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(fn.stddev, (softplus(spread) + 1e-5).sqrt(), rtol=1e-4, atol=0)
    assert (fn.stddev > 1).all() and q.tops == {"z1"}
    merged = Ladder(model, x, hidden=8, top="product").double()
    merged.load_state_dict(q.state_dict())
    merged(x)
    precision = 1 / (softplus(spread) + 1e-5) + 1
    torch.testing.assert_close(merged.trace.nodes["z1"]["fn"].stddev, precision.rsqrt())
    assert not merged.tops
    with pytest.raises(ValueError, match="guide Ladder: found top='prior', want 'estimate' or 'product'"):
        Ladder(model, x, hidden=8, top="prior")


# ---- what a guide is built of


def two(x, names=("a", "b")):
    with pyro.plate("data", len(x)):
        first = pyro.sample(names[0], dist.Normal(torch.zeros(2, dtype=x.dtype), 1.0).to_event(1))
        second = pyro.sample(names[1], dist.Normal(first, 1.0).to_event(1))
        pyro.sample("x", dist.Normal(second, 1.0).to_event(1), obs=x)


@pytest.mark.parametrize("guide", GUIDES)
@pytest.mark.parametrize("names", [("a.b", "a_b"), ("a.b", "dotted_a~1b"), ("a~1.b", "a.~1b"), ("a~0.", "a~.0")])
def test_every_latent_has_a_network_of_its_own(guide, names):
    x, model = torch.randn(5, 2), partial(two, names=names)
    q = guide(model, x, hidden=4)

    def networks(guide):
        factors = guide.factors.conditionals if isinstance(guide, Merging) else guide.factors
        return [key for key, _ in factors.named_children() if not key.startswith(("encoders", "base_"))]

    assert len(networks(q)) == 2
    elbo(terms(model, q, (x,))).backward()
    assert all(p.grad is not None for p in q.parameters())
    plain = guide(two, x, hidden=4)
    assert networks(plain) == ["q_a", "q_b"]


class Counts(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.loc = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(self.loc, 1.0))
            pyro.sample("x", dist.Poisson(z.exp()), obs=x)


@pytest.mark.parametrize("guide", GUIDES)
def test_a_guide_is_made_in_the_dtype_of_its_model(guide):
    x = torch.rand(5, WIDTH).double()
    model = MODELS["sere"]("gaussian").double()
    q = guide(model, x, hidden=8)
    assert {p.dtype for p in q.parameters()} == {torch.double}
    assert torch.isfinite(elbo(terms(model, q, (x,))))
    # evidence of another dtype, here integers, is read in the guide's
    counts = Counts().double()
    assert torch.isfinite(elbo(terms(counts, guide(counts, torch.tensor([0, 1, 3]), hidden=8), (torch.arange(4),))))
    # a model without parameters: of its data
    q = guide(two, x[:, :2], hidden=8)
    assert {p.dtype for p in q.parameters()} == {torch.double}
    assert torch.isfinite(elbo(terms(two, q, (x[:, :2],))))
    assert {p.dtype for p in guide(two, x[:, :2].float(), hidden=8).parameters()} == {torch.float}


@pytest.mark.cuda
@pytest.mark.parametrize("guide", GUIDES)
def test_a_guide_is_made_on_the_device_of_its_model(guide):
    x, model = torch.rand(5, WIDTH, device="cuda"), MODELS["sere"]("gaussian").cuda()
    q = guide(model, x, hidden=8)
    assert {p.device.type for p in q.parameters()} == {"cuda"} and torch.isfinite(elbo(terms(model, q, (x,))))


@pytest.mark.parametrize("guide", GUIDES)
def test_a_guide_knows_its_model_but_does_not_own_it(guide):
    x, model = data("bernoulli"), MODELS["vae"]("bernoulli")
    q = guide(model, x, hidden=8)
    assert q.model is model
    assert not {*model.parameters()} & {*q.parameters()} and not any("model" in name for name in q.state_dict())


@pytest.mark.parametrize("guide", GUIDES)
@pytest.mark.parametrize(
    ("sizes", "text"),
    [
        ({"family": {"z9": "full"}}, "family names the site 'z9', want one of the latents z1, z2"),
        (
            {"family": None},
            "found family None, want one of 'diagonal', .*'nsf', 'bits', 'autoregressive-bits', an object",
        ),
        ({"family": {"z1": None}}, "found family None"),
        ({"family": type(conditionals.FAMILIES["full"])}, "found family <class"),
        ({"parents": {"z1": "z2", "z2": "z1"}}, r"found parents\['z1'\] = 'z2', want a tuple of names; try \('z2',\)"),
        ({"parents": {"z1": None}}, r"found parents\['z1'\] = None, want a tuple of names; try .*\(\) for none"),
        ({"parents": None}, "found parents=None, want one of"),
        ({"hidden": 0}, "found hidden=0, want an integer of at least 1"),
        ({"depth": -1}, "found depth=-1, want an integer of at least 0"),
    ],
)
def test_arguments_that_mean_nothing_are_refused(guide, sizes, text):
    if "parents" in sizes and guide in (MeanField, Merging, Faithful):
        return  # which have none to choose
    if guide is Bidirectional:
        text = text.replace("parents=None, want one of", "parents=None, want 'apart' or one of")
    with pytest.raises(ValueError, match=f"guide {guide.__name__}: {text}"):
        guide(MODELS["dlgm"]("bernoulli"), data("bernoulli"), **sizes)


@pytest.mark.parametrize("guide", GUIDES)
def test_enumerated_latents_are_for_guides_in_an_order_of_their_own(guide):
    def model(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(pyro.sample("z", dist.Normal(k, 1.0)), 1.0), obs=x)

    if guide in (BottomUp, Bidirectional, Faithful):
        loss = pyro.infer.TraceEnum_ELBO(max_plate_nesting=1)
        assert torch.isfinite(loss.differentiable_loss(model, guide(model, X, hidden=4), X))
    else:
        with pytest.raises(ValueError, match="found the enumerated site 'k', want none.*try BottomUp, with TraceEnum"):
            guide(model, X)


# ---- Terms


def plain(x):
    mu = pyro.sample("mu", dist.Normal(0.0, 2.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(mu, 1.0))
        with poutine.mask(mask=x > 0):
            pyro.sample("x", dist.Normal(z, 0.5), obs=x)


def backwards(x):
    """z before mu, which is drawn given the mean of z: not the model's order."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.3 * x, 0.7))
    pyro.sample("mu", dist.Normal(0.5 * z.mean(-1, keepdim=z.dim() > 1), 0.9))


def forwards(x):
    u = pyro.sample("u", dist.Normal(0.0, 1.5), infer={"is_auxiliary": True})
    pyro.sample("mu", dist.Normal(u, 0.9))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(0.3 * x, 0.7))


X = torch.tensor([0.5, -1.0, 2.0, 0.1])


def test_terms_of_a_plain_pair_are_the_hand_computed_ones():
    found_trace = {}

    class Record(poutine.messenger.Messenger):
        def _pyro_post_sample(self, msg: dict) -> None:
            found_trace.setdefault(msg["name"], msg["value"])

    with Record():
        found = terms(plain, forwards, (X,), particles=6, nesting=1, analytic=False)
    u, mu, z = found_trace["u"], found_trace["mu"], found_trace["z"]
    normal = torch.distributions.Normal
    likelihood = torch.where(X > 0, normal(z, 0.5).log_prob(X), 0.0)
    local = likelihood + normal(mu, 1.0).log_prob(z) - normal(0.3 * X, 0.7).log_prob(z)
    shared = normal(0.0, 2.0).log_prob(mu) - normal(u, 0.9).log_prob(mu) - normal(0.0, 1.5).log_prob(u)
    torch.testing.assert_close(found.log_w, local + shared)
    assert found.shared == {"mu", "u"}  # outside the data plate: counted once for all data
    torch.testing.assert_close(elbo(found), (local.mean(0).sum() + shared.mean()) / 4)
    torch.testing.assert_close(elbo(found, data_size=40), local.mean(0).sum() / 4 + shared.mean() / 40)


def test_a_guide_in_another_order_gets_sampled_divergences():
    """KL(q(z) || p(z | mu)) at a mu drawn given z is not a divergence of the pair: the sampled terms are taken."""
    found = terms(plain, backwards, (X,), particles=3, nesting=1)
    for name in ("mu", "z"):
        torch.testing.assert_close(found.kl[name], found.log_q[name] - found.log_p[name])
    with torch.no_grad():
        bounds = [elbo(terms(plain, backwards, (X,), particles=2000, nesting=1)) for _ in range(10)]
        loss = pyro.infer.Trace_ELBO(2000, vectorize_particles=True, max_plate_nesting=1)
        pyros = [-loss.differentiable_loss(plain, backwards, X) / 4 for _ in range(10)]
    a, b = torch.stack(bounds), torch.stack(pyros)
    assert (a.mean() - b.mean()).abs() < 5 * ((a.var() + b.var()) / 10).sqrt()  # five standard errors


def test_a_mask_in_one_program_only_forbids_the_closed_form():
    def model(x):
        with pyro.plate("data", len(x)):
            with poutine.mask(mask=x > 0):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 1.0))

    found = terms(model, guide, (X,))
    torch.testing.assert_close(found.kl["z"], found.log_q["z"] - found.log_p["z"])
    q = SelfReflective(model, X, hidden=8)  # which runs the model, mask and all
    found = terms(model, q, (X,))
    assert (found.kl["z"][:, X <= 0] == 0).all() and (found.kl["z"][:, X > 0] > 0).all()


def test_mismatched_plain_pairs_are_refused():
    def short(x):
        pyro.sample("mu", dist.Normal(0.0, 1.0))

    def long(x):
        backwards(x)
        pyro.sample("other", dist.Normal(0.0, 1.0))

    with pytest.raises(ValueError, match="no factor for the site 'z' of the model .the guide samples: mu."):
        terms(plain, short, (X,))
    with pytest.raises(ValueError, match="the guide samples the site 'other', which the model does not draw"):
        terms(plain, long, (X,))


def test_a_file_of_bases_around_the_priors_is_told_from_one_of_their_own(tmp_path):
    x, model = torch.randn(5, 2), two
    save(tmp_path / "then.safetensors", {"guide": SelfReflective(model, x, hidden=4, base="prior")})
    with pytest.raises(
        ValueError, match="SelfReflective built its factors around the bases .*; build it with base='prior'"
    ):
        load(tmp_path / "then.safetensors", {"guide": SelfReflective(model, x, hidden=4)})
    load(tmp_path / "then.safetensors", {"guide": SelfReflective(model, x, hidden=4, base="prior")})
    with pytest.raises(ValueError, match="found base='posterior', want 'own' or 'prior'"):
        SelfReflective(model, x, hidden=4, base="posterior")
