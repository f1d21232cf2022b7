"""Evidence, parents, plates and masks of guides: small arrays and programs whose answers are counted by hand."""

import math
from collections.abc import Callable

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from guides import BottomUp, Faithful, Ladder, MeanField, SelfReflective
from guides.parts.encoders import Separate, encoder
from guides.parts.families.continuous import masked_alike
from guides.parts.families.factors import Rows
from guides.parts.guide import TopDownGuide
from guides.parts.looks.evidence import Evidence, EvidenceKey, elements, features, gather, plate_sizes, wanted, width
from guides.parts.pyro import PYRO
from ppl_models.programs.record import Plate

pytestmark = pytest.mark.usefixtures("double")

A, B = Plate("a", -2, 3, 3), Plate("b", -1, 4, 4)


def close(found: Tensor, expected: object) -> None:
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=torch.double))


# Evidence


def test_elements_of_a_row():
    """Places in an argument of two rows of four: 0 to 3, and 4 to 7."""
    assert elements(np.array([[1, 2], [5, 6]]), (2,), (2, 4)) == {1, 2}
    assert elements(np.array([[3, 1], [7, 5]]), (2,), (2, 4)) == {1, 3}
    assert elements(np.array([[5, 6], [1, 2]]), (2,), (2, 4)) is None  # the other row
    assert elements(np.array([[1, 2], [1, 2]]), (2,), (2, 4)) is None  # the first row twice
    assert elements(np.array([1, 2, 5]), (3,), (2, 4)) is None
    assert elements(np.array([[1, 2], [5, 6]]), (2,), (3, 4)) is None  # of three rows, two


def test_what_is_read_of_a_row():
    inside = ("a", frozenset({0, 1})), ("b", frozenset({1, 2}))
    assert np.array_equal(wanted(5, inside, ("a",)), [0, 1, 3, 4])  # all but what only b observes
    assert np.array_equal(wanted(5, inside, ("b",)), slice(1, 5))
    assert wanted(5, inside, ("a", "b")) == slice(0, 5) and wanted(5, inside, ()) == slice(3, 5)
    assert wanted(2, (("a", None),), ()) is None and wanted(2, (("a", None), ("b", frozenset({1}))), ("b",)) == slice(
        1, 2
    )


def test_plates_that_are_not_shared_are_folded_into_features():
    value = torch.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5)  # particles, a, b, event
    found = features(value, 1, (A, B), frozenset("a"))
    assert found.shape == (2, 3, 1, 20)
    close(found[1, 2, 0], value[1, 2].reshape(20))
    found = features(value, 1, (A, B), frozenset("b"))
    assert found.shape == (2, 1, 4, 15)
    close(found[1, 0, 3], value[1, :, 3].reshape(15))
    assert features(value, 1, (A, B), frozenset("ab")).shape == value.shape
    assert features(value, 2, (Plate("a", -1, 3, 3),), frozenset("a")).shape == (2, 3, 20)
    assert features(torch.ones(5), 1, (B,), frozenset()).shape == (5,)  # nothing of the plate is there
    assert features(torch.ones(4), 0, (B,), frozenset("b")).shape == (4, 1)


def test_widths_and_sizes_are_those_of_the_features():
    value = torch.arange(3 * 4 * 5.0).reshape(3, 4, 5)
    each = Evidence(value, 1, (A, B), (("x", frozenset({0, 3, 4})), ("y", frozenset({1}))))
    for shared, names, expected in (("ab", ("x",), 4), ("a", ("x",), 16), ("b", ("y",), 6), ("", ("x", "y"), 60)):
        key = EvidenceKey(frozenset(shared), names)
        found = gather([each], [key], PYRO.join)[key]
        assert width(value.shape, each, key) == found.shape[-1] == expected
    key = EvidenceKey(frozenset("a"), ("x",))
    close(gather([each], [key], PYRO.join)[key][2, 0], value[2][:, [0, 2, 3, 4]].reshape(16))
    assert plate_sizes([each, Evidence(torch.ones(7), 0, (B,), (("z", None),))]) == {"a": 3, "b": 7}
    elsewhere = EvidenceKey(frozenset("c"), ("x",))
    assert gather([each], [elsewhere], PYRO.join) == {} and width(value.shape, each, elsewhere) == 0
    loose = Evidence(torch.ones(2), 1, (), (("x", None),))
    everything = EvidenceKey(frozenset(), ("x",))
    assert gather([loose], [everything], PYRO.join)[everything].shape == (2,)


