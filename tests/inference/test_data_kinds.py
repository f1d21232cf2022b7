"""Data as users have them: arrays, frames, dicts and data sets give what tensors of the same numbers give."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset

from guides import BottomUp, Faithful, MeanField
from ppl_models import VAE
from ppl_models.inference import evaluate, fit, mutual_information, reversal
from ppl_models.inference.pyro.feeding.batches import Batches
from ppl_models.inference.pyro.feeding.columns import Columns
from tests.helpers.cases import few

N = 12
FEW = "array", "items"  # all others make the same columns, see below


def numbers(n: int = N) -> tuple[Tensor, Tensor]:
    """(n, 3) real numbers, and (n,) counts."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, 3, generator=generator), torch.randint(9, (n,), generator=generator)


class Regression(nn.Module):
    """Counts given a row: what a model of two arguments may be."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.1, -0.2, 0.3]))

    def forward(self, x: Tensor, y: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x @ self.weight, 1.0))
            pyro.sample("y", dist.Poisson(z.exp()), obs=y)


def line(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z[..., None] * torch.ones(3), 1.0).to_event(1), obs=x)


class Rows(Dataset):
    """A map-style data set: (row, count), or either, each in a form of its own."""

    def __init__(self, form: Callable[[Tensor, Tensor], Any]) -> None:
        self.form = form

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> Any:
        x, y = numbers()
        return self.form(x[int(index)], y[int(index)])


class Centred(Rows):
    """Rows that a batch would centre otherwise than items are: they are wanted one by one."""

    def __getitem__(self, index: Any) -> Tensor:
        row = numbers()[0][index]
        return row - row.mean()


def frame(columns: dict[str, Any]) -> Any:
    return pytest.importorskip("pandas").DataFrame(columns)


def named(x: Tensor) -> Any:
    return frame({"a": x[:, 0].numpy(), "b": x[:, 1].numpy(), "c": x[:, 2].numpy()})


ONE = {  # of one argument
    "array": lambda x, y: x.numpy(),
    "double": lambda x, y: x.double().numpy(),
    "backwards": lambda x, y: x.numpy()[::-1][::-1],
    "big-endian": lambda x, y: x.numpy().astype(">f4"),
    "frozen": lambda x, y: np.frombuffer(x.numpy().tobytes(), np.float32).reshape(x.shape),
    "frame": lambda x, y: named(x),
    "dict": lambda x, y: {"x": x.numpy()},
    "TensorDataset": lambda x, y: TensorDataset(x),
    "tuple": lambda x, y: (x.numpy(),),
    "items": lambda x, y: Rows(lambda x, y: x.double().numpy()),
    "items in tuples": lambda x, y: Rows(lambda x, y: (x,)),
    "items in dicts": lambda x, y: Rows(lambda x, y: {"x": x.tolist()}),
    "Subset": lambda x, y: Subset(TensorDataset(x.flip(0)), [*range(N)][::-1]),
    "ConcatDataset": lambda x, y: ConcatDataset([TensorDataset(x[:5]), TensorDataset(x[5:])]),
}
TWO = {  # of two
    "arrays": lambda x, y: (x.numpy(), y.numpy()),
    "dict": lambda x, y: {"y": y.numpy(), "x": x},
    "TensorDataset": lambda x, y: TensorDataset(x, y),
    "items": lambda x, y: Rows(lambda x, y: (x, int(y))),
    "items in dicts": lambda x, y: Rows(lambda x, y: {"y": y, "x": x.numpy()}),
}


def told(columns: Columns) -> list[Tensor]:
    """All rows, backwards and in order."""
    return [*columns.rows(torch.arange(N).flip(0)), *columns.rows(slice(0, N))]


@pytest.mark.parametrize("kind", ONE)
def test_columns_of_one_argument(kind: str):
    x, y = numbers()
    found = told(Columns(ONE[kind](x, y), "data", line))
    assert len(found) == 2 and torch.equal(found[0], x.flip(0)) and torch.equal(found[1], x)


@pytest.mark.parametrize("kind", TWO)
def test_columns_of_two_arguments(kind: str):
    x, y = numbers()
    for one, other in zip(
        told(Columns(TWO[kind](x, y), "data", Regression())), (x.flip(0), y.flip(0), x, y), strict=True
    ):
        assert one.dtype == other.dtype and torch.equal(one, other)


def test_real_numbers_have_the_type_of_the_model_and_others_their_own():
    x, y = numbers()
    for model, dtype in ((Regression(), torch.float32), (Regression().double(), torch.float64)):
        for data in ((x.numpy(), y.numpy()), (x.double().numpy(), y.numpy()), TWO["items"](x, y)):
            rows, counts = Columns(data, "data", model).rows(slice(0, 3))
            # of tensors in a data set nobody has said that they may be changed
            assert rows.dtype == (torch.float32 if isinstance(data, Rows) else dtype) and counts.dtype == torch.int64
    kinds = {np.bool_: torch.bool, np.uint8: torch.uint8, np.int32: torch.int32, np.uint16: torch.int64}
    for given, wanted in {**kinds, np.float16: torch.float32, np.complex64: torch.complex64}.items():
        assert Columns(np.ones(3, given), "data").columns[0].dtype == wanted


def test_frames_of_mixed_numbers():
    data = frame({"count": [1, 2], "flag": [True, False], "real": [0.5, 1.5]})
    assert torch.equal(Columns(data, "data").columns[0], torch.tensor([[1.0, 1.0, 0.5], [2.0, 0.0, 1.5]]))
    whole = Columns(data[["count", "flag"]], "data").columns[0]
    assert whole.dtype == torch.int64 and whole.tolist() == [[1, 1], [2, 0]]
    assert Columns(data["flag"], "data").columns[0].tolist() == [True, False]
    x, y = numbers()
    both = frame({"y": y.numpy(), "more": y.numpy(), "x": x[:, 0].numpy()})  # of two arguments: columns by their names
    assert torch.equal(Columns(both, "data", Regression()).columns[0], x[:, 0])
    with pytest.raises(TypeError, match="data: found the column 'species' of .*, want numbers; drop it, or code it"):
        Columns(frame({"real": [0.5], "species": ["owl"]}), "data")
    with pytest.raises(ValueError, match=r"NaN or infinite values \(first in row 1\)"):
        Columns(data.assign(count=pytest.importorskip("pandas").array([1, None], dtype="Int64")), "data")


def test_items_that_a_batch_would_make_otherwise_are_made_one_by_one():
    x, _ = numbers()
    centred = torch.stack([row - row.mean() for row in x])
    assert torch.equal(Columns(Centred(None), "data").rows(slice(0, N))[0], centred)


def test_rows_that_only_the_model_understands_are_left_to_it():
    class Batched:
        def __len__(self) -> int:
            return N

        def __getitem__(self, index: Any) -> dict[str, Tensor]:
            return {"rows": numbers()[0][index]}

    (batch,) = Columns(Batched(), "data", line).rows(torch.tensor([3, 1]))
    assert torch.equal(batch["rows"], numbers()[0][[3, 1]])


def test_looking_at_a_data_set_draws_nothing():
    noisy = Rows(lambda x, y: x + torch.rand(3))
    torch.manual_seed(0)
    wanted = torch.rand(1)
    torch.manual_seed(0)
    Columns(noisy, "data")
    assert torch.equal(torch.rand(1), wanted)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_workers_take_items_as_this_process_does():
    data = Subset(Rows(_pair), [*range(N)])
    found = []
    for workers in (0, 1):
        torch.manual_seed(0)
        batches = Batches(Columns(data, "data", Regression()), 5, workers=workers)
        batch = next(batches)
        order = batches.state()["order"][:5]
        found.append(all(torch.equal(a, b[order]) for a, b in zip(batch, numbers(), strict=True)))
        batches.close()
    assert found == [True, True]


def _pair(x: Tensor, y: Tensor) -> tuple[Tensor, int]:
    return x, int(y)


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        (lambda x, y: DataLoader(TensorDataset(x)), TypeError, "found DataLoader, want a tensor .*; try its dataset"),
        (lambda x, y: TensorDataset(x, y), ValueError, "found 2 columns, want one for each .* of the model line: x"),
        (lambda x, y: Rows(_pair), ValueError, "found 2 columns, want one for each"),
        (lambda x, y: {"x": x, "y": y}, ValueError, "found columns x, y, want those of .* the model line: x; rename"),
        (lambda x, y: {}, ValueError, "found columns none, want those"),
        (lambda x, y: np.array(["a", "b"]), TypeError, "found an array of <U1, want an array of rows of numbers"),
        (lambda x, y: np.array([x, None], object), TypeError, "found an array of object"),
        (lambda x, y: np.array(1.0), TypeError, "found a scalar"),
        (lambda x, y: np.ma.masked_array([1.0, 2.0], [True, False]), TypeError, "found a masked array"),
        (lambda x, y: np.array([[1.0], [np.nan]]), ValueError, r"NaN or infinite values \(first in row 1\)"),
        (lambda x, y: x.to_sparse(), TypeError, "found a sparse tensor, want every value; try x.to_dense"),
        (lambda x, y: Rows(lambda x, y: "text"), TypeError, "found items of a Rows that make no rows"),
        (
            lambda x, y: Rows(lambda x, y: x[: int(y) % 2 + 1]),
            TypeError,
            "want tensors, arrays or numbers of one shape",
        ),
        (lambda x, y: Rows(lambda x, y: {"label": y}), ValueError, "found columns label, want those of"),
        (lambda x, y: "rows", TypeError, "found str"),
    ],
)
def test_what_has_no_natural_reading_is_refused_in_one_line(data, kind, words):
    guide = MeanField(line, numbers()[0][:3], hidden=4)
    for what, act in (
        ("fit", partial(fit, steps=1)),
        ("evaluate", evaluate),
        ("mutual_information", mutual_information),
    ):
        with pytest.raises(kind, match=f"^{what}: data: .*{words}") as caught:
            act(line, guide, data(*numbers()), progress=False)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", few(["array", "items", "frame", "dict", "TensorDataset"], lambda kind: kind in FEW))
def test_a_training_and_all_that_is_asked_of_it_are_those_of_tensors(kind: str):
    x, y = numbers()
    found = []
    for data in (x, ONE[kind](x, y)):
        pyro.set_rng_seed(0)
        guide = MeanField(line, x[:3], hidden=4)
        fit(line, guide, data, validation=data, steps=3, batch_size=5, seed=1, progress=False)
        numbers_of = [p.detach() for p in guide.parameters()]
        found.append(
            (
                numbers_of,
                evaluate(line, guide, data, particles=3, progress=False),
                mutual_information(line, guide, data),
                reversal(line, guide, data, torch.zeros(2)).mean,
            )
        )
    (weights, bounds, information, mean), other = found
    assert all(torch.equal(a, b) for a, b in zip(weights, other[0], strict=True))
    assert bounds == other[1] and information == other[2] and torch.equal(mean, other[3])


@pytest.mark.parametrize("kind", ["array", "double", "frame", "dict", "TensorDataset"])
@pytest.mark.parametrize("make", [MeanField, BottomUp, Faithful])
def test_guides_are_built_on_examples_of_these_kinds(kind: str, make: Any):
    x, y = numbers()
    model = VAE(event=3, latent=2, hidden=4, likelihood="gaussian")
    built = []
    for example in (x, ONE[kind](x, y)):
        pyro.set_rng_seed(0)
        built.append(make(model, example, hidden=4).state_dict())
    assert all(torch.equal(a, b) for a, b in zip(*(each.values() for each in built), strict=True))


def test_an_argument_that_only_its_model_understands_is_left_to_it():
    def model(rows, scale, options):
        assert isinstance(scale, np.float64) and options == {"rows": 1}
        line(rows)

    assert MeanField(model, numbers()[0].numpy(), np.float64(2.0), {"rows": 1}, hidden=4).order == ["z"]

    def nested(batch):
        line(batch["x"])

    assert MeanField(nested, {"x": numbers()[0]}, hidden=4).order == ["z"]


def test_a_guide_says_which_column_is_no_number():
    with pytest.raises(TypeError, match="guide MeanField: found the column 'b' of .*, want numbers"):
        MeanField(line, frame({"a": [0.5], "b": ["owl"]}))
