"""Verdicts where units saturate: data, covariates and latents in raw units, whatever the seed of the weights."""

from collections.abc import Callable, Iterator

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from ppl_models.factorization import compare, factorization
from tests.helpers.cases import few

UNITS = {"iq": (90, 121), "years": (1900, 2021), "counts": (1000, 9000)}
ACTIVATIONS = {
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "relu": torch.relu,
    "softmax": lambda u: u.softmax(-1),
}


class Units(nn.Module):
    """A number made of some numbers by layers of four units."""

    def __init__(self, inputs: int, activation: str, depth: int = 1) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4 if k else inputs, 4) for k in range(depth))
        self.last, self.activation = nn.Linear(4, 1), ACTIVATIONS[activation]

    def forward(self, *inputs: Tensor) -> Tensor:
        u = torch.stack(inputs, -1)
        for layer in self.layers:
            u = self.activation(layer(u))
        return self.last(u)[..., 0]


def raw(units: str) -> Tensor:
    return torch.randint(*UNITS[units], (3,)).float()


def drawn(**sites: Callable) -> Callable:
    """A guide of scalars in the plate of the data, each around what is made of the arguments and the others."""

    def guide(*data: Tensor) -> None:
        values: dict[str, Tensor] = {}
        with pyro.plate("data", len(data[0])):
            for name, loc in sites.items():
                values[name] = pyro.sample(name, dist.Normal(loc(*data, *values.values()), 1.0))

    return guide


def pairs(activation: str, units: str, depth: int) -> Iterator[tuple[Callable, Callable, tuple, bool]]:
    """Models and guides with their arguments, and whether the guide is faithful."""

    def net(inputs: int) -> Units:
        return Units(inputs, activation, depth)

    def scores(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(100 + 15 * z, 10.0), obs=x)

    encoder = net(1)
    yield scores, drawn(z=encoder), (raw(units),), True

    prior, first, second = net(1), net(2), net(1)

    def explained(x: Tensor, c: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(prior(c), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    args = torch.randn(3), raw(units)
    yield explained, drawn(z=first), args, True
    yield explained, drawn(z=lambda x, c: second(x)), args, False

    mean, of_u, of_v, with_u = net(3), net(2), net(2), net(3)

    def crossed(y: Tensor, c: Tensor) -> None:
        with pyro.plate("data", len(y)):
            u, v = pyro.sample("u", dist.Normal(0.0, 1.0)), pyro.sample("v", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Normal(mean(u, v, c), 1.0), obs=y)

    yield crossed, drawn(u=of_u, v=lambda y, c, u: of_v(y, c)), args, False
    yield crossed, drawn(u=of_u, v=with_u), args, True


SEEDS = range(20)
CASES = [(a, u, depth, seed) for seed in SEEDS for depth in (1, 2) for u in UNITS for a in ACTIVATIONS]
QUICK = {("tanh", "iq", 1, 0), ("sigmoid", "years", 1, 0), ("relu", "counts", 2, 3), ("softmax", "counts", 2, 1)}


@pytest.mark.parametrize(("activation", "units", "depth", "seed"), few(CASES, lambda *case: case in QUICK))
def test_verdicts_do_not_depend_on_the_seed_of_the_weights(activation, units, depth, seed):
    torch.manual_seed(seed)
    for model, guide, args, faithful in pairs(activation, units, depth):
        report = compare(model, guide, *args)
        assert report.faithful is faithful, str(report)
        for row in report.rows:  # no row contradicts itself, nor another
            assert not set(row.have) & set(row.missing) and not set(row.need) & set(row.superfluous), str(report)
        assert report.gap is None or report.gap.forward < 1e-9 or not report.faithful


def collider(bend: Callable) -> tuple[Callable, Callable, Tensor]:
    """x around a sum of b and what is made of a, with a mean-field guide."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            a, b = pyro.sample("a", dist.Normal(0.0, 1.0)), pyro.sample("b", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(b + bend(a), 1.0), obs=x)

    return model, drawn(a=lambda x: x, b=lambda x, a: x), torch.randn(3)


def test_what_is_inert_is_judged_and_what_is_flat_wherever_one_looks_is_not():
    assert compare(*collider(lambda a: 0 * a)).faithful is True
    report = compare(*collider(lambda a: torch.sigmoid(a - 1e6)))
    assert report.faithful is None
    assert any("computes 'x' from 'a'" in reason and "saturate" in reason for reason in report.reasons)
    assert compare(*collider(lambda a: torch.tanh(1e5 * a))).missing == {"b": ("a",)}


def test_weights_as_they_are_are_not_shrunken():
    """An edge that these weights do not show is none, when one asks for what training has left."""
    torch.manual_seed(0)
    model, guide, args, _ = next(pairs("tanh", "years", 1))
    before = torch.get_rng_state()
    assert compare(model, guide, *args).missing == {}
    assert compare(model, guide, *args, jitter=False).reasons == ()
    assert torch.equal(torch.get_rng_state(), before)


def test_dead_units_of_a_group_effect_in_a_large_plate():
    """The copies that show which groups meet are found from where the likelihood is not flat."""
    group, c = torch.arange(12) % 4, torch.linspace(1900, 2020, 12)

    def model(x: Tensor, c: Tensor) -> None:
        with pyro.plate("groups", 4):
            a = pyro.sample("a", dist.Normal(0.0, 1.0))
        slope = pyro.sample("slope", dist.Normal(1.0, 0.1))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(torch.tanh(a[group] + slope * c), 1.0), obs=x)

    def guide(x: Tensor, c: Tensor) -> None:
        slope = pyro.sample("slope", dist.Normal((x * c).mean(), 1.0))
        sums = torch.zeros(4).to(x).index_add(0, group, x * c)
        with pyro.plate("groups", 4):
            pyro.sample("a", dist.Normal(sums + slope, 1.0))

    report = compare(model, guide, torch.randn(12), c)
    assert report.faithful is not False and "a" in report.model.parents["x"], str(report)


def test_a_guide_alone_reads_what_saturates_its_units():
    torch.manual_seed(0)
    reading = Units(1, "tanh")
    assert str(factorization(drawn(z=reading), raw("counts"))) == "q(z | data)"


def test_what_provenance_cannot_follow_is_looked_at_again():
    torch.manual_seed(0)
    reading = Units(1, "tanh")
    model, _, args, _ = next(pairs("tanh", "counts", 1))
    guide = drawn(z=lambda x: torch.vmap(lambda row: reading(row[None])[0])(x))
    assert compare(model, guide, *args).faithful is True
