"""Covariates: arguments, or parts of them, that nothing observes; which of them guides read, and how."""

import math
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor

from guides import BottomUp, Faithful, Ladder, MeanField, SelfReflective
from guides.parts.looks.evidence import EvidenceKey
from ppl_models.factorization import compare
from ppl_models.inference import fit, load, terms
from ppl_models.inference.pyro.training.checkpoint import contents
from ppl_models.inference.storage import checkpoint_file
from tests.helpers.cases import few

GUIDES = (MeanField, BottomUp, Ladder, SelfReflective, Faithful)
TABLE = torch.tensor([-1.0, 0.0, 2.0, 0.5], dtype=torch.double)


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.double)


def sample(name: str, loc: Any, **how: Any) -> Tensor:
    return pyro.sample(name, dist.Normal(loc, torch.ones((), dtype=torch.double)), **how)


def one(of_z: Callable = lambda c: 0 * TABLE[0], of_x: Callable = lambda z, c: z, seen: Callable = lambda x: x):
    """z given c, x given z and c."""

    def model(x, c):
        with pyro.plate("data", len(x)):
            z = sample("z", of_z(c))
            sample("x", of_x(z, c), obs=seen(x))

    return model


def masked(x, c):
    with pyro.plate("data", len(x)):
        z = sample("z", 0 * TABLE[0])
        with poutine.mask(mask=c):
            sample("x", z, obs=x)


def grouped(x, c):
    with pyro.plate("groups", 4):
        a = sample("a", 0 * TABLE[0])
    with pyro.plate("data", len(x)):
        z = sample("z", a[..., c])
        sample("x", z, obs=x)


def partly(x, c):
    """The last column of x is read, and neither observed nor part of what is computed of the others."""
    with pyro.plate("data", len(x)):
        z = sample("z", x[:, 2])
        sample("x0", z, obs=x[:, 0])
        sample("x1", z, obs=2 * x[:, 1] + 0 * c)


def chain(x, c):
    with pyro.plate("data", len(x)):
        a = sample("a", c)
        b = sample("b", a)
        sample("x", b, obs=x)


X, C, K = noise(3), noise(3) + 1, torch.tensor([0, 2, 1])
CASES: dict[str, tuple[Callable, tuple[Tensor, ...], str]] = {
    "prior": (one(lambda c: c), (X, C), "q(z | x, c)"),
    "likelihood": (one(of_x=lambda z, c: c * z), (X, C), "q(z | x, c)"),
    "row": (one(lambda c: c.sum(-1)), (X, noise(3, 2)), "q(z | x, c)"),
    "matrix": (one(lambda c: c.sum((-1, -2))), (X, noise(3, 2, 2)), "q(z | x, c)"),
    "label": (one(lambda k: TABLE[k]), (X, K), "q(z | x, c)"),
    "truth": (masked, (X, torch.tensor([True, False, True])), "q(z | x, c)"),
    "vector": (one(lambda c: c.sum()), (X, noise(2)), "q(z | x, c)"),
    "number": (one(lambda c: c), (X, noise(1)[0]), "q(z | x, c)"),
    "not read": (one(), (X, C), "q(z | x)"),
    "index": (grouped, (X, K), "q(a) q(z | a, x, c)"),
    "partly": (partly, (noise(3, 3), C), "q(z | x0, x1, x (not observed))"),
    "two factors": (chain, (X, C), "q(a | x, c) q(b | a, x)"),
}


@pytest.mark.parametrize("case", few(CASES, lambda case: case not in ("prior", "row", "matrix")))
def test_a_guide_reads_the_covariates_that_its_factors_need(case):
    model, args, formula = CASES[case]
    report = compare(model, SelfReflective(model, *args, hidden=4), *args)
    assert str(report.guide) == formula and report.faithful and report.minimal, report


@pytest.mark.parametrize("guide", GUIDES)
@pytest.mark.parametrize("case", few(["prior", "likelihood", "label", "vector"], lambda case: case == "likelihood"))
def test_every_guide_does(case, guide):
    model, args, formula = CASES[case]
    report = compare(model, guide(model, *args, hidden=4), *args)
    assert str(report.guide) == formula and report.verdict == "faithful, minimal, perfect"
    report = compare(model, guide(model, *args, hidden=4, evidence="observed"), *args)
    reads = case != "likelihood" and guide is Ladder  # its factor is merged with the prior, which reads the covariate
    assert report.faithful == reads and report.missing == ({} if reads else {"z": ("c",)})


def test_what_is_needed_goes_by_the_parents():
    model, args, _ = CASES["two factors"]
    every = {"a": ("x", "c"), "b": ("x", "c")}
    assert dict(MeanField(model, *args).layout.reads) == every
    assert dict(SelfReflective(model, *args).layout.reads) == every | {"b": ("x",)}
    assert dict(SelfReflective(model, *args, parents="none").layout.reads) == every
    assert dict(Faithful(model, *args, order="bottom-up").layout.reads) == {"a": ("c",), "b": ("x", "c")}


