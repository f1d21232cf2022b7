"""`check_draws`: what a guide draws, held against the shapes and supports of its model."""

from ppl_models.programs.laboratory import Experiment, ProgramRun, SiteRecord
from ppl_models.programs.pairs import refuse_support
from ppl_models.programs.shapes import check_shapes

DRAWS = 64  # of a site, that are looked at: what leaves a support now and then is not told by one
REPLAYS = 16  # of a pair, where the support itself may hang on other draws


def check_draws(
    model: Experiment, guide: Experiment, prior: ProgramRun, drawn: ProgramRun
) -> dict[str, tuple[str, ...]]:
    """The latents that a guide draws once for all copies of plates of the model, with the names of these.

    A support that the guide's draws do not leave may be any part of the model's: a half-normal for a latent on the
    line, a logistic transform for one that is positive.

    Args:
        model, guide: the programs.
        prior, drawn: a run of each, with nothing held.

    Raises:
        ValueError: another shape than the model's, a batch in no plate, draws outside of the support: what Pyro's and
            NumPyro's own `Trace_ELBO` refuse.
    """
    once = {}
    for name, record in prior.of("latent").items():
        mine = drawn.get(name)
        if mine is None or not mine.site.family or record.site.scanned or mine.site.scanned:
            continue  # nor do values that are computed without a distribution have a shape of their own
        placed = model.laboratory.placed and mine.kind != "deterministic"
        if plates := check_shapes(record.site, mine.site, placed):
            once[name] = plates
        if _leaves(mine, record) and any(_leaves_replayed(model, guide, name, seed) for seed in range(REPLAYS)):
            refuse_support(name, mine.site.family, record.site.family)
    return once


def _leaves(mine: SiteRecord, record: SiteRecord) -> bool:
    """Whether draws of a guide's site are outside of the support that the model's has in one run."""
    if record.contains is None or record.site.mask is not None:
        return False
    values = [mine.value] if mine.fresh is None else (mine.fresh() for _ in range(DRAWS))
    return not all(map(record.contains, values))


def _leaves_replayed(model: Experiment, guide: Experiment, name: str, seed: int) -> bool:
    """Whether a draw of the guide is outside of the support that the model's site has given all that the guide drew."""
    run = guide.run(seed=seed)
    drawn = {name: record.value for name, record in run.of("latent", "deterministic", "subsample").items()}
    record = model.run(drawn, seed=seed).get(name)
    return record is not None and record.contains is not None and not record.contains(run[name].value)
