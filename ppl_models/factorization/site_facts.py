"""`site_facts`: distributions, shapes and plates of the sites of a pair, for whoever reads a report."""

from collections.abc import Mapping

from .probing.inspection import Inspection
from .report.report import SiteFacts

SHOWN = "latent", "observed", "factor", "deterministic", "covariate"  # kinds of sites
COMPUTED = "Delta", ""  # families of a guide's site whose value is made of others, an automatic guide's among them


def site_facts(inspection: Inspection) -> Mapping[str, SiteFacts]:
    """The facts of each site of the model, and of the covariates."""
    facts = {}
    for name, record in inspection.base.of(*SHOWN).items():
        drawn = inspection.guide.base.get(name) if name in inspection.sampled else None
        family = "" if drawn is None else "computed" if drawn.site.family in COMPUTED else drawn.site.family
        plates = tuple(plate.name for plate in record.site.plates)
        facts[name] = SiteFacts(record.site.family, family, record.site.event_shape, plates)
    return facts
