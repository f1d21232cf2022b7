"""Programs by a hostile reviewer: `compare` says nothing rather than something wrong, and leaves all as it was."""

import collections
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pyro.distributions.transforms as T
import pytest
import torch
from pyro import poutine
from pyro.infer import autoguide
from pyro.nn import PyroModule
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import pack_padded_sequence

from ppl_models.factorization import compare, factorization
from ppl_models.factorization.report.report import Report
from tests.helpers.pairs import Head, normal, real


def gaussian(loc: Any, scale: Any = 1.0):
    return dist.Normal(loc, scale).to_event(1)


def generating(decoder: Callable, family: Callable = gaussian) -> Callable:
    """z -> x in a plate, by a decoder of all rows."""

    def model(x, *_):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", normal())
            pyro.sample("x", family(decoder(z)), obs=x)

    return model


def inferring(encoder: Callable, family: Callable = gaussian) -> Callable:
    """x -> z in the same plate, by an encoder of all rows."""

    def guide(x, *_):
        with pyro.plate("data", len(x)):
            pyro.sample("z", family(encoder(x)))

    return guide


def next_row(x):
    """The data, each at the place of another: the guide that reads them is wrong."""
    return x.roll(1, 0)


def same(x):
    return x


def mean_field(names: str):
    """A guide of scalars, each of which reads the data of its row alone."""

    def guide(x):
        with pyro.plate("data", len(x)):
            for name in names.split():
                pyro.sample(name, dist.Normal(0.5 * x, 1.0))

    return guide


def silent(report: Report, *words: str) -> None:
    """The report certifies nothing, and one of its reasons says so in these words."""
    assert (report.faithful, report.minimal, report.perfect) == (None, None, None), str(report)
    assert any(all(word in reason for word in words) for reason in report.reasons), report.reasons
    assert all(reason in str(report) for reason in report.reasons)


def sure(report: Report) -> None:
    assert (report.faithful, report.minimal, report.perfect) == (True, True, True), str(report)
    assert report.reasons == ()


def wrong(report: Report, **missing: tuple[str, ...]) -> None:
    assert report.faithful is False and report.reasons == (), str(report)
    assert report.missing == missing, str(report)


# Data that hide: what a program observes is asked by other data, and not all data can be other


def one_hot(z):
    return dist.OneHotCategorical(logits=z, validate_args=True)


def simplex(z):
    return dist.Dirichlet(z.exp(), validate_args=True)


@pytest.mark.parametrize("rows", [same, next_row])
@pytest.mark.parametrize("how", ["assert", "one-hot", "simplex"])
def test_a_model_that_takes_no_other_data(how, rows):
    x = torch.randn(3, 3).softmax(-1) if how == "simplex" else torch.eye(3)
    family = {"assert": gaussian, "one-hot": one_hot, "simplex": simplex}[how]
    decoder = nn.Linear(2, 3)
    generate, encoder = generating(decoder, family), nn.Linear(1, 2)

    def model(x):
        if how == "assert":
            assert x.sum(-1).sub(1).abs().max() < 1e-4
        generate(x)

    guide = inferring(lambda x: encoder(rows(x[:, :1])))
    silent(compare(model, guide, x), "the model takes no other values for 'x'")


def test_one_hot_data_that_are_not_validated_are_judged():
    encoder = nn.Linear(3, 2)
    model = generating(nn.Linear(2, 3), lambda z: dist.OneHotCategorical(logits=z))
    sure(compare(model, inferring(encoder), torch.eye(3)))
    wrong(compare(model, inferring(lambda x: encoder(next_row(x))), torch.eye(3)), z=("x",))


@dataclass
class Batch:
    x: torch.Tensor


HOLDERS = {
    "tensor": (same, same),
    "numpy": (torch.Tensor.numpy, torch.as_tensor),
    "dataclass": (Batch, lambda held: held.x),
    "list": (torch.Tensor.tolist, torch.tensor),
}


