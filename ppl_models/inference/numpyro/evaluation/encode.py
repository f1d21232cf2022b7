"""`encode`: the means of a guide's latents, datum by datum, or draws; `probe`: what classifiers read off them."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random

from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.arguments.kinds import AnyProgram, Count, Seed, Several
from ppl_models.programs.pairs import INSTEAD_OF_PORT, check_whole
from ppl_models.programs.plates import check_local
from ppl_models.programs.state.jax import tidied

from ...evaluation.probes import Probe, check_latents, check_means, probed
from ..engine.parameters import find
from ..feeding.batches import columns_of, drawn
from ..passes.checks import CHUNK
from ..passes.terms import traces


@checked
def encode(
    model: AnyProgram,
    guide: AnyProgram,
    data: Any,
    *,
    particles: Count = 16,
    draws: bool = False,
    seed: Seed | None = 0,
) -> dict[str, Array]:
    """Posterior means of the latents by a guide, E_q[z_l | x_n], for each datum, layer by layer; or one draw of them.

    See `ppl_models.inference.encode`, whose arguments these are.

    Raises:
        ValueError: a latent outside of the plate of the data, or whose mean is asked for and is none, as of numbered
            categories; what `evaluate` raises for data and pairs.

    >>> import numpyro, numpyro.distributions as dist
    >>> def model(x):
    ...     with numpyro.plate("data", len(x)):
    ...         z = numpyro.sample("z", dist.Normal(0.0, 1.0))
    ...         numpyro.sample("x", dist.Normal(z, 1.0), obs=x)
    >>> def guide(x):
    ...     with numpyro.plate("data", len(x)):
    ...         numpyro.sample("z", dist.Normal(x / 2, 0.5**0.5))
    >>> print(encode(model, guide, np.array([1.0, -3.0]))["z"])
    [ 0.5 -1.5]
    """
    return Encoder(model, guide, data, particles, "encode").codes(slice(None), seed, draws)


@checked
def probe(
    model: AnyProgram,
    guide: AnyProgram,
    train: Any,
    test: Any,
    *,
    labels: Several = (100, 1000),
    draws: Count = 5,
    particles: Count = 16,
    seed: Seed = 0,
) -> Probe:
    """Accuracy of classifiers that know a few labels, on the posterior means of all latents.

    See `ppl_models.inference.probe`, whose arguments and classifiers these are.

    Raises:
        ValueError: data without labels, or with those of one class; fewer labels than classes or as many as rows; what
            `encode` raises.
    """

    def encoder(rows: Any) -> Callable[[Any], dict[str, np.ndarray]]:
        of = Encoder(model, guide, rows, particles, "probe")
        return lambda index: {name: np.asarray(value) for name, value in of.codes(index, seed).items()}

    return probed(encoder, train, test, np.atleast_1d(labels).tolist(), draws, seed)


class Encoder:
    """Posterior means of rows of data, or draws; `asks` is the function that messages name."""

    def __init__(self, model: Any, guide: Any, data: Any, particles: int, asks: str) -> None:
        self.model, self.guide, self.particles, self.asks = model, guide, particles, asks
        self.columns = columns_of(data, f"{asks}: data", model)
        key = random.key(0)
        free, parameters, pair = find(model, guide, self._rows(np.arange(min(self.size, CHUNK)), key), key, asks)
        pair.check(asks, model, language="numpyro")
        check_whole(asks, pair.model, INSTEAD_OF_PORT)
        latents, self.latents = pair.model.latents, pair.guide.latents
        check_latents(asks, latents)
        check_local(asks, latents.values(), pair.data, "a global latent is no code of a datum")
        self.params = parameters.constrained(free)
        self.dims = {name: pair.data.dim - site.event_dim for name, site in latents.items()}
        self.run = jax.jit(self._codes, static_argnums=2)

    @property
    def size(self) -> int:
        return len(self.columns[0])

    def _rows(self, index: np.ndarray, key: Array) -> tuple[Array, ...]:
        return drawn(self.columns, [column.values[index] for column in self.columns], key)

    def codes(self, index: np.ndarray | slice, seed: int | None, draws: bool = False) -> dict[str, Array]:
        """Latent -> (n, *event) of the rows with these indices."""
        return self._each(index, seed, True)[0] if draws else self.means(index, seed)[0]

    def means(self, index: np.ndarray | slice, seed: int | None) -> tuple[dict[str, Array], dict[str, Array]]:
        """Latent -> means of the rows with these indices, (n, *event), and the variance of each over particles."""
        found, errors = self._each(index, seed, False)
        check_means(self.asks, self.latents, found)
        return found, errors

    def _each(self, index: np.ndarray | slice, seed: int | None, draws: bool) -> list[dict[str, Array]]:
        key = random.key(int(np.random.default_rng().integers(2**31)) if seed is None else seed)
        places, parts = np.arange(self.size)[index], []
        with tidied(self.model, self.guide):
            for i in range(0, len(places), CHUNK):
                of_data, of_pass = random.split(random.fold_in(key, i))
                parts.append(self.run(self._rows(places[i : i + CHUNK], of_data), of_pass, draws))
        kinds = [*zip(*parts, strict=True)]
        return [{name: jnp.concatenate([part[name] for part in each]) for name in self.dims} for each in kinds]

    def _codes(self, rows: Sequence[Array], key: Array, draws: bool) -> tuple[dict[str, Array], ...]:
        sampled: set[str] = set()  # latents whose factors have no known mean

        def once(key: Array) -> dict[str, Array]:
            _, found, _ = traces(self.model, self.guide, rows, key=key, params=self.params)
            drawn = {name: node for name, node in found.items() if name in self.dims}
            means = {name: node["value"] if draws else _mean(node) for name, node in drawn.items()}
            sampled.update(name for name, mean in means.items() if mean is found[name]["value"])
            return {name: jnp.moveaxis(mean, self.dims[name], 0) for name, mean in means.items()}

        if draws:
            return (once(key),)
        jax.eval_shape(once, key)  # which tells whether anything random is in it
        particles = 1 if len(self.dims) == 1 and not sampled else self.particles
        # one pass after the other: particles side by side would take their memory
        means = jax.lax.map(once, random.split(key, particles))
        spread = {name: value.var(0, ddof=min(1, particles - 1)) / particles for name, value in means.items()}
        return {name: value.mean(0) for name, value in means.items()}, spread


def _mean(node: dict[str, Any]) -> Array:
    """The mean of a site's distribution, or its draw where that is not known."""
    try:
        return jnp.broadcast_to(node["fn"].mean, jnp.shape(node["value"]))
    except NotImplementedError:
        return node["value"]
