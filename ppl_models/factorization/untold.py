"""`certain`: the part of a verdict that holds whatever the arguments tell of which nothing is known."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from .probing.inspection import HIDDEN, Inspection
from .verdict import Row, Verdict


def certain(verdict: Verdict, inspection: Inspection, site_of: Callable[[str], str]) -> tuple[Verdict, tuple[str, ...]]:
    """A verdict without what may not be missing, and the doubts where all that is missing may not be.

    An argument that the model neither observes nor reads, and that repeats no data, may hold anything that is made of
    data: a factor that reads it may have from it the data that it lacks, but no latent.

    Args:
        verdict: on the copies of sites, or on their elements, by what is known.
        inspection: of the pair.
        site_of: the site of a row.
    """
    latents = {row.site for row in verdict.rows}
    fixed = {site for site, _ in inspection.fixed}
    rows: list[Row] = []
    unsure: dict[str, dict[str, None]] = {}
    for row in verdict.rows:
        site = site_of(row.site)
        if site in inspection.untold and site not in fixed:
            told = {u: path for u, path in row.missing.items() if u in latents}
            for name in inspection.untold[site]:
                unsure.setdefault(name, {}).update((site_of(u), None) for u in row.missing if u not in told)
            row = replace(row, missing=told, unsure=tuple(u for u in row.missing if u not in told))
        rows.append(row)
    faithful = not inspection.model.once and not any(row.missing for row in rows)
    minimal, perfect = faithful and verdict.minimal, faithful and verdict.perfect
    found = Verdict(tuple(rows), faithful, minimal, perfect)
    return found, tuple(
        f"the guide {_reads(name)}, of which the model observes nothing: whether it tells what {', '.join(lacking)} "
        "would cannot be known; pass the data as they are observed"
        for name, lacking in unsure.items()
        if faithful and lacking
    )


def remarks(inspection: Inspection) -> Iterator[str]:
    """Sentences on such arguments."""
    sites: dict[str, list[str]] = {}
    for site, names in inspection.untold.items():
        for name in names:
            sites.setdefault(name, []).append(site)
    for name, found in sites.items():
        if name != HIDDEN:
            yield f"the guide {_reads(name)} for {', '.join(found)}; the model neither observes nor reads it"


def _reads(name: str) -> str:
    """The statement that a guide reads an argument, the part of one that is no copy of data, or what cannot be seen."""
    if name == HIDDEN:
        return f"may read tensors or numbers {name} among the arguments"
    whole = name.removesuffix(" (not observed)")
    return f"reads the argument {whole!r}" + (" (a part of it)" if whole != name else "")