# Programs


def chain(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        u = pyro.sample("u", dist.Normal(0.0, 1.0))
        z1 = pyro.sample("z1", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        z2 = pyro.sample("z2", dist.Normal(z1, 1.0).to_event(1))
        z3 = pyro.sample("z3", dist.Normal(z2, 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z3, 1.0).to_event(1), obs=x)
        pyro.sample("v", dist.Normal(u, 1.0))


X = torch.zeros(3, 2, dtype=torch.double)


def test_words_for_parents():
    def parents(word: str) -> dict[str, tuple[str, ...]]:
        return SelfReflective(chain, X, hidden=4, parents=word).factors.parents

    none = {"u": (), "z1": (), "z2": (), "z3": (), "v": ()}
    assert parents("none") == none
    assert parents("previous") == none | {"z1": ("u",), "z2": ("z1",), "z3": ("z2",), "v": ("z3",)}
    assert parents("all") == none | {"z1": ("u",), "z2": ("u", "z1"), "z3": ("u", "z1", "z2"), "v": (*none,)[:4]}
    assert parents("needed") == none | {"z2": ("z1",), "z3": ("z2",), "v": ("u",)}


def test_what_no_datum_depends_on_comes_last():
    guide = Faithful(chain, X, hidden=4)
    assert guide.order[:3] == ["z1", "z2", "z3"] and {*guide.order[3:]} == {"u", "v"}


def columns(x: Tensor) -> None:
    """z_n, then a global g, and one w_c for each column."""
    rows, plate = pyro.plate("data", len(x), dim=-2), pyro.plate("columns", 4, dim=-1)
    with rows:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
    g = pyro.sample("g", dist.Normal(0.0, 1.0))
    with plate:
        w = pyro.sample("w", dist.Normal(g, 1.0))
    with rows, plate:
        pyro.sample("x", dist.Normal(z + w, 1.0), obs=x)


def test_a_latent_outside_the_rows_is_one_for_all_data():
    x = torch.zeros(3, 4)
    guide = SelfReflective(columns, x, hidden=4, parents="all")
    latents = guide.layout.latents
    assert {name: latent.is_global for name, latent in latents.items()} == {"z": False, "g": True, "w": True}
    assert [latents[n].shared_plates for n in "zgw"] == [{"data"}, frozenset(), frozenset()]
    assert [plate.name for plate in latents["w"].private_plates] == ["columns"] and not latents["z"].private_plates
    assert guide.factors.parents == {"z": (), "g": (), "w": ("g",)}  # no global is given a local
    assert guide.layout.sizes == {guide.layout.key("z"): 4} and guide.layout.key("w") is None
    free = guide.factors.q_g.bias, guide.factors.q_w.last.bias
    assert [len(b) for b in free] == [2, 2 * 4]
    assert poutine.trace(guide).get_trace(x).nodes["w"]["fn"].batch_shape == (4,)


def test_copies_of_a_global_have_one_factor_where_the_guide_has_an_order_of_its_own():
    x = torch.zeros(3, 4)
    guide = BottomUp(columns, x, hidden=4, family="full")
    assert guide.layout.latents["w"].joint_over_plates and guide.layout.latents["w"].copies == (4,)
    assert guide.order == ["g", "w", "z"]  # globals first, as in the model
    assert guide.factors.plan["w"].outputs == 4 + 4 + 6  # of a Gaussian over R^4
    fn = poutine.trace(guide).get_trace(x).nodes["w"]["fn"]
    assert fn.batch_shape == (4,)


def test_a_parent_in_more_plates_is_folded_into_a_vector():
    """u_n is given z_n1, z_n2 and z_n3, and moves with the sum of the first two and twice the third."""

    def steps(x: Tensor) -> None:
        rows, times = pyro.plate("data", len(x), dim=-2), pyro.plate("times", 3, dim=-1)
        with rows, times:
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with rows:
            u = pyro.sample("u", dist.Normal(z.sum(-1, keepdim=True), 1.0))
        with rows, times:
            pyro.sample("x", dist.Normal(z + u, 1.0), obs=x)

    x = torch.zeros(4, 3)
    guide = BottomUp(steps, x, hidden=4, parents={"z": ("u",)}, depth=0)
    assert guide.factors.plan["z"].inputs == (4, 1)
    guide = SelfReflective(steps, x, hidden=4, parents={"u": ("z",)}, depth=0, base="prior")
    assert guide.factors.plan["u"].inputs == (4, 3)
    for parameter in guide.factors.q_u.parameters():
        torch.nn.init.zeros_(parameter)
    guide.factors.q_u.first[1].weight.data = torch.tensor([[1.0, 1.0, 2.0], [0.0, 0.0, 0.0]])
    nodes = poutine.trace(guide).get_trace(x).nodes
    z = nodes["z"]["value"]
    close(nodes["u"]["fn"].mean, (2 * z[:, 0] + 2 * z[:, 1] + 3 * z[:, 2])[:, None])


def test_families_by_latent():
    guide = MeanField(chain, X, hidden=4, family={"z1": "full", "u": "full", "z2": "rank-one"})
    kinds = {name: type(factor.family).__name__ for name, factor in guide.factors.plan.items()}
    assert kinds == {"u": "Diagonal", "z1": "Full", "z2": "RankOne", "z3": "Diagonal", "v": "Diagonal"}
    assert [guide.factors.plan[n].outputs for n in ("u", "z1", "z2", "z3")] == [2, 5, 6, 4]
    guide = Ladder(chain, X, hidden=4, family="full")  # a mean and a square root of any form
    assert guide.factors.plan["z2"].outputs == 2 + 4


def test_a_factor_on_an_interval():
    """z = 2 + 2 sigmoid(y) of y ~ N(0, 1): dz/dy = 1/2 at y = 0."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Uniform(torch.tensor(2.0), torch.tensor(4.0)))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    x = torch.zeros(3)
    guide = MeanField(model, x, hidden=4)
    for parameter in guide.factors.q_z.parameters():
        torch.nn.init.zeros_(parameter)
    fn = poutine.trace(guide).get_trace(x).nodes["z"]["fn"]
    close(fn.log_prob(torch.full((3,), 3.0)), [-0.5 * math.log(2 * math.pi) + math.log(2)] * 3)


def test_without_a_plate_latents_are_global_unless_they_are_amortized():
    def model(x: Tensor) -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0).expand(x.shape).to_event(1), obs=x)

    x = torch.zeros(3)
    given = {amortized: Faithful(model, x, hidden=4, amortized=amortized) for amortized in (None, False, True)}
    assert [guide.layout.latents["z"].is_global for guide in given.values()] == [True, True, False]
    assert [guide.layout.sizes for guide in given.values()][:2] == [{}, {}] and [
        *given[True].layout.sizes.values()
    ] == [3]


@pytest.mark.parametrize("make", [BottomUp, SelfReflective])
def test_a_factor_reads_the_rows_that_a_plate_has_drawn(make):
    """A linear network that gives ten times the datum as the mean, less the prior's of zero."""
    x = torch.arange(1.0, 8.0)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x), subsample_size=2) as index:
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[index])

    guide = make(model, x, hidden=4, depth=0, encoder="linear")
    network = guide.factors.q_z.first[0]
    network.weight.data, network.bias.data = torch.tensor([[10.0], [0.0]]), torch.zeros(2)
    with poutine.trace() as capture:
        guide(x)
    nodes = capture.trace.nodes
    index = nodes["data"]["value"]
    assert len(index) == 2
    close(nodes["z"]["fn"].mean, 10 * x[index])