@pytest.mark.parametrize("guide", [MeanField, BottomUp])
def test_with_the_right_weights_it_is_exact(guide):
    """z ~ N(c, 1), x ~ N(z, 1): z | x, c ~ N((x + c) / 2, 1 / 2), so every log weight is log N(x; c, 2)."""
    model, (x, c), _ = CASES["prior"]
    q = guide(model, x, c, encoder="linear", depth=0)
    (first,) = q.factors.q_z.first
    half = 5 * math.atanh(math.log(0.5) / 2 / 5)  # the raw number of this scale
    with torch.no_grad():
        first.weight[:], first.bias[:] = torch.tensor([[0.5, 0.5], [0.0, 0.0]]), torch.tensor([0.0, half])
        x, c = noise(5), noise(5) ** 2  # other rows
        found = terms(model, q, (x, c), particles=3, analytic=False)
    exact = torch.distributions.Normal(c, 2**0.5).log_prob(x)
    torch.testing.assert_close(found.log_w, exact.expand(3, 5))


# ---- how they are read


def encoded(q: Any, *args: Tensor) -> dict[str, Tensor]:
    return q.factors.encode(q.layout.evidence(q.model, args, {})[0])


@pytest.mark.parametrize("encoder", ["conv", "pyramid", "shared", "bottom-up"])
def test_covariates_are_beside_what_an_encoder_makes_of_the_rows(encoder):
    def model(x, c):
        with pyro.plate("data", len(x)):
            z = sample("z", c)
            sample("y", z)  # which reads the rows alone
            pyro.sample("x", dist.Normal(z[..., None].expand(*z.shape, 16), 1.0).to_event(1), obs=x)

    x, seen = noise(3, 16), []
    q = SelfReflective(model, x, K.double(), encoder=encoder, hidden=16, image=(1, 4, 4))
    (network,) = q.factors.encoders  # of both latents
    network.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    found = encoded(q, x, C)
    assert torch.equal(seen[-1], x)
    assert torch.equal(found["z"][:, -1], C)
    assert found["z"].shape[-1] == found["y"].shape[-1] + 1


def test_whatever_their_entries_are_they_are_read_as_numbers():
    for case, numbers in (("label", K.double()), ("truth", torch.tensor([1.0, 0.0, 1.0]).double())):
        model, args, _ = CASES[case]
        assert torch.equal(encoded(MeanField(model, *args, hidden=4), *args)["z"][:, -1], numbers)
    model, args, _ = CASES["matrix"]
    assert torch.equal(encoded(MeanField(model, *args, hidden=4), *args)["z"][:, -4:], args[1].reshape(3, 4))


def in_time(x, c):
    with pyro.plate("data", len(x), dim=-2):
        a = sample("a", 0 * TABLE[0])
        with pyro.plate("time", x.shape[1], dim=-1):
            z = sample("z", a + c)
            sample("x", z, obs=x)


@pytest.mark.parametrize("shape", [(3, 4), (4,), (3, 1), (3,), (1,)])
def test_covariates_lie_in_the_plates_that_their_shapes_tell(shape):
    """Of each datum and time, of each time, of each datum (of two shapes), or of all: as by broadcasting."""
    x, c = noise(3, 4), noise(*shape)

    def model(x, c):
        in_time(x, c[:, None] if c.shape == x.shape[:1] else c)

    q = SelfReflective(model, x, c, hidden=4)
    found, wide = encoded(q, x, c), c[:, None] if shape == (3,) else c
    assert torch.equal(found["z"][..., -1], wide.expand(3, 4))
    features = {(3, 4): 4, (4,): 4}.get(shape, 1)
    assert torch.equal(found["a"][..., -features:].squeeze(-2), wide.expand(3, features))
    assert set(q(noise(5, 4), c if shape in ((4,), (1,)) else noise(5, *shape[1:]))) == {"a", "z"}


def subsampled(x, c):
    with pyro.plate("data", len(x), subsample_size=2) as index:
        z = sample("z", c[index])
        sample("x", z, obs=x[index])


def of_a_batch(x, c):
    with pyro.plate("data", 100, subsample_size=len(x)):
        z = sample("z", c)
        sample("x", z, obs=x)


@pytest.mark.parametrize("guide", [MeanField, Faithful])
@pytest.mark.parametrize("model", [subsampled, of_a_batch])
def test_covariates_of_a_subsample_are_read_at_its_indices(model, guide):
    x, c = noise(6), noise(6) + 1
    q = guide(model, x, c, encoder="linear", depth=0)
    with torch.no_grad():
        q.factors.q_z.first[0].weight[:] = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
        q.factors.q_z.first[0].bias[:] = 0.0
        nodes = poutine.trace(q).get_trace(x, c).nodes
    expected = c[nodes["data"]["value"]] if model is subsampled else c
    torch.testing.assert_close(nodes["z"]["fn"].mean, expected)


