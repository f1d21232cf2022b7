"""`to_arviz`: draws of any (model, guide) pair as an ArviZ object, of ArviZ 0.x and of 1.x."""

from collections.abc import Callable, Collection, Mapping, Sequence, Set
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import numpy as np

from ppl_models.inference.diagnostics import psis, threshold
from ppl_models.parts.arguments.checked import checked, told
from ppl_models.parts.arguments.kinds import AnyGuide, AnyProgram, Count, Is, Seed
from ppl_models.programs.arguments import spread
from ppl_models.programs.laboratory import choose

from .draws import SAMPLED, Arrays, Draws

SAMPLES = ("chain", "draw")
POINTWISE = "pointwise"


GROUPS = Is("a word or several", lambda found: isinstance(found, str) or _words(found), error=ValueError)


@checked
def to_arviz(
    model: AnyProgram,
    guide: AnyGuide,
    x: Any,
    draws: Count = 1000,
    *,
    chains: Count = 1,
    params: Mapping[str, Any] | None = None,
    importance: Literal["psis"] | None = None,
    groups: Annotated[str | Collection[str], GROUPS] = SAMPLED,
    dims: Mapping[str, Sequence[str]] | None = None,
    coords: Mapping[str, Sequence[Any]] | None = None,
    rows: Count = 20_000,
    seed: Seed | None = 0,
) -> Any:
    """Draw from a pair, and name every dim of what is drawn: `az.plot_forest(to_arviz(model, guide, x))`.

        posterior             z_s ~ q(z | x), and what the model computes from it by name
        posterior_predictive  x_s ~ p(x | z_s)
        log_likelihood        log p(x_n | z_s) of each observed site; "pointwise" is their sum where there are several
        sample_stats          lp = log p(x, z_s), log_q = log q(z_s | x), log_w = lp - log_q; of these weights pareto_k,
                              and importance_ess, how many draws of the posterior they are worth
        prior, prior_predictive    z, x ~ p(z, x), as many draws
        observed_data         x as the sites observe it
        constant_data         other arrays among the arguments, whole ones of which a site observes a part among them

    Arrays are (chain, draw, plates from left to right, event). A plate gives its dim its name ("data"); dims of an
    event are called "<site>_dim_0" and so on. A plate that is called as a variable is gives the name "<plate>_dim"; of
    an argument that is called as a site is, and is not what that observes, dims are "<argument>_argument_dim_0".

    **Whose weights.** Where all latents are in the plate of the data every datum has an importance problem of its own:
    lp, log_q and log_w are (chain, draw, data), `pareto_k` and `importance_ess` (data,), without (chain, draw). With
    a latent outside of it, all data make one, and those are (chain, draw) and (). `inference.diagnostics.psis` fits
    them; do not pass log_w to the `psislw` of ArviZ 1.x, which negates it. Above the attribute `pareto_k_threshold` of
    sample_stats a guide's draws cannot stand for the posterior's. A small `pareto_k` is no proof: a guide that misses
    a whole mode has one. Both are nan, and `notes` says why, where log_w is no weight: with a guide of point masses,
    one that masks other draws than the model does, or programs that scale a density. As the two lack (chain, draw),
    `az.summary(..., group="sample_stats")` needs var_names.

    **Cross-validation.** `az.loo` takes draws for draws of the posterior: with global latents it is sound for a guide
    with a small `pareto_k`. `inference.diagnostics.loo`, or `az.loo_approximate_posterior(data, lp, log_q)` in ArviZ
    1.x, correct for the guide. Where all latents are local (a VAE) leaving a datum out leaves nothing of it: its latent
    is then one of the prior, and its predictive density the evidence log p(x_n), of which `inference.evaluate` on
    held-out data is the right estimate; use no LOO there.

    Args:
        model, guide: any Pyro programs, or any NumPyro programs. Modules are in eval mode for the time of the call.
        x: the argument of both, or a tuple of arguments. What a program reads of its arguments, other than by the
            values of `sample` statements, is as given in predictions, too.
        draws: of each chain.
        chains: independent sets of draws; a guide's have no autocorrelation, and more than one only serves plots and
            statistics that compare chains.
        params: of NumPyro programs: values of `numpyro.param` sites, `SVIRunResult.params`. Others have the values that
            they start with; those of an Equinox module are its own.
        importance: "psis" resamples the draws of the guide, with replacement, by their Pareto-smoothed weights, for
            plots and summaries of the posterior itself as far as `pareto_k`, still that of the guide, allows. Some
            draws come more than once, which is not for `az.loo`: its fit of the tail takes no ties.
        groups: which of posterior, posterior_predictive, log_likelihood, prior and prior_predictive to make.
        dims: site -> names of the dims of its event, or of all of its dims.
        coords: dim -> labels; whole numbers by default.
        rows: how many (datum, draw) rows go through the programs at once.
        seed: of the draws; the global generators are as before afterwards. None continues the global generator, of
            torch or of NumPy, and resamples anew each time.

    Returns:
        An `arviz.InferenceData` (ArviZ 0.x) or an `xarray.DataTree` (1.x). Its attributes name the library, the model
        and the guide, and `notes` says if the programs ran draw by draw, because they do not vectorize, and if log_w
        is no weight.

    Raises:
        ValueError: draws, chains or rows below 1; unknown groups, sites of dims, dims of coords; coords of another
            length; a model that observes nothing, or that subsamples its data; a guide of another model; params of Pyro
            programs; log weights that are not finite; what the programs themselves raise.

    Source: Kumar et al. 2019 (ArviZ), JOSS 4(33); Vehtari et al. 2017 (arXiv 1507.04544) for LOO, 2024 (arXiv
    1507.02646) for k-hat; Magnusson et al. 2019 (arXiv 1904.10679) for LOO with approximate posteriors.
    """
    wanted = frozenset([groups] if isinstance(groups, str) else groups)
    if wanted - set(SAMPLED):
        unknown = told(sorted(wanted - set(SAMPLED)))
        raise ValueError(f"to_arviz: found groups {unknown}, want some of {', '.join(SAMPLED)}")
    args = x if type(x) is tuple else spread((x,), model, "to_arviz")
    found = _draw(model, guide, args, draws * chains, rows, seed, wanted, params)
    weights = psis(found.log_w)
    if found.doubts:  # else all weights of a point mass are equal, as those of an exact guide
        unknown = np.full_like(weights.khat, np.nan)
        weights = weights._replace(khat=unknown, ess=unknown)
    if importance == "psis":
        found = found.resampled(weights, np.random.default_rng(seed))
    names = _Names(found, dims or {}, coords or {})
    sets = {g: names.dataset(v, (chains, draws), g) for g, v in found.groups.items() if g in wanted}
    stats = {"lp": found.log_p, "log_q": found.log_q, "log_w": found.log_w}
    stats = names.dataset(stats, (chains, draws), "sample_stats")
    per_datum = {"pareto_k": weights.khat, "importance_ess": weights.ess}
    for name, values in per_datum.items():
        stats[name] = (names.of_data if values.ndim else (), values)
    stats.attrs |= {"pareto_k_threshold": threshold(draws * chains)}
    sets["sample_stats"] = stats
    sets["observed_data"] = names.dataset(found.observed, (), "observed_data")
    if found.constant:
        sets["constant_data"] = names.dataset(found.constant, (), "constant_data")
    attrs = _attributes(model, guide, found, importance)
    for one in sets.values():
        one.attrs = attrs | one.attrs
    return _container(sets, attrs)