@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.parametrize("rows", [same, next_row])
def test_data_in_other_things_than_tensors(holder, rows):
    put, get = HOLDERS[holder]
    generate, encoder = generating(nn.Linear(2, 3)), nn.Linear(3, 2)
    infer = inferring(lambda x: encoder(rows(x)))
    report = compare(lambda d: generate(get(d)), lambda d: infer(get(d)), put(real()))
    if holder in ("dataclass", "list"):
        silent(report, "'x'", "inside of an object or a list", "pass tensors")
    elif rows is same:
        sure(report)
    else:
        wrong(report, z=("x",))


@pytest.mark.parametrize("dtype", [torch.long, torch.bool, torch.float])
def test_discrete_data_that_are_all_the_same(dtype):
    def to_float(x):
        return x.to(torch.get_default_dtype())

    generate = generating(nn.Linear(2, 3), lambda z: dist.Bernoulli(logits=z).to_event(1))
    x = torch.ones(3, 3, dtype=dtype)
    encoder = nn.Linear(3, 2)
    right = inferring(lambda x: encoder(to_float(x)))
    bad = inferring(lambda x: encoder(to_float(next_row(x))))
    sure(compare(lambda x: generate(to_float(x)), right, x))
    wrong(compare(lambda x: generate(to_float(x)), bad, x), z=("x",))


# What was not looked at: other copies, rare values


def shifted():
    """Each datum has the latent of the row before behind it, too."""
    linear = nn.Linear(2, 3)
    before = nn.functional.pad
    return generating(lambda z: linear(z) + linear(before(z, (0, 0, 1, 0))[:-1])), inferring(nn.Linear(3, 2))


def test_a_leak_between_copies_that_were_looked_at():
    report = compare(*shifted(), real(3))
    assert report.faithful is False and "x[data']" in report.missing["z"]


def test_a_leak_between_copies_that_were_not_looked_at():
    silent(compare(*shifted(), real(10)), "'x'", "'z'", "not looked at", "pass three rows")


@pytest.mark.parametrize("rows", [3, 10])
def test_a_leak_into_the_last_row_alone(rows):
    decoder = nn.Linear(2, 3)

    def leaky(z):
        loc = decoder(z)
        return torch.cat([loc[:-1], loc[-1:] + loc[-2:-1]])

    report = compare(generating(leaky), inferring(nn.Linear(3, 2)), real(rows))
    assert report.faithful is (False if rows == 3 else None), str(report)


@pytest.mark.parametrize("rows", [3, 10])
def test_many_rows_without_a_leak_are_judged(rows):
    sure(compare(generating(nn.Linear(2, 3)), inferring(nn.Linear(3, 2)), real(rows)))


def mixed(latent: Callable, wide: Callable, logits: Callable = lambda x: x) -> Report:
    """Of data whose noise is wide for some values of k alone, with a mean-field guide."""

    def model(x):
        with pyro.plate("data", len(x)):
            k, z = pyro.sample("k", latent()), pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, torch.where(wide(k), 10.0, 1.0)), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("k", type(latent())(logits(x))), pyro.sample("z", dist.Normal(0.5 * x, 1.0))

    return compare(model, guide, torch.randn(3))


@pytest.mark.parametrize("probability", [0.3, 0.001, 1e-12])
def test_a_rare_outlier_counts(probability):
    wrong(mixed(lambda: dist.Bernoulli(probability), lambda k: k > 0, torch.sigmoid), z=("k",))


@pytest.mark.parametrize("family", [dist.Poisson, dist.Geometric])
def test_a_rare_count_counts(family):
    rate = 0.001 if family is dist.Poisson else 0.999
    wrong(mixed(lambda: family(rate), lambda k: k > 0, torch.sigmoid), z=("k",))


TRIALS, SUCCESSES = torch.tensor([5.0, 10.0, 3.0]), torch.tensor([2.0, 7.0, 1.0])


