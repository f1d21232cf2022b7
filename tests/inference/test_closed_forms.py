"""Closed forms of divergences: each that is trusted against draws, what is not, and what wraps a distribution."""

from contextlib import nullcontext
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.distributions import ExpandedDistribution, FoldedDistribution
from pyro.distributions.util import scale_and_mask
from torch import Tensor
from torch.distributions.transforms import AffineTransform, ExpTransform

from ppl_models.inference import terms
from ppl_models.inference.pyro.sites.closed_forms import KNOWN, closed_form
from ppl_models.inference.pyro.sites.divergences import divergence, unit_divergence, weighed_divergence
from ppl_models.parts.bijectors import RankOneAffine
from ppl_models.programs.pyro import layers, mask_of, unwrapped
from tests.helpers.distributions import MAKE

DRAWS = 20_000


# where q lies within p
INSIDE = {
    "Uniform": lambda v: dist.Uniform(v[0].sigmoid() - 1, 1 + v[1].sigmoid()),
    "Pareto": lambda v: dist.Pareto(v[0].sigmoid() / 100, 1 + v[1].exp()),
}
PAIRS = [(q, p) for q, others in KNOWN.items() for p in others]


@pytest.mark.parametrize(("q", "p"), PAIRS, ids=lambda name: name.replace(" ", "-"))
def test_a_known_form_is_the_mean_of_the_log_ratio(q, p, double):
    """Within five standard errors of the mean of 20,000 draws, with gradients with respect to all numbers of both."""
    generator = torch.Generator().manual_seed(len(q) * len(p))
    a, b = (0.3 * torch.randn(9, generator=generator) for _ in "qp")
    prior = INSIDE.get(p, MAKE[p])
    fn, other = MAKE[q](a), prior(b)
    found = closed_form(fn, other)
    assert found is not None and found.shape == ()
    ratio = fn.log_prob(value := fn.sample((DRAWS,))) - other.log_prob(value)
    assert (found - ratio.mean()).abs() < 5 * ratio.std() / DRAWS**0.5
    numbers = a.requires_grad_(), b.requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: closed_form(MAKE[q](a), prior(b)), numbers)


class Truncated(dist.Normal):
    """A distribution of somebody's own, with another density than that of what it is derived from."""

    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob(value).masked_fill(value < 0, -torch.inf) - torch.special.log_ndtr(self.loc)


@pytest.mark.parametrize(
    ("q", "p"),
    [
        (dist.Delta(torch.tensor(2.0), torch.tensor(-3.0)), dist.Gamma(2.0, 1.0)),
        (dist.Delta(torch.ones(3), event_dim=1), dist.Normal(torch.zeros(3), 1.0).to_event(1)),
        (dist.Delta(torch.ones(3)).to_event(1), dist.MultivariateNormal(torch.zeros(3), torch.eye(3))),
        (FoldedDistribution(dist.Normal(1.0, 1.0)), FoldedDistribution(dist.Normal(0.0, 1.0))),
        (Truncated(0.3, 1.0), Truncated(0.0, 1.0)),
        (dist.ContinuousBernoulli(0.3), dist.Uniform(0.0, 1.0)),  # torch: infinite
        (dist.Wishart(3.0, torch.eye(2)), dist.Wishart(4.0, torch.eye(2))),  # torch: without a gradient
        (dist.Normal(0.0, 1.0), dist.Gamma(1.0, 1.0)),
    ],
    ids=lambda fn: type(unwrapped(fn)).__name__,
)
def test_forms_that_leave_a_part_out_are_not_asked_for(q, p):
    assert closed_form(q, p) is None
    assert closed_form(dist.TransformedDistribution(q, []), dist.TransformedDistribution(p, [])) is None


