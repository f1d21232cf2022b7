"""Draws of data: from the prior downwards, and by the chain that goes from data to codes and back."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Annotated, Any

import torch
from pyro import poutine
from pyro.poutine import Trace
from torch import Tensor

from ppl_models.parts.arguments.checked import check, checked
from ppl_models.parts.arguments.kinds import Count, Is, Seed
from ppl_models.programs import pyro as programs
from ppl_models.programs.arguments import takes
from ppl_models.programs.pairs import NO_DATA, check_sites, refuse_undrawn
from ppl_models.programs.plates import check_local
from ppl_models.programs.pyro import Drawable, is_point, unwrapped

from ...evaluation.generated import check_codes, rows_from
from ..evaluation.densities import device_of, looking
from ..passes.messengers import Substitute, UntilDrawn
from ..passes.pair_info import pair_info
from ..passes.terms import units_of

ROWS = Is("a tensor of rows", lambda x: isinstance(x, Tensor) and x.dim() > 0 and x.layout is torch.strided)
Rows = Annotated[Tensor, ROWS]
OfOne = Annotated[Callable[..., Any], Is("a program of one argument", partial(takes, 1))]


@checked
def ancestral(model: OfOne, x: Rows, *, draws: bool = True, seed: Seed | None = 0) -> Tensor:
    """Rows drawn from a model, from its prior to its data: one for each row of x.

    Args:
        model: any Pyro program of one argument.
        x: rows (n, *event), of which number and shape are read, and nothing else where the model reads data only to
            observe them.
        draws: values of the data; False: the means of their distributions, where those have one (of images drawn pixel
            by pixel there is none).
        seed: the global generator is as before afterwards; None continues it.

    Returns:
        (n, *event).

    Raises:
        ValueError: observed sites that do not make rows.
    """
    with looking(model, model, seed, x):
        return _generated(model, x, {}, draws)


@checked
def decode(model: OfOne, codes: Mapping[str, Tensor], x: Rows, *, draws: bool = False, seed: Seed | None = 0) -> Tensor:
    """Means of a model's data given its latents, one row for each code.

    Args:
        model: any Pyro program of one argument.
        codes: latent -> values, (n, *event), as of `encode`; latents without are drawn.
        x: rows of which width and type are read.
        draws: values in place of means, as of distributions that have no mean.
        seed: the global generator is as before afterwards; None continues it.

    Returns:
        (n, *event).

    Raises:
        ValueError: no codes, codes of what the model does not draw, or of another shape.
    """
    if not codes:
        raise ValueError("decode: found no codes, want those of one latent at least, {'z1': z}")
    codes = {name: check("decode", f"codes[{name!r}]", code, ROWS) for name, code in codes.items()}
    n = len(next(iter(codes.values())))
    like = x[torch.arange(n, device=x.device) % len(x)]
    with looking(model, model, seed, x):
        check_codes(
            "decode", codes, n, {k: site.event_shape for k, site in programs.run(model, (like,)).latents.items()}
        )
        return _generated(model, like, codes, draws)


@dataclass(frozen=True)
class Chain:
    """Many chains side by side.

    Attributes:
        states: (kept + 1, chains, *event), the first one as given.
        codes: latent -> (kept, chains, units), of which each later state was drawn.
        every: transitions from one kept state to the next.
    """

    states: Tensor
    codes: dict[str, Tensor]
    every: int = 1


@checked
def markov_chain(
    model: OfOne,
    guide: OfOne,
    x: Rows,
    steps: Count = 100,
    *,
    every: Count = 1,
    seed: Seed | None = 0,
) -> Chain:
    """Walk from data to codes and back, all rows of x at once.

        x_k  ->  z_k ~ q(z | x_k)  ->  x_{k+1} ~ p(x | z_k)

    The code is drawn once a transition, and the data in full. If p(x | z) = q(x | z), the distribution of the data is
    stationary whatever q(z) is, so that a model trained without a regularizer can be sampled so, where `ancestral`
    draws codes that no datum has. It reaches that distribution, from anywhere, only if the chain mixes
    (`views.mixing`), which a code that tells all data apart forbids.

    Args:
        model, guide: any Pyro programs of one argument.
        x: (chains, *event), where to begin: data, or noise, which need not be in the support of the data.
        steps: transitions.
        every: keep each so many-th state.
        seed: the global generator is as before afterwards; None continues it.

    Raises:
        ValueError: steps or every that are no integers of at least 1, or leave no state to keep; a latent outside the
            plate of the data; observed sites that do not make rows; a model that observes nothing.

    Source: Zhao, Song, Ermon 2017 (arXiv 1702.08658), section 4; Creswell et al. 2016 (arXiv 1610.09296).
    """
    if every > steps:
        raise ValueError(f"markov_chain: found steps={steps}, every={every}, want integers, 1 <= every <= steps")
    device = device_of(model, guide)
    x = x if device is None else x.to(device)
    states, codes = [x], []
    with looking(model, guide, seed, x):  # without validation: a chain may begin where there are no data
        pair = pair_info("markov_chain", model, guide, (x,), paired=False).pair
        names, plate = [*pair.model.latents], pair.data
        why = "of what all of them share the chains side by side would draw one value together"
        check_sites(names, [name for name in names if name in pair.guide.latents])
        check_local("markov_chain", pair.model.latents.values(), plate, why)
        for step in range(1, steps + 1):
            nodes = UntilDrawn(names).run(guide, (x,))
            x = _generated(model, x, {name: node["value"] for name, node in nodes.items()}, draws=True)
            if step % every == 0:
                states.append(x)
                codes.append({name: units_of(node, plate.dim, None)[0] for name, node in nodes.items()})
    return Chain(torch.stack(states), {name: torch.stack([c[name] for c in codes]) for name in names}, every)


def _generated(model: Callable, x: Tensor, values: Mapping[str, Tensor], draws: bool) -> Tensor:
    """Rows of the shape of x that a model draws with its latents at values: all that it observes is drawn."""
    with poutine.block(), Drawable(*NO_DATA), poutine.trace() as capture, Substitute(dict(values)):
        poutine.uncondition(model)(x)
    parts = parts_of(capture.trace, len(x), draws, "was_observed")
    return rows_from(parts, prod(x.shape[1:]), getattr(model, "join", None)).reshape(x.shape)


def parts_of(trace: Trace, n: int, draws: bool, kind: str = "is_observed") -> dict[str, Tensor]:
    """Those of the data's sites that have a row for each of n data: their values, or the means of their distributions.

    Args:
        trace: of a model.
        kind: "is_observed", or "was_observed" in a model without its conditions.
    """
    parts: dict[str, Tensor] = {}
    for name, node in trace.nodes.items():
        if node["type"] != "sample" or not (node.get(kind) or node["infer"].get(kind)) or is_point(node["fn"]):
            continue
        if node["value"].numel() and node["value"].dim() and len(node["value"]) == n:
            value = node["value"] if draws else mean_of(node)
            parts[name] = value.expand(node["value"].shape).reshape(n, -1)
    return parts


def mean_of(node: Mapping[str, Any]) -> Tensor:
    """The mean of a site's distribution, or a draw where it has none."""
    fn = node["fn"]
    try:
        return fn.mean
    except NotImplementedError:
        if not node["is_observed"]:
            return node["value"]
    try:
        return fn()
    except NotImplementedError as error:
        refuse_undrawn("data given latents", node["name"], type(unwrapped(fn)).__name__, error, "give it a mean")
