"""What `compare` says of running programs, against what theory says of the same graphs."""

import random
from inspect import signature
from itertools import product
from typing import NamedTuple

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.nn import PyroModule, PyroParam
from torch import nn

from guides import BottomUp, Ladder, MeanField, SelfReflective
from ppl_models import DLGM, VAE, HierarchicalVAE, LinearGaussian, SeReVAE
from ppl_models.factorization import Factorization, compare, factorization, judge
from ppl_models.factorization.probing.inspect_guide import inspect_pair
from ppl_models.programs.laboratory import experiments
from tests.helpers.cases import few
from tests.helpers.pairs import ANY, PAIRS, UNCERTAIN, Head, Pixels, normal, parse, prior_of_x, real


def triple(report) -> tuple:
    return report.faithful, report.minimal, report.perfect


def agrees(found: tuple, expected: tuple) -> bool:
    return all(e == ANY or f is e for f, e in zip(found, expected, strict=True))


def sets(found) -> dict[str, set[str]]:
    return {site: set(names) for site, names in found.items() if names}


def edges(f: Factorization) -> dict[str, set[str]]:
    return {site: set(parents) for site, parents in f.items()}


def copies(pair) -> bool:
    """Whether a case speaks of copies within a plate, which graphs of sites have no word for."""
    return any(
        "'" in u for found in (pair.missing, pair.superfluous) if found != ANY for us in found.values() for u in us
    )


ON_SITES = [name for name, pair in PAIRS.items() if pair.level == "site" and not copies(pair)]


# The table of shared/reference/factorization.md, section 7, and others of the kind


@pytest.mark.parametrize("name", ON_SITES)
def test_what_is_expected_follows_from_the_formulas(name):
    pair = PAIRS[name]
    model, guide = pair.factorizations()
    verdict = judge(model, guide, pair.constant, pair.determined)
    assert agrees((verdict.faithful, verdict.minimal, verdict.perfect), pair.verdict)
    assert sets({row.site: row.missing for row in verdict.rows}) == dict(pair.missing)
    if pair.superfluous != ANY:
        assert sets({row.site: row.superfluous for row in verdict.rows}) == dict(pair.superfluous)


# the longest, of whose model another guide is judged every time
SELDOM = (
    *("self-reflective, skip, G+", "self-reflective, mean field, G+", "self-reflective, by noise, G+"),
    *("square, AutoStructured as needed", "two layers, ladder, elements", "hierarchy, x missing, 8 rows"),
    *("state space, mean field", "state space, bidirectional", "sequences, smoothing", "crossed plates, mean field"),
)


@pytest.mark.parametrize("name", few(PAIRS, lambda name: name not in SELDOM))
def test_verdict(name):
    pair = PAIRS[name]
    model, guide, args = pair.build()
    report = compare(model, guide, *args, level=pair.level)
    text = str(report)
    assert agrees(triple(report), pair.verdict), text
    assert sets(report.missing) == dict(pair.missing), text
    if pair.superfluous != ANY:
        assert sets(report.superfluous) == dict(pair.superfluous), text
    assert report.reasons == (), text
    for words in pair.says:
        assert words.lower() in text.lower(), text
    for row in report.rows:
        assert set(row.missing) <= set(row.need) - set(row.have)
        assert set(row.superfluous) <= set(row.have)
        assert report.missing.get(row.site, ()) == tuple(row.missing)
        assert tuple(report.superfluous.get(row.site, ())) == tuple(row.superfluous)
        for parent, path in row.missing.items():
            assert path[0] == row.site and path[-1] == parent
            assert parent in text
            if pair.level == "site" and not copies(pair):
                assert " - ".join(path) in text
    if pair.printed:
        written = pair.factorizations()
        assert edges(report.model) == edges(written[0]) and edges(report.guide) == edges(written[1])
        assert str(report.model)[:2] == "p(" and str(report.guide)[:2] == "q("


PRINTED = [name for name, pair in PAIRS.items() if pair.printed and pair.level == "site"]
FIRST = {name.partition(",")[0]: name for name in reversed(PRINTED)}.values()  # one guide of every model


@pytest.mark.parametrize("name", few(PRINTED, lambda name: name in FIRST))
def test_factorization(name):
    pair = PAIRS[name]
    model, guide, args = pair.build()
    written, given = pair.factorizations()
    found = factorization(model, *args)
    assert edges(found) == edges(written)
    assert set(found.observed) == set(written.observed)
    assert found.letter == "p"
    found = factorization(guide, *args)  # alone it knows no sites of data, only arguments
    alone = {x: x if x in signature(guide).parameters else "x" for x in given.given}
    assert edges(found) == {z: {alone.get(u, u) for u in parents} for z, parents in given.items()}
    assert found.letter == ("q" if found.given else "p")  # without data there is no telling