def test_without_plates_all_is_one_datum():
    def model(y, s):
        mu = sample("mu", 0 * TABLE[0])
        pyro.sample("y", dist.Normal(mu.expand(3), s).to_event(1), obs=y)

    args = X, C**2
    assert BottomUp(model, *args).layout.sizes == {EvidenceKey(frozenset(), ("y", "s")): 6}
    assert Faithful(model, *args).layout.sizes == {}  # a global, to which the data are fixed


def test_arguments_by_keyword_and_missing_ones():
    model, (x, c), _ = CASES["prior"]
    q = MeanField(model, x, c, hidden=4)
    draws = []
    for args, more in (((x, c), {}), ((x,), {"c": c}), ((), {"c": c, "x": x})):
        pyro.set_rng_seed(0)
        draws.append(q(*args, **more)["z"])
    assert torch.equal(draws[0], draws[1]) and torch.equal(draws[0], draws[2])
    with pytest.raises(
        ValueError, match="guide MeanField: found no tensor for the argument 'c' of the model, want its"
    ):
        MeanField(lambda x, c=C: model(x, c), x, c, hidden=4)(x)
    with pytest.raises(ValueError, match="found 3 rows of the argument 'c' in the plate 'data', want 5 as of what is"):
        # a vector for all data, of as many entries as the example had rows
        MeanField(CASES["vector"][0], x, c, hidden=4)(noise(5), c)
    with pytest.raises(ValueError, match=r"found 3 observed values a datum \(sites x, c\), built for 2"):
        MeanField(lambda x, c: model(x, c.reshape(3, -1)[:, 0]), x, c)(x, noise(3, 2))


WRITES = {"copied": lambda c: torch.zeros_like(X).copy_(c), "listed": lambda c: torch.tensor(c.tolist())}


@pytest.mark.parametrize("write", WRITES)
def test_a_covariate_is_found_where_tags_are_lost(write):
    assert MeanField(one(WRITES[write]), X, C).layout.reads == {"z": ("x", "c")}


# ---- evidence=


def two(x, y, c, k):
    with pyro.plate("data", len(x)):
        z = sample("z", c)
        sample("x", z, obs=x)
        sample("y", z, obs=y)


ASKED = {
    "needed": ("x", "y", "c"),
    "observed": ("x", "y"),
    ("c", "k"): ("x", "y", "c", "k"),
    ("x", "k"): ("x", "k"),
    ("y",): ("y",),
    (): ("x", "y"),
}


@pytest.mark.parametrize(
    ("guide", "evidence"),
    few([(g, e) for g in GUIDES for e in ASKED], lambda g, e: g is MeanField or (g is Faithful and e == ("x", "k"))),
)
def test_evidence_is_what_is_asked_for(guide, evidence):
    assert guide(two, X, X + 1, C, K, hidden=4, evidence=evidence).layout.reads == {"z": ASKED[evidence]}


@pytest.mark.parametrize("guide", few([MeanField, Faithful], lambda guide: guide is MeanField))
def test_evidence_that_means_nothing_is_refused(guide):
    for evidence, text in (
        ("c", r"evidence='c', want one of 'needed', 'observed', or a tuple of names of arguments; try \('c',\)"),
        ("all", "evidence='all', want one of 'needed', 'observed', or a tuple of names of arguments$"),
        (("z",), "evidence names 'z', want one of the arguments of the model that are tensors: x, y, c, k"),
    ):
        with pytest.raises(ValueError, match=f"guide {guide.__name__}: .*{text}"):
            guide(two, X, X + 1, C, K, evidence=evidence)


# ---- files of before


@pytest.mark.parametrize("guide", [MeanField, Faithful])
def test_a_file_of_a_guide_that_read_covariates_otherwise_is_refused(guide, tmp_path, monkeypatch):
    model, args, _ = CASES["prior"]
    how = {"steps": 1, "batch_size": 3, "seed": 0, "progress": False}
    q, path = guide(model, *args, hidden=4, evidence="observed"), tmp_path / "run" / "checkpoint.safetensors"
    with monkeypatch.context() as then:
        then.setattr(checkpoint_file, "FORMAT", checkpoint_file.OTHER_COVARIATES)
        fit(model, q, args, folder=tmp_path / "run", **how)
    load(path, contents(model, q, args))  # nothing has changed for it
    now, told = guide(model, *args, hidden=4), "did not read c; .*build it with evidence='observed'"
    told = f"before format 4 of files .*guide {guide.__name__} {'read c through' if guide is Faithful else told}"
    with pytest.raises(ValueError, match=told):
        load(path, contents(model, now, args))
    with pytest.raises(ValueError, match=told):
        fit(model, now, args, folder=tmp_path / "run", resume=True, **how)
