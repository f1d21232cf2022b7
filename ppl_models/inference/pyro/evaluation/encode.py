"""`encode`: the means of a guide's latents, datum by datum, or draws; `probe`: what classifiers read off them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.arguments.kinds import AnyProgram, Count, Seed, Several
from ppl_models.programs.pairs import check_whole
from ppl_models.programs.plates import check_local

from ...evaluation.probes import Probe, check_latents, check_means, probed
from ..feeding.columns import Columns
from ..passes.checks import CHUNK
from ..passes.messengers import UntilDrawn
from ..passes.pair_info import first_look
from ..sampling.sampling import mean_of
from .densities import device_of, looking


@checked
def encode(
    model: AnyProgram,
    guide: AnyProgram,
    data: Any,
    *,
    particles: Count = 16,
    draws: bool = False,
    seed: Seed | None = 0,
) -> dict[str, Tensor]:
    """Posterior means of the latents by a guide, E_q[z_l | x_n], for each datum, layer by layer; or one draw of them.

    A factor that reads no other latent gives its own mean; below others the means of the factors are averaged over
    `particles` draws of these. A factor without a known mean, as of a flow, is averaged by its draws.

    Args:
        model, guide: any Pyro programs whose latents are in the plate of the data.
        data: rows, as for `evaluate`.
        particles: draws a datum, of which means are taken.
        draws: one draw of all latents, z ~ q(z | x_n), in place of their means.
        seed: of the draws, and of the noise of the data; the global generator is as before afterwards. None continues
            it.

    Returns:
        latent -> (n, *event), in the order in which the guide draws them.

    Raises:
        ValueError: a latent outside of the plate of the data, or whose mean is asked for and is none, as of numbered
            categories; what `evaluate` raises for data and pairs.

    >>> import pyro, pyro.distributions as dist
    >>> def model(x):
    ...     with pyro.plate("data", len(x)):
    ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
    ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
    >>> def guide(x):
    ...     with pyro.plate("data", len(x)):
    ...         pyro.sample("z", dist.Normal(x / 2, 0.5**0.5))
    >>> encode(model, guide, torch.tensor([1.0, -3.0]))
    {'z': tensor([ 0.5000, -1.5000])}
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

    Two classifiers, of standardized means: logistic regression, and a support vector machine with Gaussian kernels
    (`sklearn.linear_model.LogisticRegression`, `sklearn.svm.SVC`, with their defaults).

    Args:
        model, guide: see `encode`.
        train, test: data with labels (those of `ppl_models.data.load`), or pairs (rows, labels), where rows
            of several arguments are a tuple or a dict, ((x, c), labels). Labels are integers or words.
        labels: how many rows of `train` are labelled, in the shares of the classes.
        draws: how often these rows are drawn anew.
        particles: see `encode`.
        seed: of everything that is drawn.

    Raises:
        ValueError: data without labels, or with those of one class; fewer labels than classes or as many as rows; what
            `encode` raises.

    Source: Zhao, Song, Ermon 2017 (arXiv 1702.08658), section 5, for the question whether codes are informative.
    """

    def encoder(rows: Any) -> Callable[[Any], dict[str, np.ndarray]]:
        of = Encoder(model, guide, rows, particles, "probe")
        return lambda index: {name: value.cpu().numpy() for name, value in of.codes(index, seed).items()}

    return probed(encoder, train, test, np.atleast_1d(labels).tolist(), draws, seed)


class Encoder:
    """Posterior means of rows of data, or draws; `asks` is the function that messages name."""

    def __init__(self, model: Any, guide: Any, data: Any, particles: int, asks: str) -> None:
        self.data, self.particles = Columns(data, f"{asks}: data", model, guide), particles
        self.model, self.guide, self.device, self.asks = model, guide, device_of(model, guide), asks
        with looking(model, guide, 0, *self.data.places):
            info, _ = first_look(asks, model, guide, lambda k: self._rows(slice(0, k)), self.data.size, CHUNK)
        check_whole(asks, info.pair.model)
        latents, self.latents = info.pair.model.latents, info.pair.guide.latents
        check_latents(asks, latents)
        check_local(asks, latents.values(), info.pair.data, "a global latent is no code of a datum")
        self.dims = {name: info.pair.data.dim - site.event_dim for name, site in latents.items()}

    def _rows(self, index: Any) -> tuple[Any, ...]:
        return self.data.rows(index, self.device)

    def codes(self, index: np.ndarray | slice, seed: int | None, draws: bool = False) -> dict[str, Tensor]:
        """Latent -> (n, *event) of the rows with these indices."""
        return self._each(index, seed, True)[0] if draws else self.means(index, seed)[0]

    def means(self, index: np.ndarray | slice, seed: int | None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Latent -> means of the rows with these indices, (n, *event), and the variance of each over particles."""
        found, errors = self._each(index, seed, False)
        check_means(self.asks, self.latents, {name: value.cpu().numpy() for name, value in found.items()})
        return found, errors

    def _each(self, index: np.ndarray | slice, seed: int | None, draws: bool) -> list[dict[str, Tensor]]:
        places, parts = torch.arange(self.data.size)[index], []
        with looking(self.model, self.guide, seed, *self.data.places):
            for some in places.split(CHUNK):
                parts.append((self._draws if draws else self._means)(self._rows(some)))
        kinds = [*zip(*parts, strict=True)]
        return [{name: torch.cat([part[name] for part in each]) for name in each[0]} for each in kinds]

    def _draws(self, rows: tuple[Any, ...]) -> tuple[dict[str, Tensor], ...]:
        nodes = UntilDrawn(self.dims).run(self.guide, rows)
        return ({name: node["value"].movedim(self.dims[name], 0) for name, node in nodes.items()},)

    def _means(self, rows: tuple[Any, ...]) -> tuple[dict[str, Tensor], ...]:
        found: dict[str, list[Tensor]] = {name: [] for name in self.dims}
        while len(next(iter(found.values()))) < self.particles:
            nodes = UntilDrawn(self.dims).run(self.guide, rows)
            means = {name: mean_of(node) for name, node in nodes.items()}
            for name, mean in means.items():
                found[name].append(mean.expand_as(nodes[name]["value"]).movedim(self.dims[name], 0))
            if len(nodes) == 1 and all(means[name] is not node["value"] for name, node in nodes.items()):
                break  # nothing random is in it
        values = {name: torch.stack(found[name]) for name in nodes}
        spread = {name: each.var(0, correction=min(1, len(each) - 1)) / len(each) for name, each in values.items()}
        return {name: each.mean(0) for name, each in values.items()}, spread