def test_printed_formulas():
    model, guide, args = PAIRS["hierarchy, bottom-up"].build()
    assert str(factorization(model, *args)) == "p(z3) p(z2 | z3) p(z1 | z2) p(x | z1)"
    assert str(factorization(guide, *args)) == "q(z1 | x) q(z2 | z1) q(z3 | z2)"
    report = compare(model, guide, *args)
    assert str(report.guide) == "q(z1 | x) q(z2 | z1) q(z3 | z2)"
    assert str(report.model.faithful_inverse("bottom-up")) == str(report.guide)
    model, guide, args = PAIRS["hierarchy, ladder"].build()
    assert str(compare(model, guide, *args).guide) == "q(z3 | x) q(z2 | z3, x) q(z1 | z2, x)"


def test_filtering_by_the_numbers():
    model, guide, args = PAIRS["state space, filtering"].build()
    report = compare(model, guide, *args)
    assert sum(map(len, report.missing.values())) == 6
    assert sum(map(len, report.superfluous.values())) == 6
    (first, *_) = report.rows
    assert first.site == "z0" and first.missing["x1"] == ("z0", "z1", "x1")


def test_the_order_of_rows_is_the_guides():
    for name, order in (("hierarchy, bottom-up", "z1 z2 z3"), ("hierarchy, ladder", "z3 z2 z1")):
        model, guide, args = PAIRS[name].build()
        assert [row.site for row in compare(model, guide, *args).rows] == order.split()


def test_data_by_keyword():
    model, guide, (x,) = PAIRS["hierarchy, x missing"].build()
    assert compare(model, guide, x=x).missing == compare(model, guide, x).missing == {"z2": ("x",)}
    model, guide, (x, y) = PAIRS["label observed, not read"].build()
    assert compare(model, guide, x, y=y).missing == {"z": ("y",)}


def test_the_same_again_and_with_other_seeds():
    for name in ("hierarchy, mean field", "state space, filtering", "mixture", "mask, one given the other"):
        model, guide, args = PAIRS[name].build()
        texts = set()
        for seed in range(3):
            pyro.set_rng_seed(seed)
            texts.add(str(compare(model, guide, *args)))
        assert len(texts) == 1


def test_double_precision():
    model, guide, (x,) = PAIRS["hierarchy, self-reflective"].build()
    torch.set_default_dtype(torch.double)
    try:
        model, guide, (x,) = PAIRS["hierarchy, self-reflective"].build()
        assert triple(compare(model, guide, x)) == (True, True, True)
        assert torch.get_default_dtype() is torch.double
    finally:
        torch.set_default_dtype(torch.float)


@pytest.mark.parametrize("name", UNCERTAIN)
def test_what_cannot_be_certified(name):
    model, guide, args = UNCERTAIN[name]()
    report = compare(model, guide, *args)
    assert triple(report) == (None, None, None)
    assert report.reasons and all(reason in str(report) for reason in report.reasons)


def test_a_prior_that_reads_the_data_it_explains():
    report = compare(*(found := prior_of_x())[:2], *found[2])
    assert report.faithful is not False
    assert report.faithful or report.reasons


# The collection


COLLECTION = {
    "LinearGaussian": (lambda: LinearGaussian(3), "p(z1) p(z2 | z1) p(z3 | z2) p(x | z3)"),
    "LinearGaussian, skips": (
        lambda: LinearGaussian(3, parents={"z3": ("z2", "z1"), "x": ("z3", "z1")}),
        "p(z1) p(z2 | z1) p(z3 | z1, z2) p(x | z1, z3)",
    ),
    "VAE": (lambda: VAE(6, latent=2, hidden=8), "p(z1) p(x | z1)"),
    "DLGM": (lambda: DLGM(6, (2, 2, 2), hidden=8), "p(z1) p(z2) p(z3) p(x | z1, z2, z3)"),
    "HierarchicalVAE": (
        lambda: HierarchicalVAE(6, (2, 2, 2), hidden=8),
        "p(z1) p(z2 | z1) p(z3 | z2) p(x | z3)",
    ),
    "HierarchicalVAE, skips": (
        lambda: HierarchicalVAE(6, (2, 2, 2), hidden=8, skip=True),
        "p(z1) p(z2 | z1) p(z3 | z2) p(x | z1, z2, z3)",
    ),
    "SeReVAE": (
        lambda: SeReVAE(6, layers=3, latent=2, hidden=16),
        "p(z1) p(x1 | z1) p(z2 | z1) p(x2 | z2, x1) p(z3 | z2) p(x3 | z3, x2)",
    ),
}
PARENTS = ("needed", "none", "all", "previous")