@pytest.mark.parametrize("family", ["binomial", "beta-binomial"])
def test_binomials_of_different_numbers_of_trials(family):
    def model(n, y):
        with pyro.plate("data", len(y)):
            z, k = pyro.sample("z", dist.Normal(0.0, 1.0)), pyro.sample("k", dist.Binomial(n, torch.tensor(1e-3)))
            odds = z + k
            found = dist.Binomial(n, logits=odds) if family == "binomial" else dist.BetaBinomial(odds.exp(), 1.0, n)
            pyro.sample("y", found, obs=y)

    def guide(n, y, given):
        with pyro.plate("data", len(y)):
            k = pyro.sample("k", dist.Binomial(n, torch.sigmoid(y - n)))
            pyro.sample("z", dist.Normal(y - n + (k if given else 0), 1.0))

    sure(compare(model, partial(guide, given=True), TRIALS, SUCCESSES))
    wrong(compare(model, partial(guide, given=False), TRIALS, SUCCESSES), z=("k",))


def softmax(states: int, x):
    return (x[:, None] * torch.arange(states)).softmax(-1)


@pytest.mark.parametrize(
    ("weights", "state"),
    [
        ((1.0, 0.001, 0.001), 1),
        ((1.0, 0.001, 0.001), 2),
        ((1.0,) * 10, 5),
        ((1.0,) * 30, 15),
    ],
)
def test_a_rare_state_counts(weights, state):
    weights = torch.tensor(weights)
    wrong(mixed(lambda: dist.Categorical(weights), lambda k: k == state, partial(softmax, len(weights))), z=("k",))


@pytest.mark.parametrize("state", [1, 7])
def test_a_guide_that_reads_one_of_many_labels(state):
    decoder, encoder = nn.Linear(2, 3), nn.Linear(4, 2)

    def model(x, y):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", normal())
            pyro.sample("y", dist.Categorical(logits=z[:, :1] * torch.arange(10)), obs=y)
            pyro.sample("x", gaussian(decoder(z).tanh()), obs=x)

    def guide(x, y):
        with pyro.plate("data", len(x)):
            pyro.sample("z", gaussian(encoder(torch.cat([x, (y == state)[:, None].to(x.dtype)], -1))))

    sure(compare(model, guide, real(), torch.tensor([1, 2, 1])))


@pytest.mark.parametrize("above", [1.0, 3.0])
def test_rare_values_of_a_continuous_site_count(above):
    def model(x):
        with pyro.plate("data", len(x)):
            k, z = pyro.sample("k", dist.Normal(0.0, 1.0)), pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, torch.where(k > above, 10.0, 1.0)), obs=x)

    report = compare(model, mean_field("k z"), torch.randn(3))
    assert report.faithful is not True, str(report)


# Elements: one datum, in which faults between copies cannot show


class FullHead(nn.Module):
    """A Gaussian of full covariance."""

    def __init__(self, inputs: int, out: int = 2) -> None:
        super().__init__()
        self.loc, self.below = nn.Linear(inputs, out), nn.Linear(inputs, out * out)

    def forward(self, x):
        below = self.below(x).unflatten(-1, (self.loc.out_features,) * 2).tril(-1)
        return dist.MultivariateNormal(self.loc(x), scale_tril=below + torch.eye(self.loc.out_features))