def _words(found: Any) -> bool:
    return isinstance(found, list | tuple | Set) and all(isinstance(word, str) for word in found)


def _draw(
    model: Callable,
    guide: Callable,
    args: Sequence[Any],
    draws: int,
    rows: int,
    seed: int | None,
    groups: frozenset[str],
    params: Mapping[str, Any] | None,
) -> Draws:
    """By the library that the programs are written in, which alone is imported."""
    if choose((model, guide), args, {}).__name__ == "NumPyroLaboratory":
        from .numpyro_draws import draw as draw_numpyro

        return draw_numpyro(model, guide, args, draws, rows, seed, groups, params)
    if params is not None:
        raise ValueError("to_arviz: found params, which only NumPyro programs take; leave them out for Pyro programs")
    from .pyro_draws import draw as draw_pyro

    return draw_pyro(model, guide, args, draws, rows, seed, groups)


class _Names:
    """Names and labels of the dims of everything.

    Raises:
        ValueError: dims of an unknown site or of another number; coords of an unknown dim or of another length.
    """

    def __init__(self, found: Draws, dims: Mapping[str, Sequence[str]], coords: Mapping[str, Sequence[Any]]) -> None:
        self.found, self.coords = found, coords
        self.variables = {*found.dims, *found.constant, *SAMPLES, POINTWISE, "lp", "log_q", "log_w"}
        for site in dims:
            if site not in {*found.dims, *found.constant}:
                want = ", ".join([*found.dims, *found.constant])
                raise ValueError(f"to_arviz: found dims of {site!r}, want some of {want}")
        self.dims = {site: self._site(site, dims.get(site)) for site in found.dims}
        self.of_constants = {name: self._constant(name, dims) for name in found.constant}
        named = [*self.dims.values(), *self.of_constants.values()]
        known = {dim for names in named for dim in names} | set(SAMPLES) | set(self.of_data)
        for dim in coords:
            if dim not in known:
                raise ValueError(f"to_arviz: found coords of {dim!r}, want some of the dims {', '.join(sorted(known))}")

    @property
    def of_data(self) -> tuple[str, ...]:
        """The dim of the data plate, if there is one."""
        return () if self.found.plate is None else (self._plate(self.found.plate.name),)

    def dataset(self, arrays: Arrays, sample: tuple[int, ...], group: str) -> Any:
        """An `xarray.Dataset` of one group; `sample` is (chains, draws), or () for what was not drawn."""
        from xarray import Dataset

        if group == "log_likelihood" and len(arrays) > 1 and POINTWISE not in arrays:
            rank = max(v.ndim for v in arrays.values())
            if all(v.ndim == rank for v in arrays.values()):
                arrays = {**arrays, POINTWISE: sum(arrays.values())}
        variables: dict[str, Any] = {}
        labels: dict[str, Any] = {}
        for name, values in arrays.items():
            values = values.reshape(*sample, *values.shape[1:]) if sample else values
            rest = values.ndim - len(sample)
            if group in ("log_likelihood", "sample_stats"):
                own = self.of_data[:rest]
            else:
                own = self.of_constants[name] if group == "constant_data" else self.dims[name]
            used = (*SAMPLES[: len(sample)], *own)
            variables[name] = (used, values)
            labels |= {dim: self._labels(dim, size) for dim, size in zip(used, values.shape, strict=True)}
        return Dataset(variables, labels)

    def _labels(self, dim: str, size: int) -> np.ndarray:
        labels = np.asarray(self.coords[dim]) if dim in self.coords else np.arange(size)
        if labels.shape != (size,):
            raise ValueError(f"to_arviz: found {len(labels)} coords of the dim {dim!r}, want {size}")
        return labels

    def _plate(self, name: str) -> str:
        return f"{name}_dim" if name in self.variables else name

    def _site(self, site: str, given: Sequence[str] | None) -> tuple[str, ...]:
        return self._given(site, [name for _, name in self.found.dims[site].kept], given)

    def _constant(self, name: str, dims: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
        shape, plate = self.found.constant[name].shape, self.found.plate
        first = [plate.name] if plate is not None and shape[:1] == (plate.size,) else []
        plates = first + [None] * (len(shape) - len(first))
        if name in self.dims:  # a site is called so, too, of perhaps another shape: the dims that were given are its
            return self._given(f"{name}_argument", plates, None)
        return self._given(name, plates, dims.get(name))

    def _given(self, name: str, plates: Sequence[str | None], given: Sequence[str] | None) -> tuple[str, ...]:
        """The names of all dims of a variable: those of plates, and for others those given, or numbered ones."""
        free = [i for i, plate in enumerate(plates) if plate is None]
        names = [None if plate is None else self._plate(plate) for plate in plates]
        given = [f"{name}_dim_{k}" for k in range(len(free))] if given is None else list(given)
        if len(given) == len(plates):
            return tuple(given)
        if len(given) != len(free):
            raise ValueError(
                f"to_arviz: found dims {given} of {name!r}, want {len(free)} names, or {len(plates)} with its plates"
            )
        for i, one in zip(free, given, strict=True):
            names[i] = one
        return tuple(names)


def _attributes(model: Callable, guide: Callable, found: Draws, importance: str | None) -> dict[str, str]:
    library, version = found.library
    return {
        "created_at": datetime.now(UTC).isoformat(),
        "creation_library": "ppl-models",
        "inference_library": library,
        "inference_library_version": version,
        "model": getattr(model, "__name__", type(model).__name__),
        "guide": getattr(guide, "__name__", type(guide).__name__),
        "importance": importance or "none",
        "notes": "; ".join([*found.notes, *found.doubts]),
    }


def _container(groups: Mapping[str, Any], attrs: Mapping[str, str]) -> Any:
    """Datasets as the one object that the installed ArviZ works on."""
    import arviz

    if int(arviz.__version__.partition(".")[0]) < 1:
        return arviz.InferenceData(attrs=dict(attrs), **groups)
    from xarray import Dataset, DataTree

    return DataTree.from_dict({"/": Dataset(attrs=dict(attrs)), **groups})