class Case(NamedTuple):
    model: str
    guide: type
    parents: str


CASES = [Case(m, MeanField, "none") for m in COLLECTION]
CASES += [Case(m, g, p) for m in COLLECTION for g in (BottomUp, Ladder, SelfReflective) for p in PARENTS]


def shares_bijections(case: Case) -> bool:
    """A self-reflective factor takes up the prior's transform, where it has one; its base is its own."""
    return case.guide is SelfReflective and case.model == "SeReVAE"


def by_theory(case: Case) -> tuple[Factorization, Factorization]:
    """Each factor reads all data, its chosen parents and, where the guide takes up the prior, those of the prior."""
    formula = COLLECTION[case.model][1]
    model = parse(formula, tuple(site for site in parse(formula).parents if site[0] == "x"))
    order = model.latents[::-1] if case.guide is BottomUp else model.latents
    parents = {}
    for i, z in enumerate(order):
        before = order[:i]
        needed = [u for u in model.needed_parents(z, before) if u in before]
        chosen = {"needed": needed, "none": [], "all": before, "previous": before[-1:]}[case.parents]
        prior = model.parents[z] if case.guide is Ladder or shares_bijections(case) else ()
        parents[z] = (*chosen, *prior, *model.observed)
    return model, Factorization(parents, given=model.observed, letter="q")


def built(case: Case, **options) -> tuple:
    model = COLLECTION[case.model][0]()
    with torch.no_grad():
        x = model(n=3)
    if case.guide is not MeanField:
        options["parents"] = case.parents
    return model, case.guide(model, x, hidden=8, **options), x


def often(case: Case) -> bool:
    return case.model in ("HierarchicalVAE, skips", "SeReVAE") and (case.parents == "needed" or case.guide is MeanField)


@pytest.mark.parametrize(
    "case",
    few([(case,) for case in CASES], often),
    ids=lambda case: f"{case.model}-{case.guide.__name__}-{case.parents}",
)
def test_the_collection(case):
    model, guide, x = built(case)
    expected = judge(*by_theory(case))
    report = compare(model, guide, x)
    text = str(report)
    assert edges(report.model) == edges(by_theory(case)[0]), text
    assert edges(report.guide) == edges(by_theory(case)[1]), text
    assert triple(report) == (expected.faithful, expected.minimal, expected.perfect), text
    assert sets(report.missing) == sets({row.site: row.missing for row in expected.rows}), text
    assert sets(report.superfluous) == sets({row.site: row.superfluous for row in expected.rows}), text


@pytest.mark.parametrize(
    ("family", "encoder"),
    few(
        product(("diagonal", "rank-one", "full"), ("separate", "bottom-up")),
        lambda family, encoder: encoder == "separate" or family == "rank-one",
    ),
)
def test_elements_of_the_collection(family, encoder):
    case = Case("HierarchicalVAE", SelfReflective, "needed")
    model, guide, x = built(case, family=family, encoder=encoder)
    report = compare(model, guide, x, level="element")
    if family == "diagonal":
        assert triple(report) == (False, False, False)
        assert sets(report.missing) == {f"z{i}.1": {f"z{i}.0"} for i in (1, 2, 3)}
    else:
        assert triple(report) == (True, True, True), str(report)


def test_mean_field_at_rank_one_is_mean_field():
    model, guide, x = built(Case("DLGM", MeanField, "none"), family="rank-one")
    report = compare(model, guide, x)
    assert sets(report.missing) == {"z2": {"z1"}, "z3": {"z1", "z2"}}
    assert report.faithful is False


# Nothing of the user's changes


class Busy(PyroModule):
    """A model with all that an inspection could disturb."""

    def __init__(self):
        super().__init__()
        self.prior, self.decoder = Head(2), Pixels(2)
        self.norm, self.drop = nn.BatchNorm1d(2), nn.Dropout(0.5)
        self.scale = PyroParam(torch.tensor(1.5), constraint=dist.constraints.positive)
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)
        self.register_buffer("offset", torch.zeros(2))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", dist.Normal(self.offset, self.scale.expand(2)).to_event(1))
            z1 = pyro.sample("z1", self.prior(self.drop(self.norm(z2)) * self.frozen))
            pyro.sample("x", self.decoder(z1), obs=x)