def globals_last():
    prior, decoder, head, late = nn.Linear(2, 2), nn.Linear(2, 3), FullHead(3), FullHead(2)

    def model(x):
        theta = pyro.sample("theta", normal())
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", gaussian(prior(theta).expand(len(x), 2)))
            pyro.sample("x", gaussian(decoder(z)), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", head(x))
        pyro.sample("theta", late(z.tanh().sum(0)))

    return model, guide


def centred():
    decoder = nn.Linear(2, 3)
    return generating(lambda z: decoder(z - z.mean(0))), inferring(FullHead(3), same)


def rows_exchanged():
    head = FullHead(3)
    return generating(nn.Linear(2, 3)), inferring(lambda x: head(torch.cat([x[:1], x[1:].flip(0)])), same)


@pytest.mark.parametrize("build", [globals_last, centred, rows_exchanged])
def test_elements_do_not_overrule_sites(build):
    model, guide = build()
    x = real()
    assert compare(model, guide, x).faithful is False
    silent(compare(model, guide, x, level="element"), "by site the guide is unfaithful", "see level 'site'")


def test_entries_of_a_simplex_cannot_change_alone():
    full = FullHead(3)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Dirichlet(torch.ones(3)))
            pyro.sample("x", gaussian(z.log()), obs=x)

    def family(x):
        return dist.TransformedDistribution(full(x), [torch.distributions.transforms.StickBreakingTransform()])

    guide = inferring(same, family)
    silent(compare(model, guide, real(), level="element"), "the entries of 'z' are bound to each other")
    sure(compare(model, guide, real()))


# Arguments and plates


@pytest.mark.parametrize("rows", [same, next_row])
def test_a_guide_that_draws_all_rows_as_one_event(rows):
    encoder = nn.Linear(3, 2)

    def guide(x):
        pyro.sample("z", dist.Normal(encoder(rows(x)), 1.0).to_event(2))

    report = compare(generating(nn.Linear(2, 3)), guide, real())
    silent(report, "'z'", "one event over the plate 'data'", "draw it inside that plate")


def with_covariates(read: Callable) -> tuple[Callable, Callable]:
    """A prior that reads covariates c and m; a guide that reads x and what `read` makes of them."""
    prior, decoder, encoder = nn.Linear(4, 2), nn.Linear(2, 3), nn.Linear(7, 2)

    def model(x, c=None, m=None):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", gaussian(prior(torch.cat([c, m], -1)).tanh()))
            pyro.sample("x", gaussian(decoder(z).tanh()), obs=x)

    def guide(x, c=None, m=None):
        with pyro.plate("data", len(x)):
            pyro.sample("z", gaussian(encoder(torch.cat([x, *read(c, m)], -1))))

    return model, guide


def test_covariates():
    given = real(3, 3), real(3, 2), real(3, 2)
    sure(compare(*with_covariates(lambda c, m: (c, m)), *given))
    report = compare(*with_covariates(lambda c, m: (next_row(c), m)), *given)
    wrong(report, z=("c",))
    assert report.superfluous == {"z": ("c[data']",)}


@pytest.mark.parametrize("order", ["cm", "mc"])
def test_keyword_arguments_are_named_whatever_their_order(order):
    model, guide = with_covariates(lambda c, m: (c, c))
    wrong(compare(model, guide, real(), **{name: real(3, 2) for name in order}), z=("m",))