def test_a_point_with_a_density_counts_it():
    """As an autoguide draws what is constrained: log q(rate) = log N(u) - log |d rate / d u|."""

    def model():
        pyro.sample("rate", dist.Gamma(2.0, 1.0))

    def guide():
        u = pyro.sample("u", dist.Normal(0.3, 0.5), infer={"is_auxiliary": True})
        pyro.sample("rate", dist.Delta(u.exp(), -u))

    found = terms(model, guide, ())
    torch.testing.assert_close(found.kl["rate"], found.log_q["rate"] - found.log_p["rate"])
    assert found.log_q["rate"] != 0


# ---- wrappers

LOCS = torch.tensor([[0.5, -1.0, 2.0]] * 2), torch.zeros(2, 3)
Q, P = (dist.Normal(loc, torch.tensor([1.0, 0.5, 2.0])) for loc in LOCS)
ENTRIES = torch.tensor([[True, False, True], [True, True, False]])
ROWS = torch.tensor([True, False])
EXP = ExpTransform()
SHARED = RankOneAffine(torch.zeros(3), torch.ones(3), torch.ones(3))
# what wraps a (2, 3) distribution to one of two events, and the entries that count
WRAPPED = {
    "independent": (lambda fn: fn.to_event(1), None),
    "outside": (lambda fn: fn.to_event(1).mask(ROWS), ROWS[:, None]),
    "inside": (lambda fn: fn.mask(ENTRIES).to_event(1), ENTRIES),
    "both": (lambda fn: fn.mask(ENTRIES).to_event(1).mask(ROWS), ENTRIES & ROWS[:, None]),
    "twice": (lambda fn: fn.mask(ENTRIES).mask(ROWS[:, None]).to_event(1), ENTRIES & ROWS[:, None]),
    "expanded": (lambda fn: ExpandedDistribution(fn.mask(ENTRIES).to_event(1), torch.Size([2])), ENTRIES),
    "all": (lambda fn: fn.mask(True).to_event(1), None),
    "nothing": (lambda fn: fn.mask(False).to_event(1), torch.zeros(2, 3) > 0),
    "transformed": (lambda fn: dist.TransformedDistribution(fn, [EXP]).mask(ENTRIES).to_event(1), ENTRIES),
    "transformed outside": (lambda fn: dist.TransformedDistribution(fn.mask(ENTRIES).to_event(1), [EXP]), ENTRIES),
    "log normal": (lambda fn: dist.LogNormal(fn.loc, fn.scale).to_event(1).mask(ROWS), ROWS[:, None]),
    "bijector": (lambda fn: dist.TransformedDistribution(fn.mask(ENTRIES).to_event(1), [SHARED]), ENTRIES),
}  # fmt: skip


@pytest.mark.parametrize("name", WRAPPED)
def test_wrappers_in_any_order(name):
    wrap, kept = WRAPPED[name]
    q, p = wrap(Q), wrap(P)
    each = torch.distributions.kl_divergence(Q, P)
    each = each if kept is None else each * kept
    torch.testing.assert_close(closed_form(q, p), each.sum(-1))
    site = {"scale": 1.0, "mask": None, "value": q.sample()}
    torch.testing.assert_close(divergence({"fn": q, **site}, {"fn": p, **site}), each.sum(-1))
    units, events = unit_divergence("z", {"fn": q, **site}, {"fn": p, **site}, True)
    assert events == 1
    torch.testing.assert_close(units, each.expand_as(units))
    sampled, _ = unit_divergence("z", {"fn": q, **site}, {"fn": p, **site}, False)
    torch.testing.assert_close(sampled.sum(-1), q.log_prob(site["value"]) - p.log_prob(site["value"]))
    assert unwrapped(q).batch_shape == (2, 3) or "transformed outside" in name or name == "bijector"
    assert type(layers(q).base) is dist.Normal and layers(q).shape == (2, 3) and layers(q).events == 1
    mask = mask_of({"fn": q, "mask": None})
    if kept is None:
        assert mask is None
    elif name == "nothing":
        assert mask is False
    elif layers(q).masks[0].above:  # an event counts where all of it does
        assert torch.equal(mask.expand(2, 3), kept.all(-1, keepdim=True).expand(2, 3))
    else:
        assert torch.equal(mask.expand(2, 3), kept.expand(2, 3))


