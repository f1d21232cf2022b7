"""`check_shapes`: the shapes of a latent in a guide against those in its model, and the plates that it leaves out."""

from .pairs import refuse_shape, refuse_unplaced
from .record import Site


def check_shapes(model: Site, guide: Site, placed: bool) -> tuple[str, ...]:
    """The plates of the model's site for all copies of which the guide draws the site once.

    What `Trace_ELBO` broadcasts to one shape is one shape. One event over whole plates is no other shape: its copies
    cannot be told apart, but all of them are there.

    Args:
        model, guide: the site in a run of each.
        placed: whether each dim of a batch must be that of a plate in the guide, too.

    Raises:
        ValueError: another event shape, another batch shape, or a batch in no plate.

    >>> from .record import Plate
    >>> data = Plate("data", -1, 3, 3)
    >>> z = Site(name="z", kind="latent", shape=(3, 2), event_dim=1, plates=(data,))
    >>> check_shapes(z, Site(name="z", kind="latent", shape=(2,), event_dim=1), True)
    ('data',)
    """
    dims = max(len(model.shape), len(guide.shape))
    found, want = (((1,) * (dims - len(site.shape)) + site.shape) for site in (guide, model))
    plates = {plate.dim: plate for plate in model.plates}
    joined = {-1 - k for k in range(guide.event_dim - model.event_dim)}
    if found == want and joined and joined <= plates.keys():
        return ()
    if guide.event_shape != model.event_shape:
        more = model.event_dim - guide.event_dim
        instead = f"try .to_event({more})" if more > 0 else "build the guide on this model"
        refuse_shape(model.name, "event shape", guide.event_shape, model.event_shape, instead)
    own, once = {plate.dim for plate in guide.plates}, []
    for dim in range(-1, model.event_dim - dims - 1, -1):
        mine, size = found[dim - model.event_dim], want[dim - model.event_dim]
        if mine == 1 < size and dim in plates:
            once.append(plates[dim].name)
        elif mine != size:
            named = ", ".join(f"{plate.name!r} at dim {plate.dim}" for plate in model.plates)
            instead = f"draw it in plates as the model's: {named}" if named else "the model has it in no plate"
            refuse_shape(model.name, "batch shape", guide.batch_shape, model.batch_shape, instead)
        elif placed and dim in plates and dim not in own and size > 1:
            refuse_unplaced(model.name, guide.batch_shape, plates[dim])
    return tuple(once)