def test_a_covariate_of_a_linear_gaussian_model():
    def model(x, c):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(c, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    local = mean_field("z")
    wrong(compare(model, lambda x, c: local(x), torch.randn(3), torch.randn(3)), z=("c",))
    sure(compare(model, lambda x, c: local(x + c), torch.randn(3), torch.randn(3)))


@pytest.mark.parametrize("rows", [same, next_row])
def test_a_subsample_passed_as_an_argument(rows):
    decoder, encoder = nn.Linear(2, 3), nn.Linear(3, 2)

    def model(x, chosen):
        with pyro.plate("data", len(x), subsample=chosen):
            z = pyro.sample("z", normal())
            pyro.sample("x", gaussian(decoder(z)), obs=x[chosen])

    def guide(x, chosen):
        with pyro.plate("data", len(x), subsample=chosen):
            pyro.sample("z", gaussian(encoder(rows(x[chosen]))))

    report = compare(model, guide, real(6), torch.tensor([0, 3, 5]))
    sure(report) if rows is same else wrong(report, z=("x", "chosen"))


def test_data_observed_twice_are_not_superfluous():
    first, second, encoder = nn.Linear(2, 3), nn.Linear(2, 3), nn.Linear(3, 2)

    def model(x):
        with pyro.plate("data", len(x)):
            z, y = pyro.sample("z", normal()), pyro.sample("y", normal())
            pyro.sample("x", gaussian(first(z)), obs=x)
            pyro.sample("again", gaussian(second(y)), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", gaussian(encoder(x))), pyro.sample("y", gaussian(encoder(x)))

    sure(compare(model, guide, real()))


@pytest.mark.parametrize("rows", [same, next_row])
def test_rows_of_which_some_are_closed_over(rows):
    known, encoder = real(2), nn.Linear(3, 2)
    generate, infer = generating(nn.Linear(2, 3)), inferring(lambda x: encoder(rows(x)))
    report = compare(lambda x: generate(torch.cat([x, known])), lambda x: infer(torch.cat([x, known])), real(2))
    assert report.faithful is (rows is same), str(report)


def test_data_in_another_order_than_that_of_the_argument():
    order = torch.tensor([2, 0, 1])
    generate, infer = generating(nn.Linear(2, 3)), inferring(nn.Linear(3, 2))
    sure(compare(lambda x: generate(x[order]), lambda x: infer(x[order]), real()))
    wrong(compare(lambda x: generate(x[order]), infer, real()), z=("x",))


def sequences(packed: bool, in_order: bool = False):
    """Sequences of unequal lengths, their padding masked; a guide that is told the lengths if `packed`."""
    recurrent, head, decoder = nn.GRU(3, 4, batch_first=True), nn.Linear(4, 2), nn.Linear(2, 3)

    def model(x, lengths):
        with pyro.plate("data", len(x)):
            loc = decoder(pyro.sample("z", normal())).tanh()[:, None].expand_as(x)
            real_steps = torch.arange(x.shape[1]) < lengths[:, None]
            pyro.sample("x", dist.Normal(loc, 1.0).mask(real_steps[..., None]).to_event(2), obs=x)

    def guide(x, lengths):
        steps = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=in_order) if packed else x
        with pyro.plate("data", len(x)):
            pyro.sample("z", gaussian(head(recurrent(steps)[1][0])))

    return model, guide, torch.randn(3, 4, 3), torch.tensor([4, 3, 2])


def test_packed_sequences():
    sure(compare(*sequences(packed=True)))
    wrong(compare(*sequences(packed=False)), z=("lengths",))
    silent(compare(*sequences(packed=True, in_order=True)), "the guide fails when 'lengths' changes")


# Densities


@pytest.mark.parametrize("log_density", [lambda a, b: -((a * b) ** 2), lambda a, b: 0.0])
def test_the_density_of_a_point_mass_couples(log_density):
    def model(x, y):
        with pyro.plate("data", len(x)):
            a, b = pyro.sample("a", dist.Normal(0.0, 1.0)), pyro.sample("b", dist.Normal(0.0, 1.0))
            pyro.sample("c", dist.Delta(a + b, log_density=log_density(a, b)))
            pyro.sample("x", dist.Normal(a, 1.0), obs=x), pyro.sample("y", dist.Normal(b, 1.0), obs=y)

    def guide(x, y):
        with pyro.plate("data", len(x)):
            pyro.sample("a", dist.Normal(x, 1.0)), pyro.sample("b", dist.Normal(y, 1.0))

    report = compare(model, guide, torch.randn(3), torch.randn(3))
    if log_density(1.0, 1.0):
        wrong(report, a=("y",), b=("a",))
    else:
        sure(report)


def chained(x):
    with pyro.plate("data", len(x)):
        z1 = pyro.sample("z1", dist.Normal(0.0, 1.0))
        z2 = pyro.sample("z2", dist.Normal(z1.tanh(), 1.0))
        pyro.sample("x", dist.Normal(z2.tanh(), 1.0), obs=x)


def backward(x):
    with pyro.plate("data", len(x)):
        z2 = pyro.sample("z2", dist.Normal(0.5 * x, 1.0))
        pyro.sample("z1", dist.Normal(0.5 * z2, 1.0))


@pytest.mark.parametrize("scale", [1.0, 1e-9])
def test_a_scale_does_not_change_the_verdict(scale):
    scaled = partial(poutine.scale, scale=scale)
    wrong(compare(scaled(chained), mean_field("z1 z2"), torch.randn(3)), z2=("z1",))
    sure(compare(scaled(chained), scaled(backward), torch.randn(3)))


def test_condition_makes_data():
    x = torch.randn(3)

    def unconditioned():
        with pyro.plate("data", 3):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z.tanh(), 1.0))

    local = mean_field("z")
    report = compare(pyro.condition(unconditioned, data={"x": x}), lambda: local(x))
    sure(report)
    assert any("x: no data that are passed as arguments" in note for note in report.notes)


