"""Encoder-implied posterior over data, q(x | z) proportional to q(z | x) p(x): its mean and variance for each z."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.arguments.kinds import AnyProgram, Seed

from ..feeding.columns import Columns
from .densities import Densities, device_of, looking


@dataclass(frozen=True)
class Reversal:
    """Moments of q(x | z_k) = q(z_k | x) p_data(x) / q(z_k) over a set of data.

    Attributes:
        mean: (k, D), E[x | z_k], the best mean of a decoder with independent Gaussian or Bernoulli pixels; NaN for a
            code that no datum has.
        variance: (k, D), Var[x | z_k]; its sum over D is the least squared error of any decoder at z_k.
        log_q: (k,), log q(z_k) = log 1/n sum_j q(z_k | x_j), in nats.
        effective: (k,), 1 / sum_j w_j^2: how many data share the code.
    """

    mean: Tensor
    variance: Tensor
    log_q: Tensor
    effective: Tensor


@checked
def reversal(
    model: AnyProgram, guide: AnyProgram, data: Any, codes: Tensor | Mapping[str, Tensor], *, seed: Seed | None = 0
) -> Reversal:
    """Read the encoder backwards: which data does it send to a code, and how far are they apart.

        E[x | z] = sum_j w_j x_j,   Var[x | z] = sum_j w_j (x_j - E[x | z])^2,   w_j = q(z | x_j) / sum_i q(z | x_i)

    A decoder with independent pixels can do no better than E[x | z], an average of the data that share the code, and
    its squared error is then E_q(z) sum_i Var[x_i | z]: samples are blurred where a code is shared by unlike data, and
    only a more informative code sharpens them.

    Args:
        model, guide: any Pyro programs whose latents are in the plate of the data.
        data: rows (n, D), as for `evaluate`; a transform's noise is drawn once.
        codes: (k, *event) of the only latent, or latent -> (k, *event).
        seed: of a transform; the global generator is as before afterwards.

    Raises:
        ValueError: codes of other latents or of another shape; see `Densities`.

    Source: derived from Zhao, Song, Ermon 2017 (arXiv 1702.08658), figure 2, and proposition 4 (numbering ours).
    """
    data = Columns(data, "reversal: data", model, guide)
    with looking(model, guide, seed, *data.places):
        device = device_of(model, guide)
        batch = data.rows(slice(0, data.size), device)
        table = Densities(model, guide, batch, "reversal")
        given = codes if isinstance(codes, Mapping) else dict.fromkeys(table.names[:1], codes)
        if set(given) != set(table.names):
            raise ValueError(
                f"reversal: found codes of {', '.join(given)}, want those of {', '.join(table.names)}, each (k, *event)"
            )
        for name, code in given.items():
            if tuple(code.shape[1:]) != table.shapes[name] or not len(code):
                want = ", ".join(map(str, ("k", *table.shapes[name])))
                raise ValueError(f"reversal: found codes of {name!r} of shape {tuple(code.shape)}, want ({want})")
        given = {name: code if device is None else code.to(device) for name, code in given.items()}
        x, count = batch[0].reshape(len(table), -1), len(next(iter(given.values())))
        x = x if x.is_floating_point() else x.to(torch.get_default_dtype())
        top = x.new_full((count,), float("-inf"))  # the largest log q so far, to which all sums are relative
        total, squares = x.new_zeros(count), x.new_zeros(count)
        first, second = (x.new_zeros(count, x.shape[1]) for _ in range(2))
        center = x.mean(0)  # moments about the mean of all data: their difference does not cancel
        for i, j, log_q in table.blocks(given):
            log_q = log_q.to(x.dtype)
            higher = torch.maximum(top[i], log_q.max(1).values)
            level = higher.masked_fill(higher == float("-inf"), 0.0)  # no datum so far has this code at all
            shrink, w = (top[i] - level).exp(), (log_q - level[:, None]).exp()
            total[i] = total[i] * shrink + w.sum(1)
            squares[i] = squares[i] * shrink.square() + w.square().sum(1)
            part = x[j] - center
            first[i] = first[i] * shrink[:, None] + w @ part
            second[i] = second[i] * shrink[:, None] + w @ part.square()
            top[i] = higher
        mean = first / total[:, None]
        variance = (second / total[:, None] - mean.square()).clamp(min=0)
        log_q = top + total.log() - torch.tensor(float(len(x))).log().to(top)
        return Reversal(mean + center, variance, log_q, total.square() / squares)
