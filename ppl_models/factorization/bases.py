"""`shared_bases`: the latents z = f(e) whose entries are also looked at as those of e; `base_value` is e."""

import numpy as np

from ppl_models.programs.laboratory import SiteRecord

from .probing.inspection import Inspection


def base_value(record: SiteRecord) -> np.ndarray:
    """What the value of a site was made of: itself where no transform couples its entries."""
    return record.value if record.base is None else record.base()


def shared_bases(inspection: Inspection) -> tuple[str, ...]:
    """The latents whose priors push a base through transforms that couple entries, known when the guide draws them."""
    model, base, found = inspection.model, inspection.base, []
    before: set[str] = set()
    for name in inspection.latents:
        parents = {u[0] for node in base[name].nodes for u in model.probed.parents.get(node, ())} & {*model.latents}
        if base[name].base is not None and parents <= before and _has_entries(base[name]):
            found.append(name)
        before.add(name)
    return tuple(found)


def _has_entries(record: SiteRecord) -> bool:
    """Whether a base has as many entries as the value, and can be found from it."""
    try:
        return base_value(record).shape == record.value.shape
    except (KeyError, NotImplementedError, RuntimeError):  # a flow that cannot be inverted
        return False