def test_a_guide_that_draws_what_the_model_observes():
    def guide(x):
        with pyro.plate("data", len(x)):
            y = pyro.sample("x", gaussian(x))
            pyro.sample("z", gaussian(y[:, :2]))

    with pytest.raises(ValueError, match="the guide draws 'x', which the model observes"):
        compare(generating(nn.Linear(2, 3)), guide, real())


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("guide", ["a", "a b"])
def test_a_site_that_hangs_on_noise(guide, there):
    def model(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(0.0, 1.0))
            b = pyro.sample("b", dist.Normal(0.0, 1.0)) if bool(torch.rand(()) < 0.5) is there else 0.0
            pyro.sample("x", dist.Normal(a + b, 1.0), obs=x)

    try:
        report = compare(model, mean_field(guide), torch.randn(3))
    except ValueError as error:
        assert "'b'" in str(error)
    else:
        silent(report, "'x'", "random numbers drawn outside of sample statements")


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("where", ["model", "guide"])
def test_noise_outside_of_sample_statements(where, own):
    generator, decoder, encoder = torch.Generator().manual_seed(1) if own else None, nn.Linear(2, 3), nn.Linear(3, 2)

    def noisy(x):
        return x + torch.randn(x.shape, generator=generator)

    put = {where: noisy}
    model = generating(lambda z: put.get("model", same)(decoder(z)))
    guide = inferring(lambda x: encoder(put.get("guide", same)(x)))
    silent(compare(model, guide, real()), where, "random numbers drawn outside of sample statements")


# Nothing of the user's has changed: networks, wherever a program has them from


def net() -> nn.Module:
    """A decoder with statistics of its own."""
    return nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))


@contextmanager
def left_alone(*modules: nn.Module) -> Iterator[None]:
    """All tensors, modes and types of these modules afterwards are those before."""

    def state():
        kept = [{k: (id(v), v.dtype) for k, v in m.state_dict(keep_vars=True).items()} for m in modules]
        return kept, [m.training for module in modules for m in module.modules()]

    before, values = state(), [{k: v.clone() for k, v in m.state_dict().items()} for m in modules]
    yield
    assert state() == before
    for module, old in zip(modules, values, strict=True):
        for name, value in module.state_dict().items():
            assert torch.equal(value, old[name]), name


NET = net()
NETS = types.ModuleType("nets")
NETS.decoder = net()


class NamesGlobal(PyroModule):
    def forward(self, x, *_):
        generating(NET)(x)


class NamesGlobalItself(PyroModule):
    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", normal())
            pyro.sample("x", gaussian(NET(z)), obs=x)


