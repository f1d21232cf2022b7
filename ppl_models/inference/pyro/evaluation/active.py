"""`active_units`: the units of a guide's latents that tell of the data."""

from typing import Annotated, Any

import torch

from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.arguments.kinds import AnyProgram, Number, Seed

from ...evaluation.active import NO_UNITS, ActiveUnits, counted_units
from ...objectives.terms import NoUnits
from ..feeding.columns import Columns
from ..passes.checks import CHUNK
from ..passes.terms import terms
from .densities import device_of, looking
from .encode import Encoder


@checked
def active_units(
    model: AnyProgram,
    guide: AnyProgram,
    data: Any,
    *,
    threshold: Annotated[float, Number(above=0)] = 0.01,
    particles: Annotated[int, Number(whole=True, least=2)] = 16,
    seed: Seed | None = 0,
) -> ActiveUnits:
    """Count the units of each latent that are in use, by two measures.

        Var_x(E_q[z_u | x]) > threshold,      E_x KL(q(z_u | x) || p(z_u)) > threshold

    E_q[z_u | x] averages over the latents above, by `particles` draws. The variance that these draws add to that of the
    means is estimated and subtracted, so that a unit which ignores the data has none in the mean. The second measure is
    left out where a factor or a prior is no product over units.

    Args:
        model, guide: any Pyro programs whose latents are in the plate of the data.
        data: rows, as for `evaluate`.
        threshold: what is above it is active.
        particles: draws of the latents above a latent, for its mean (see `encode`); where they are too few for the
            threshold, a note says so.
        seed: of the draws; the global generator is as before afterwards. None continues it.

    Raises:
        ValueError: what `encode` raises.

    Source: Burda et al. 2016 (arXiv 1509.00519), section 5.2, for the first.

    >>> import pyro, pyro.distributions as dist
    >>> def model(x):
    ...     with pyro.plate("data", len(x)):
    ...         z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    ...         pyro.sample("x", dist.Normal(z[..., 0], 1.0), obs=x)
    >>> def guide(x):
    ...     loc = torch.stack([x / 2, torch.zeros_like(x)], -1)
    ...     with pyro.plate("data", len(x)):
    ...         pyro.sample("z", dist.Normal(loc, torch.tensor([0.5**0.5, 1.0])).to_event(1))
    >>> print(active_units(model, guide, torch.tensor([1.0, -3.0, 0.5])))
    active units: variance of the mean over 3 data, or divergence, above 0.01
    z         1 of 2, by KL 1
    """
    means, errors = Encoder(model, guide, data, particles, "active_units").means(slice(None), seed)
    columns, device = Columns(data, "active_units: data", model, guide), device_of(model, guide)
    kl, notes = {}, ()
    try:
        with looking(model, guide, seed, *columns.places):
            for index in torch.arange(columns.size).split(CHUNK):
                for name, units in terms(model, guide, columns.rows(index, device)).kl_units.items():
                    kl[name] = kl.get(name, 0.0) + units.double().mean(0).sum(0).cpu().numpy() / columns.size
    except NoUnits:
        kl, notes = {}, (NO_UNITS,)
    means, errors = ({name: value.cpu().numpy() for name, value in each.items()} for each in (means, errors))
    return counted_units(means, errors, kl, threshold, notes)