class Standard(TopDownGuide):
    """Every factor is N(0, 1), with no dim of any plate."""

    def __init__(self, model: Callable, *args: Tensor) -> None:
        super().__init__(model, *args)
        self.factors = Rows(self.layout)

    def get_posterior(self, name: str, prior: TorchDistributionMixin) -> TorchDistributionMixin:
        return dist.Normal(torch.zeros(()), 1.0)


def test_a_factor_without_dims_is_drawn_once_for_each_datum():
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    x = torch.zeros(3)
    assert len({*Standard(model, x)(x)["z"].tolist()}) == 3


# Masks


def test_a_guide_that_runs_its_model_has_its_masks():
    kept = torch.tensor([True, False, True])

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([3]).mask(kept))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    x = torch.zeros(3)
    fn = poutine.trace(MeanField(model, x, hidden=4)).get_trace(x).nodes["z"]["fn"]
    assert ((fn.log_prob(torch.ones(3)) != 0) == kept).all()


def test_masks_of_a_prior_are_those_of_its_factor():
    entries = torch.tensor([[True, False, True], [True, True, False]])
    rows = torch.tensor([True, False])
    base = dist.Normal(torch.zeros(2, 3), 1.0)
    exp = [dist.transforms.ExpTransform()]
    z = torch.full((2, 3), 2.0)
    each = dist.LogNormal(0.0, 1.0).log_prob(torch.tensor(2.0)).item()
    own = dist.Normal(0.0, 1.0).log_prob(torch.tensor(math.log(2.0))).item()
    q = dist.TransformedDistribution(base.to_event(1), exp)
    # rows masked outside, entries within: of what is pushed, or of the base, whose volume then counts all the same
    outer = dist.TransformedDistribution(base, exp).mask(entries).to_event(1).mask(rows)
    close(masked_alike(q, outer).log_prob(z), [2 * each, 0.0])
    inner = dist.TransformedDistribution(base.mask(entries).to_event(1), exp).mask(rows)
    close(masked_alike(q, inner).log_prob(z), [2 * own - 3 * math.log(2.0), 0.0])
    close(masked_alike(q, outer).log_prob(z), outer.log_prob(z))
    close(masked_alike(q, inner).log_prob(z), inner.log_prob(z))
    assert masked_alike(q, dist.Normal(0.0, 1.0)) is q
    coupled = dist.MultivariateNormal(torch.zeros(2, 3), torch.eye(3))
    assert masked_alike(coupled, base.mask(entries).to_event(1)) is None
    close(masked_alike(coupled, base.to_event(1).mask(rows)).log_prob(z)[1:], [0.0])


