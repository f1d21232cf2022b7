"""`check_values`: look at rows before the work starts, `as_they_come` the others; a check of a loss of NumPyro's."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro import handlers
from numpyro.infer.elbo import ELBO

from ppl_models.numpyro.data import Rows
from ppl_models.parts.checks import check_inside, check_spread
from ppl_models.programs.numpyro import Trace, frame_of, layers, nodes_of, support_of
from ppl_models.programs.pairs import Pair
from ppl_models.programs.rows import AsTheyCome, starts
from ppl_models.programs.state.jax import tidied

from ...config import check_instance
from ...objectives.states import refuse_trial
from ..feeding.batches import drawn
from .expectation import Expectation, broadcasts
from .rounding import rounded
from .terms import collect, traces

CHUNK, MOST = 1000, 50_000  # rows of a run, and rows that are looked at before the work


def check_loss(loss: Any) -> None:
    """Raise TypeError unless `loss` is one of NumPyro's objectives."""
    working = "Trace_ELBO, TraceMeanField_ELBO and TraceGraph_ELBO work"
    other = "that is one of Pyro's; " if hasattr(loss, "differentiable_loss") else ""
    check_instance(loss, ELBO, "NumPyro", other + working)


def check_states(
    asks: str, model: Callable, guide: Callable, args: Sequence[Any], params: Mapping[str, Any], pair: Pair
) -> None:
    """Raise ValueError for programs that are not right when all states which the guide enumerates are side by side."""
    key = jax.random.key(0)

    def density(of_model: Trace, of_guide: Trace, expectation: Expectation) -> dict[str, Array]:
        found = collect(of_model, of_guide, False, pair.plate, expectation)
        return {f"{k} {n}": v for k in ("log_likelihood", "log_p", "log_q") for n, v in getattr(found, k).items()}

    alone = traces(model, guide, args, key=key, params=params)[:2]
    reason = broadcasts(
        alone, lambda held: traces(model, guide, args, key=key, params=params, held=held, states=True)[:2], density
    )
    if reason is not None:
        refuse_trial(asks, pair.enumerated, reason)


def check_values(look: "Look", size: int) -> None:
    """Look at rows once, so that a wrong value speaks up before the first step: at every row, or of many at `MOST`.

    The model alone runs on chunks of rows with latents of its prior, and what it observes is held against the support
    of its distribution, unless that was made with `validate_args=False`. Where that finds a value, or the model cannot
    be run so (one of a fixed size, one that subsamples), the pair runs on batches of the work to come, and what it
    finds is the answer.

    Args:
        look: at the pair and the data; of many rows, at chunks from the first to the last.
        size: rows of a batch of the work to come.

    Raises:
        ValueError: a value outside the support of its distribution; few levels, for a density of real numbers.
    """
    n = len(look.columns[0])
    if getattr(look.model, "of_reals", False):  # which it cannot see itself, compiled
        rows = drawn(look.columns, [column.values[:CHUNK] for column in look.columns], look.key)[0]
        values = np.asarray(rows).reshape(-1)
        check_spread(values, np.unique, "x")
        if (bound := getattr(look.model, "bound", None)) is not None:  # of splines
            check_inside(values, bound)
    chunks = (np.arange(i, min(i + CHUNK, n)) for i in starts(n, CHUNK, MOST))
    # no rest of another size
    look(chunks, lambda: (max(min(i, n - size), 0) + np.arange(min(size, n)) for i in starts(n, size, MOST)))


def as_they_come(look: "Look", batches: int) -> AsTheyCome:
    """A look at the rows that `check_values` left out, as `check_values` has it, when they come to be used.

    It is given the indices of the rows of each batch.

    Args:
        look: at the pair and the data.
        batches: after how many batches each row has come once.
    """

    def together(held: list[Sequence[np.ndarray]]) -> None:
        rows = [batch[0] for batch in held]
        whole = np.concatenate(rows)
        chunks = [whole[i : i + CHUNK] for i in range(0, len(whole), CHUNK)]
        look([np.pad(each, (0, CHUNK - len(each)), "edge") for each in chunks], lambda: rows)  # of one shape

    return AsTheyCome(together, CHUNK, batches if len(look.columns[0]) > MOST else 0)


class Look:
    """Runs programs on rows by their indices, compiled once for each number of rows; see `check_values`.

    Args:
        name: what an error starts with, "fit".
        model, guide: the pair.
        columns: the data.
        params: of the pair.
        plate: name of the data plate, "" where there is none.
    """

    def __init__(
        self,
        name: str,
        model: Callable,
        guide: Callable,
        columns: Sequence[Rows],
        params: Mapping[str, Any],
        plate: str,
    ) -> None:
        self.name, self.model, self.guide, self.columns, self.params = name, model, guide, columns, params
        self.plate, self.key = plate, jax.random.key(0)
        self.told: dict[str, str] = {}
        self._alone, self._together = (jax.jit(partial(self._inside, run)) for run in (self._prior, self._pair))

    def __call__(self, chunks: Iterable[np.ndarray], batches: Callable[[], Iterable[np.ndarray]]) -> None:
        """Raise ValueError for a value that its distribution does not take."""
        with tidied(self.model, self.guide), rounded():
            try:
                if self._first(self._alone, chunks) is None:
                    return
            except Exception:  # noqa: BLE001 (what it means, the pair will tell)
                pass
            found = self._first(self._together, batches())
        if found is not None:
            site, row = found
            raise ValueError(
                f"{self.name}: the site {site!r} observes values outside the support of its distribution, "
                f"{self.told[site]} (first in row {row}); look at the data and their transform, or choose another "
                "likelihood"
            )

    def _first(self, inside: Callable, chunks: Iterable[np.ndarray]) -> tuple[str, int] | None:
        """The first observed site and row with a value that its distribution does not take."""
        for rows in chunks:
            found = inside(self.params, [column.values[rows] for column in self.columns])
            for site, good in found.items():
                if not good.all():
                    return site, int(rows[np.flatnonzero(~np.asarray(good))[0]])
        return None

    def _inside(self, run: Callable, params: Mapping[str, Any], values: Sequence[Array]) -> dict[str, Array]:
        trace = run(params, drawn(self.columns, values, self.key))
        supports = {n: support_of(node["fn"], node["value"]) for n, node in nodes_of(trace, "observed").items()}
        self.told.update({name: str(support) for name, support in supports.items()})
        return _inside(trace, self.plate)

    def _prior(self, params: Mapping[str, Any], args: Sequence[Any]) -> Trace:
        with handlers.trace() as trace, handlers.seed(rng_seed=self.key), handlers.substitute(data=dict(params)):
            self.model(*args)
        return trace

    def _pair(self, params: Mapping[str, Any], args: Sequence[Any]) -> Trace:
        return traces(self.model, self.guide, args, key=self.key, params=params)[0]


def _inside(trace: Trace, plate: str) -> dict[str, Array]:
    """Observed site -> whether its values are in the support, (n,); (1,) where it has no row for each datum."""
    found = {}
    for name, site in nodes_of(trace, "observed").items():
        if vars(layers(site["fn"]).base).get("_validate_args") is False:
            continue
        good, frame = jnp.asarray(support_of(site["fn"], site["value"])(site["value"])), frame_of(site, plate, trace)
        if frame is None or frame.size != frame.full_size:
            found[name] = good.all()[None]
        else:
            dim = frame.dim
            good = good.reshape((1,) * (-dim - good.ndim) + good.shape)
            found[name] = good.all([d for d in range(good.ndim) if d != good.ndim + dim])
    return found
