"""Arguments in containers of the user's own: they are inspected, drawn from and named without being made anew."""

from typing import Any, NamedTuple

import jax
import numpy as np
import numpyro
import numpyro.distributions as numpyro_dist
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_sequence, pad_packed_sequence

from guides import BottomUp, MeanField
from ppl_models.factorization import compare, factorization
from ppl_models.programs.laboratory.numpyro import NumPyroLaboratory
from ppl_models.programs.laboratory.pyro import PyroLaboratory
from ppl_models.views import to_arviz


class _Fields(NamedTuple):
    x: Any
    n: Any


class Checked(_Fields):
    """A batch that takes nothing but arrays of some shape and type."""

    def __new__(cls, x: Any, n: Any) -> "Checked":
        if len(x.shape) != 3 or "int" not in str(n.dtype):
            raise ValueError("want sequences (N, T, D) and their lengths, integers")
        return super().__new__(cls, x, n)


def sequences() -> PackedSequence:
    generator = torch.Generator().manual_seed(0)
    return pack_sequence([torch.randn(length, 2, generator=generator) for length in (4, 3, 2)])


def masked(x: Tensor, n: Tensor) -> None:
    keep = torch.arange(x.shape[1])[:, None] < n
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        with pyro.plate("time", x.shape[1], dim=-2), pyro.poutine.mask(mask=keep):
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x.transpose(0, 1))


def of_fields(batch: Checked) -> None:
    masked(batch.x, batch.n)


def of_packed(packed: PackedSequence) -> None:
    x, _ = pad_packed_sequence(packed, batch_first=True)
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        pyro.sample("x", dist.Normal(z[:, None, :] * torch.ones_like(x), 1.0).to_event(2), obs=x)


def test_a_tuple_that_checks_its_fields_is_inspected_as_its_fields_are():
    x, n = pad_packed_sequence(sequences(), batch_first=True)
    found = [str(factorization(model, *args)) for model, args in ((masked, (x, n)), (of_fields, (Checked(x, n),)))]
    assert found == ["p(z) p(x | z, n)", "p(z) p(x | z, batch.1)"]
    batch = Checked(x, n)
    read = {"hidden": 4, "evidence": "observed"}  # covariates within a container are read by no guide
    assert compare(of_fields, BottomUp(of_fields, batch, **read), batch).verdict == (
        compare(masked, BottomUp(masked, x, n, **read), x, n).verdict
    )


@pytest.mark.parametrize("make", [MeanField, BottomUp])
def test_a_packed_sequence_is_inspected_and_exported(make: Any):
    packed = sequences()
    assert str(factorization(of_packed, packed)) == "p(z) p(x | z)"
    guide = make(of_packed, packed, hidden=4)
    assert str(compare(of_packed, guide, packed).guide) == "q(z | x)"
    drawn = to_arviz(of_packed, guide, packed, draws=2)
    assert drawn.posterior["z"].shape == (1, 2, 3, 2) and drawn.observed_data["x"].shape == (3, 4, 2)


def test_fields_are_named_by_the_argument_that_holds_them():
    x, n = torch.zeros(2, 3, 1), torch.ones(2, dtype=torch.int64)

    def program(batch: Checked, rest: Any, *more: Any, scale: Any = None, **other: Any) -> None: ...

    args, kwargs = (Checked(x, n), {"a": x, "b": "word"}, x, x), {"scale": x, "later": [x]}
    names = ["batch.0", "batch.1", "rest", "more.0", "more.1", "scale", "other"]
    assert PyroLaboratory([program], args, kwargs).leaf_names(program) == names
    of_jax = jax.tree.map(lambda leaf: leaf if isinstance(leaf, str) else np.asarray(leaf), (args, kwargs))
    assert NumPyroLaboratory([program], *of_jax).leaf_names(program) == [*names[:5], "other", "scale"]


def test_a_tuple_that_checks_its_fields_is_inspected_in_numpyro_too():
    def model(batch: Checked) -> None:
        with numpyro.plate("data", len(batch.x)):
            z = numpyro.sample("z", numpyro_dist.Normal(0.0, 1.0))
            numpyro.sample(
                "x", numpyro_dist.Normal(z[:, None, None] * batch.n[:, None, None], 1.0).to_event(2), obs=batch.x
            )

    batch = Checked(np.random.default_rng(0).normal(size=(3, 2, 2)), np.array([2, 1, 3]))
    assert str(factorization(model, batch)) == "p(z) p(x | z, batch.1)"


@pytest.mark.parametrize("kind", ["array", "dict", "frame"])
def test_draws_are_made_of_data_of_other_kinds(kind: str):
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z[:, None] * torch.ones(2), 1.0).to_event(1), obs=x)

    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    data = {"array": x.double().numpy(), "dict": {"x": x.numpy()}}
    guide = MeanField(model, x, hidden=4)
    found = data[kind] if kind in data else pytest.importorskip("pandas").DataFrame(x.numpy())
    one, other = (to_arviz(model, guide, given, draws=2).posterior["z"].values for given in (x, found))
    assert np.array_equal(one, other)


@pytest.mark.parametrize("own", [False, True])
def test_arrays_are_inspected_as_tensors_unless_the_program_takes_them_itself(own: bool):
    def model(x: Any) -> None:
        assert isinstance(x, np.ndarray) or not own
        observed = torch.as_tensor(x) if own else x
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=observed.clone())

    assert str(factorization(model, np.arange(3.0))) == "p(z) p(x | z)"