def test_bijections_in_another_place_are_the_same():
    inside = dist.TransformedDistribution(P, [EXP]).to_event(1)
    outside = dist.TransformedDistribution(Q.to_event(1), [EXP])
    torch.testing.assert_close(closed_form(outside, inside), closed_form(Q.to_event(1), P.to_event(1)))
    other = dist.TransformedDistribution(P, [AffineTransform(0.0, 2.0)]).to_event(1)
    assert closed_form(outside, other) is None


def test_a_mask_of_one_program_only_forbids_the_closed_form():
    alone = {"all of q": (Q.to_event(1), P.mask(ENTRIES).to_event(1))}
    alone["another"] = (Q.mask(ENTRIES.clone()).to_event(1), P.mask(ENTRIES).to_event(1))
    alone["elsewhere"] = (Q.to_event(1).mask(ROWS), P.mask(ROWS[:, None]).to_event(1))
    for q, p in alone.values():
        assert closed_form(q, p) is None
    repeated = [fn.mask(ENTRIES).to_event(1).expand([4, 2]) for fn in (Q, P)]  # as a plate of particles does
    once = closed_form(*(fn.mask(ENTRIES).to_event(1) for fn in (Q, P)))
    torch.testing.assert_close(closed_form(*repeated), once.expand(4, 2))


@pytest.mark.parametrize("within", [True, False])
def test_units_of_masked_latents(within):
    """A mask within events or of whole ones, in both programs or in the model's alone."""

    def program(x: Tensor, loc: Tensor, masked: bool) -> None:
        with pyro.plate("data", 2):
            fn = dist.Normal(loc, 1.0).expand([2, 3])
            fn = fn.mask(ENTRIES).to_event(1) if within and masked else fn.to_event(1)
            with poutine.mask(mask=ROWS) if masked and not within else nullcontext():
                pyro.sample("z", fn)
            if not loc:
                pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    kept = ENTRIES if within else ROWS[:, None].expand(2, 3)
    prior, factor = partial(program, loc=torch.zeros(()), masked=True), partial(program, loc=torch.ones(()))
    for masked in (True, False):
        found = terms(prior, partial(factor, masked=masked), (torch.ones(2),))
        torch.testing.assert_close(found.kl_units["z"].sum(-1), found.kl["z"])
        if masked:
            torch.testing.assert_close(found.kl["z"][0], 0.5 * kept.sum(-1))
        else:
            torch.testing.assert_close(found.kl["z"], found.log_q["z"] - found.log_p["z"])
        with pytest.raises(ValueError, match="site 'z': found a mask on this latent"):
            _ = found.drawn["z"]


@pytest.mark.parametrize("where", ["around", "within"])
def test_masks_that_are_computed_apart_read_nothing(where):
    """Where two masks are equal it is the formula, elsewhere the density at the draw that one of them leaves."""
    q, p = Q.to_event(1), P.to_event(1)
    value, each = q.sample(), torch.distributions.kl_divergence(Q, P).sum(-1)
    for kept, also in (([True, False], [True, False]), ([True, True], [False, True])):
        nodes = []
        for fn, mask in ((q, torch.tensor(kept)), (p, torch.tensor(also))):
            inside = where == "within"
            node = {"fn": fn.mask(mask) if inside else fn, "scale": 1.0, "mask": None if inside else mask}
            nodes.append({**node, "value": value})
        found, site = weighed_divergence(*nodes)
        drawn = q.log_prob(value) * torch.tensor(kept) - p.log_prob(value) * torch.tensor(also)
        want = torch.where(torch.tensor(kept) == torch.tensor(also), each * torch.tensor(kept), drawn)
        torch.testing.assert_close(scale_and_mask(found, 1.0, site["mask"]), want)
    view = torch.tensor([[True, False], [False, True]])
    nodes = [{"fn": fn, "scale": 1.0, "mask": view[:, 1], "value": value} for fn in (q, p)]
    torch.testing.assert_close(divergence(*nodes), each)
