"""Structure arguments of models, checked: parents of sites, words of `LinearGaussian.gap`."""

from collections.abc import Mapping, Sequence
from typing import Literal

STRUCTURES = ("mean-field", "top-down", "bottom-up")
FAMILIES = ("full", "diagonal")
Criterion = Literal["elbo", "per-step"]


def parents_of(latents: tuple[str, ...], given: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """The parents of every site of a `LinearGaussian` in model order: the given ones, else those in the chain.

    Raises:
        ValueError: parents of no site, or that are unknown, later or repeated.

    >>> parents_of(("z1", "z2"), {"x": ("z1", "z2")})
    {'z1': (), 'z2': ('z1',), 'x': ('z1', 'z2')}
    """
    sites = (*latents, "x")
    for site in given:
        if site not in sites:
            raise ValueError(
                f"LinearGaussian: found parents of {site!r}, which is no site, want some of {', '.join(sites)}; rename "
                "the key of parents, or give latent another length"
            )
    parents = {}
    for place, site in enumerate(sites):
        earlier = latents[:place]
        names = given.get(site, earlier[-1:])
        want = f"want earlier latents ({', '.join(earlier) or 'there are none'}), each once"
        prefix = f"LinearGaussian: found parents of {site!r} {names!r}, {want}"
        if isinstance(names, str):
            raise ValueError(f"{prefix}; try a tuple, ({names!r},)")
        for name in names:
            if name not in earlier:
                raise ValueError(f"{prefix}; drop {name!r}, or number the latents in generation order")
        if len(set(names)) != len(names):
            raise ValueError(f"{prefix}; drop the repeats")
        parents[site] = tuple(names)
    return parents


def check_gap(structure: str, family: str) -> None:
    """Raise ValueError unless `LinearGaussian.gap` knows both words."""
    for name, found, words in (("structure", structure, STRUCTURES), ("family", family, FAMILIES)):
        if found not in words:
            raise ValueError(f"LinearGaussian.gap: found {name} {found!r}, want {' or '.join(map(repr, words))}")