def busy():
    model, heads = Busy(), nn.ModuleList([Head(3), Head(5)])
    norm = nn.BatchNorm1d(3)
    model.decoder.eval()
    heads[1].net.eval()

    def guide(x):
        pyro.module("heads", heads)
        shift = pyro.param("shift", torch.zeros(2))
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", heads[0](norm(x)))
            pyro.sample("z1", heads[1](x, z2 + shift))

    return model, guide, nn.ModuleList([model, heads, norm])


def flags() -> tuple:
    from pyro.distributions.torch_distribution import TorchDistributionMixin
    from pyro.poutine.runtime import _PYRO_STACK

    return (
        torch.get_default_dtype(),
        torch.distributions.Distribution._validate_args,
        TorchDistributionMixin.__dict__.get("_validate_args"),
        dist.Distribution.__dict__.get("_validate_args"),
        dist.Normal._validate_args,
        pyro.settings.get(),
        torch.is_grad_enabled(),
        torch.get_num_threads(),
        len(_PYRO_STACK),
    )


class State:
    """All that a user could see of his programs and of the process."""

    def __init__(self, modules: nn.Module, *tensors: torch.Tensor) -> None:
        self.modules = modules
        named = [
            *modules.named_parameters(),
            *modules.named_buffers(),
            *((f"arg{i}", t) for i, t in enumerate(tensors)),
        ]
        self.tensors = [(name, t, t.detach().clone(), t.data_ptr(), t.dtype, t.requires_grad) for name, t in named]
        self.grads = [(t, t.grad, None if t.grad is None else t.grad.clone()) for t in modules.parameters()]
        self.training = [m.training for m in modules.modules()]
        self.attributes = [(m, set(vars(m)), list(m._modules), list(m._parameters)) for m in modules.modules()]
        store = pyro.get_param_store()
        self.store = {key: (value, value.detach().clone()) for key, value in store.named_parameters()}
        self.constraints = dict(store.get_state()["constraints"])
        self.rng = torch.get_rng_state(), np.random.get_state(), random.getstate()
        self.flags = flags()

    def check(self) -> None:
        now = [*self.modules.named_parameters(), *self.modules.named_buffers()]
        assert [id(t) for _, t in now] == [id(t) for _, t, *_ in self.tensors[: len(now)]]
        for name, tensor, value, pointer, dtype, requires_grad in self.tensors:
            assert torch.equal(tensor, value), name
            assert (tensor.data_ptr(), tensor.dtype, tensor.requires_grad) == (pointer, dtype, requires_grad), name
        for tensor, grad, value in self.grads:
            assert tensor.grad is grad and (grad is None or torch.equal(grad, value))
        assert [m.training for m in self.modules.modules()] == self.training
        assert [(m, set(vars(m)), list(m._modules), list(m._parameters)) for m in self.modules.modules()] == (
            self.attributes
        )
        store = pyro.get_param_store()
        assert dict(store.named_parameters()).keys() == self.store.keys()
        for key, value in store.named_parameters():
            assert value is self.store[key][0] and torch.equal(value, self.store[key][1]), key
        assert dict(store.get_state()["constraints"]) == self.constraints
        assert torch.equal(torch.get_rng_state(), self.rng[0])
        assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), self.rng[1], strict=True))
        assert random.getstate() == self.rng[2]
        assert flags() == self.flags


def states(run: bool) -> tuple:
    """A busy pair: fresh, or after a step of training has filled param store, statistics and gradients."""
    model, guide, modules = busy()
    x = (real() > 0).float()
    pyro.param("somebody else's", torch.ones(3), constraint=dist.constraints.positive)
    if run:
        with poutine.trace(param_only=True):
            loss = pyro.infer.Trace_ELBO().differentiable_loss(model, guide, x)
        loss.backward()
    random.random(), np.random.rand(), torch.rand(1)
    return model, guide, modules, x


@pytest.mark.parametrize("level", ["site", "element"])
@pytest.mark.parametrize("run", [False, True], ids=["fresh", "trained"])
def test_nothing_of_the_users_has_changed(run, level):
    model, guide, modules, x = states(run)
    before = State(modules, x)
    report = compare(model, guide, x, level=level)
    before.check()
    if level == "site":
        assert triple(report) == (True, True, True), str(report)
    factorization(model, x), factorization(guide, x)
    before.check()