def from_python_module(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", normal())
        pyro.sample("x", gaussian(NETS.decoder(z)), obs=x)


class Holder:
    decoder = net()

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", normal())
            pyro.sample("x", gaussian(self.decoder(z)), obs=x)


def takes_decoder(x, decoder):
    generating(decoder)(x)


def scripted():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        decoder = torch.jit.script(net())
    return generating(decoder), (), decoder


REACHED = {
    "an argument": lambda: (takes_decoder, (module := net(),), module),
    "a global": lambda: (NamesGlobalItself(), (), NET),
    "a global, by a call": lambda: (NamesGlobal(), (), NET),
    "a Python module": lambda: (from_python_module, (), NETS.decoder),
    "a class attribute": lambda: (Holder().model, (), Holder.decoder),
    "a script": scripted,
}


@pytest.mark.parametrize("where", REACHED)
def test_a_network_is_left_alone(where):
    model, more, decoder = REACHED[where]()
    encoder = nn.Linear(3, 2)
    with left_alone(decoder, encoder):
        report = compare(model, inferring(encoder), real(), *more)
    sure(report)
    assert any("BatchNorm1d is in training mode" in note for note in report.notes)


@pytest.mark.parametrize("normed", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_a_parametrized_layer_is_left_alone_and_trains(normed):
    encoder = normed(nn.Linear(3, 2))
    with left_alone(encoder):
        sure(compare(generating(nn.Linear(2, 3)), inferring(encoder), real()))
    encoder(real()).sum().backward()
    assert all(p.grad is not None for p in encoder.parameters())


def test_a_lazy_module_is_refused_and_works_afterwards():
    lazy, x = nn.LazyLinear(2), real()
    model, guide = generating(nn.Linear(2, 3)), inferring(lazy)
    with pytest.raises(ValueError, match="LazyLinear.*call the program once"):
        compare(model, guide, x)
    assert type(lazy) is nn.LazyLinear and lazy.has_uninitialized_params()
    assert lazy(x).shape == (3, 2) and type(lazy) is nn.Linear
    with left_alone(lazy):
        sure(compare(model, guide, x))


# Nothing of the user's has changed: plain Python


class Counting:
    """A plain program that counts its calls."""

    def __init__(self) -> None:
        self.calls, self.log, self.decoder = 0, {"calls": []}, nn.Linear(2, 3)

    def __call__(self, x):
        self.calls += 1
        self.log["calls"].append(len(x))
        generating(self.decoder)(x)


class CountingModule(nn.Module):
    """A module that counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.log, self.list, self.encoder = 0, {"calls": []}, [], nn.Linear(3, 2)

    def forward(self, x):
        self.calls += 1
        self.log["calls"].append(len(x))
        self.list.append(len(x))
        inferring(self.encoder)(x)


def test_counters_of_programs():
    model, guide = Counting(), CountingModule()
    sure(compare(model, guide, real()))
    assert (model.calls, model.log, guide.calls, guide.log, guide.list) == (0, {"calls": []}, 0, {"calls": []}, [])
    model(real()), guide(real())
    assert (model.calls, guide.calls, model.log) == (1, 1, {"calls": [3]})


def test_lists_and_deques_closed_over():
    history, recent, seen = [7], collections.deque([7], maxlen=2), {"last": 7}
    generate = generating(nn.Linear(2, 3))

    def model(x):
        history.append(len(x))
        recent.append(len(x))
        seen["last"] = len(x)
        generate(x)

    sure(compare(model, inferring(nn.Linear(3, 2)), real()))
    assert (history, recent, seen) == ([7], collections.deque([7], maxlen=2), {"last": 7})
    assert recent.maxlen == 2


def test_generators_of_the_users():
    generator, rng = torch.Generator().manual_seed(3), np.random.default_rng(3)
    encoder = nn.Linear(3, 2)

    def noisy(x):
        return encoder(x + 0 * torch.randn(x.shape, generator=generator) + 0 * rng.random())

    before = generator.get_state(), rng.bit_generator.state
    sure(compare(generating(nn.Linear(2, 3)), inferring(noisy), real()))
    assert torch.equal(generator.get_state(), before[0]) and rng.bit_generator.state == before[1]


# Gradients and autoguides


def test_gradients_inside_of_programs():
    decoder, energy, encoder = nn.Linear(2, 3), nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1)), Head(3)

    def one_step(x):
        start = torch.zeros(len(x), 2, requires_grad=True)
        loss = (decoder(start).tanh() - x).square().sum()
        return start - 0.1 * torch.autograd.grad(loss, start, create_graph=True)[0]

    def force(z):
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            return torch.autograd.grad(energy(z).sum(), z)[0][:, [0, 1, 0]]

    with left_alone(decoder, energy, encoder):
        sure(compare(generating(lambda z: decoder(z).tanh()), inferring(one_step), real()))
        sure(compare(generating(force), inferring(encoder, same), real()))
    assert all(p.grad is None for m in (decoder, energy, encoder) for p in m.parameters())


def three(x):
    a = pyro.sample("a", dist.Normal(0.0, 1.0))
    b = pyro.sample("b", dist.Normal(a.tanh(), 0.5))
    c = pyro.sample("c", dist.LogNormal(b.tanh(), 0.5))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(b, c), obs=x)


def planar(model):
    return autoguide.AutoNormalizingFlow(model, partial(T.iterated, 2, T.planar))


def seen(guide: nn.Module) -> dict[str, Any]:
    """What a guide has, by name: modules and tables by what is in them."""
    return {k: sorted(map(str, v)) if isinstance(v, dict | set) else v for k, v in vars(guide).items()}


AUTOGUIDES = {
    "AutoNormal": (autoguide.AutoNormal, False, ""),
    "AutoMultivariateNormal": (autoguide.AutoMultivariateNormal, True, ""),
    "AutoStructured": (autoguide.AutoStructured, True, ""),
    "AutoNormalizingFlow, planar": (planar, None, "the density of '_AutoNormalizingFlow_latent' cannot be evaluated"),
    "AutoLaplaceApproximation": (autoguide.AutoLaplaceApproximation, None, "the guide gives 'a' as a point mass"),
}


@pytest.mark.parametrize("called", [False, True], ids=["fresh", "called"])
@pytest.mark.parametrize("name", AUTOGUIDES)
def test_autoguides_stay_as_they_are(name, called):
    make, faithful, reason = AUTOGUIDES[name]
    guide, x = make(three), torch.randn(3)
    if called:
        guide(x)
    before, store = seen(guide), {k: v.clone() for k, v in pyro.get_param_store().items()}
    report = compare(three, guide, x)
    assert seen(guide) == before
    after = dict(pyro.get_param_store().items())
    assert after.keys() == store.keys() and all(torch.equal(after[k], store[k]) for k in store)
    if faithful is None:
        silent(report, reason)
    else:
        assert report.faithful is faithful and report.reasons == (), str(report)
    loss = pyro.infer.SVI(three, guide, pyro.optim.Adam({"lr": 1e-3}), pyro.infer.Trace_ELBO()).step(x)
    assert np.isfinite(loss)


@pytest.mark.parametrize(
    ("name", "told"),
    [("AutoNormal", "q(s) q(p)"), ("AutoStructured", "q(s) q(p | s)"), ("AutoMultivariateNormal", "q(s) q(p | s)")],
)
def test_the_jacobian_of_an_autoguide_is_no_data(name, told):
    def constrained(x):
        s = pyro.sample("s", dist.Gamma(2.0, 1.0))
        p = pyro.sample("p", dist.Dirichlet(torch.ones(3)))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(p.sum(), s), obs=x)

    guide = getattr(autoguide, name)(constrained)
    assert str(factorization(guide, torch.rand(3))) == told
    assert "density" not in str(factorization(lambda x: guide(x), torch.rand(3)))  # of whose model nothing is known
