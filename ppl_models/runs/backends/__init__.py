"""`backend(name)`: what runs do in one language or another, "pyro" or "numpyro", behind the protocol `Backend`.

No other room of `runs` or `cli` knows which languages there are.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

from ppl_models.parts.arguments.checked import told
from ppl_models.parts.arguments.kinds import Is

from ..naming import names

if TYPE_CHECKING:
    from torch import Tensor

    from ppl_models.data import Data, Table
    from ppl_models.inference import Evaluation, Probe

BACKENDS = ("pyro", "numpyro")


def is_device(found: Any) -> bool:
    """Whether something is a device of torch, or the name of one."""
    import torch  # which takes seconds to import: the help of a command asks for none of it

    try:
        return isinstance(found, str | torch.device) and torch.device(found) is not None
    except RuntimeError:
        return False


Device = Annotated[Any, Is("the name of a device, as 'cpu' or 'cuda:0'", is_device, error=ValueError)]
Pair = tuple[Any, Any]
Rows = Any  # a tensor of torch, or a tuple of several


class Backend(Protocol):
    """A language, a module of this folder. Programs and arrays are the language's, `Data` and `Tensor` are torch's."""

    packages: tuple[str, ...]  # a run writes their versions down

    def check(self, task: str, processes: int = 1) -> None:
        """Raise ValueError for a task that the language cannot do: "train" with processes, "information", "chain"."""

    def set_threads(self, threads: int) -> None:
        """Compute on so many CPU threads."""

    def threads(self) -> int:
        """The number of CPU threads that it computes on."""

    def build(self, config: Mapping[str, Any], rows: Rows, device: Device) -> tuple[Any, Any, Any]:
        """(model, guide, rows as its arrays on the device), untrained; the seed makes their first weights repeatable.

        Raises:
            ValueError: code that is not there, sizes that do not fit, a device that cannot be used.
        """

    def takes(self, config: Mapping[str, Any], rows: Rows, least: int) -> bool:
        """Whether a pair that is built on these rows runs on them, and on the first `least` of them; nothing is left.

        A plate of a fixed size takes one number of rows alone, and so does a guide with a parameter for each row.
        """

    def train(
        self, pair: Pair, data: Data | Table, device: Device, validation: Data | Table | None, **how: Any
    ) -> tuple[Any, Any, float]:
        """(model, guide, seconds) after `ppl_models.inference.fit`, in evaluation mode; `how` are its arguments."""

    def load(self, path: Path, pair: Pair, example: Any) -> Pair:
        """The pair with the weights of a checkpoint, which either language may have written."""

    def evaluate(self, pair: Pair, example: Any, data: Data | Table, **how: Any) -> Evaluation:
        """See `ppl_models.inference.evaluate`; on the device of the example."""

    def probe(self, pair: Pair, example: Any, train: Data | Table, test: Data | Table, **how: Any) -> Probe:
        """See `ppl_models.inference.probe`; on the device of the example."""

    def call(self, tool: str, example: Any, *args: Any, **how: Any) -> Any:
        """A function of the language's `inference` by its name, "encode" or "decode", on the device of the example."""

    def latents(self, model: Any, example: Any) -> list[str]:
        """The names of the latents of a model, in the order in which it draws them."""

    def rows(self, example: Any, x: Any) -> Any:
        """Rows of torch's, of NumPy's or its own as its array on the device of the example."""

    def sample(self, model: Any, example: Any, n: int, draws: bool) -> Tensor:
        """(n, D): draws of a model (or means of their distributions), whatever it observes, by torch's generator."""

    def reconstruct(self, pair: Pair, example: Any, x: Tensor) -> Tensor:
        """(n, D): the means of the data given latents that the guide draws for x."""


def columns(rows: Any) -> tuple[Any, ...]:
    """Rows as a program takes them: one array, or several of a model of several arguments."""
    return rows if isinstance(rows, tuple) else (rows,)


def given(data: Data | Table) -> Any:
    """Data as `fit` and `evaluate` take them."""
    from ppl_models.data import Table

    return data.columns if isinstance(data, Table) else data


def backend(name: str) -> Backend:
    """The language of this name, imported when it is asked for.

    Raises:
        ValueError: there is none of this name.
    """
    return importlib.import_module(f"{__name__}.{_known(name)}")


def backend_of(config: Mapping[str, Any]) -> str:
    """The name of a configuration's language; runs from before there was a choice are Pyro's.

    Raises:
        ValueError: there is none of this name.
    """
    return _known(config.get("backend", "pyro"))


def _known(name: str) -> str:
    if name not in BACKENDS:
        raise ValueError(f"found backend {told(name)}, want {' or '.join(BACKENDS)}")
    return name


def in_backend(config: Mapping[str, Any], name: str | None) -> dict[str, Any]:
    """The configuration with the same programs in another language; as it is for None or its own.

    Raises:
        ValueError: a language that there is not, or programs whose ports only their author knows.
    """
    if name is None or name == backend_of(config):
        return dict(config)
    backend(name)
    pair = {}
    for kind, chosen in names.programs_of(config).items():
        package, _, path = (string := chosen["import"]).partition(":")
        if package not in {names.package_of(kind, known) for known in BACKENDS}:
            raise ValueError(
                f"{kind} {string!r}: found a program of your own, want one of the collection, whose port in {name} is "
                f"known; try the backend that the run was trained with"
            )
        pair[kind] = {**chosen, "import": f"{names.package_of(kind, name)}:{path}"}
    return {**config, "backend": name, **pair}