# Encoders


def test_features_of_encoders_by_hand():
    """One linear map each, and silu; "shared" has two of them before its block."""
    x = torch.tensor([[1.0, -2.0]])
    separate = Separate(["a", "b"], 2, 1, 0)
    for net, weight in zip(separate.nets, (2.0, -1.0), strict=True):
        net[0].first[0].weight.data, net[0].first[0].bias.data = torch.tensor([[weight, 0.5]]), torch.zeros(1)
    found = separate(x)
    close(found["a"], [[1 / (1 + math.exp(-1.0))]])  # silu(2 - 1)
    close(found["b"], [[-2 / (1 + math.exp(2.0))]])  # silu(-1 - 1)
    shared = encoder("shared", ["a", "b"], 2, 1, 0, None, "Test")
    first, _, inner, _ = shared.trunk
    first.weight.data, first.bias.data = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]]), torch.zeros(4)
    inner.first[0].weight.data = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 1.0, 1.0]])
    inner.first[0].bias.data = torch.zeros(2)

    def silu(v: float) -> float:
        return v / (1 + math.exp(-v))

    expected = [[silu(silu(1.0)), silu(silu(-2.0) + silu(-1.0))]]
    close(shared(x)["a"], expected)
    close(shared(x)["b"], expected)
    assert (shared.widths, separate.widths) == ({"a": 2, "b": 2}, {"a": 1, "b": 1})


def test_each_latent_reads_features_of_its_own():
    guide = Ladder(chain_of_two, X, hidden=4, parents="none")
    with torch.no_grad():
        encoded = guide.factors.encode({key: torch.randn(3, 2) for key in guide.layout.sizes})
        before = {n: guide.factors.raw(n, encoded, {}) for n in ("z1", "z2")}
        encoded["z1"] = encoded["z1"] + 1
        after = {n: guide.factors.raw(n, encoded, {}) for n in ("z1", "z2")}
    assert torch.equal(before["z2"], after["z2"]) and not torch.allclose(before["z1"], after["z1"])


def chain_of_two(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z1 = pyro.sample("z1", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        z2 = pyro.sample("z2", dist.Normal(z1, 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z2, 1.0).to_event(1), obs=x)