def test_the_laboratory_counts_runs():
    """A step of the search that doubles them would not be seen in a verdict."""
    model = VAE(784)
    x = torch.rand(3, 784).round()
    guide = MeanField(model, x)
    with experiments([model, guide], (x,), {}) as (p, q):
        assert inspect_pair(p, q).sites() == factorization(guide, x)
    assert 0 < p.laboratory.runs <= 50


@pytest.mark.parametrize("where", ["model", "guide"])
@pytest.mark.parametrize("calls", [0, 1, 4])
def test_nothing_has_changed_when_a_program_raises(where, calls):
    model, guide, modules, x = states(True)
    left = [calls]

    def failing(x):
        (model if where == "model" else guide)(x)
        left[0] -= 1
        if left[0] < 0:
            raise RuntimeError("the disk is full")

    before = State(modules, x)
    with pytest.raises(Exception, match="the disk is full"):
        compare(*((failing, guide) if where == "model" else (model, failing)), x)
    before.check()


def test_a_graph_of_gradients_outlives_an_inspection():
    model, guide, modules, x = states(False)
    loss = pyro.infer.Trace_ELBO().differentiable_loss(model, guide, x)
    compare(model, guide, x)
    loss.backward()
    assert all(p.grad is not None for p in modules[0].prior.parameters())


def test_nothing_has_changed_when_compare_raises():
    model, guide, modules, x = states(True)
    before = State(modules, x)

    def other(x):
        guide(x)
        pyro.sample("w", normal())

    for bad in (lambda: compare(model, other, x), lambda: compare(model, lambda x: None, x)):
        with pytest.raises(ValueError):
            bad()
        before.check()
    with pytest.raises((ValueError, TypeError)):
        compare(model, guide, x, level="atom")
    before.check()


def test_the_collection_is_left_alone():
    model, guide, x = built(Case("SeReVAE", Ladder, "needed"))
    before = State(nn.ModuleList([model, guide]), x)
    compare(model, guide, x)
    before.check()


@pytest.mark.parametrize("validate", [True, False])
def test_validation_stays_as_it_was(validate):
    model, guide, args = PAIRS["hierarchy, ladder"].build()
    was = torch.distributions.Distribution._validate_args
    pyro.enable_validation(validate)
    try:
        before = flags()
        compare(model, guide, *args)
        assert flags() == before
    finally:
        pyro.enable_validation(was)


def test_under_no_grad_and_inside_handlers():
    model, guide, args = PAIRS["hierarchy, ladder"].build()
    with torch.no_grad(), poutine.trace() as outer:
        assert triple(compare(model, guide, *args)) == (True, True, True)
        assert not torch.is_grad_enabled()
    assert list(outer.trace.nodes) == []


# Errors


def small_model(x):
    with pyro.plate("data", len(x)):
        a, b = pyro.sample("a", normal(3)), pyro.sample("b", normal(3))
        pyro.sample("x", dist.Normal(a + b, 1.0).to_event(1), obs=x)


def small_guide(*names):
    def guide(x):
        with pyro.plate("data", len(x)):
            for name in names:
                pyro.sample(name, dist.Normal(x, 1.0).to_event(1))

    return guide


def blind_model(x):
    with pyro.plate("data", len(x)):
        pyro.sample("a", normal(3)), pyro.sample("b", normal(3))


@pytest.mark.parametrize(
    ("model", "guide", "options", "error", "words"),
    [
        (small_model, small_guide("a", "b", "w"), {}, ValueError, ("'w'", "guide", "model")),
        (small_model, small_guide("a"), {}, ValueError, ("'b'", "guide", "enumerate")),
        (blind_model, small_guide("a", "b"), {}, ValueError, ("observe", "'a'")),
        (small_model, small_guide("a", "b"), {"level": "atom"}, ValueError, ("'atom'", "'site'", "'element'")),
        (small_model, None, {}, ValueError, ("guide", "'a'")),
        (small_model, 3, {}, TypeError, ("guide", "3")),
        (3, small_guide("a", "b"), {}, TypeError, ("model", "3")),
    ],
    ids=["unknown site", "latent not sampled", "nothing observed", "level", "no guide", "no program", "no model"],
)
def test_errors_say_what_to_do(model, guide, options, error, words):
    with pytest.raises((ValueError, TypeError)) as caught:
        compare(model, guide, real(), **options)
    assert caught.type is error
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("program", [None, 3, "model"])
def test_factorization_wants_a_program(program):
    with pytest.raises(TypeError):
        factorization(program, real())
