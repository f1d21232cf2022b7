"""Recurrent inference: one network that goes down with the model, and reads the state and the errors it has so far."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, cast

from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn
from torch.distributions import biject_to

from ppl_models.parts.arguments.kinds import Count, Image, Number
from ppl_models.parts.nets import LSTM, Window

from .parts.conditionals import FAMILIES, Reads, choose_evidence, choose_parents
from .parts.families.continuous import on_support
from .parts.families.factors import Family, Weighted, choose_family
from .parts.families.states import check_states
from .parts.guide import TopDownGuide, example_of
from .parts.looks.evidence import EvidenceKey, features
from .parts.looks.layout import Layout
from .parts.looks.readings import reading


class Recurrence(nn.Module):
    """The factors of all steps: an LSTM over the steps, and a linear map of its state for the numbers of a factor.

    Args:
        layout: of the model, each latent reading its evidence.
        family: of all factors.
        hidden: size of the LSTM.
        window: of the grid that reads images, or None.
        image: shape of a row, for the window.

    Raises:
        ValueError: see `readings.reading`; an unknown family.
    """

    def __init__(
        self,
        layout: Layout,
        family: str | Family | Weighted = "diagonal",
        hidden: int = 256,
        window: int | None = None,
        image: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        check_states(layout, {}, None)
        self.layout, self.reading = layout, reading(layout, window, image)
        self.parents = self.reading.parents
        self.family = choose_family(family, self.reading.size, layout.guide, FAMILIES, False)
        self.flow = self.family.over(self.reading.size) if isinstance(self.family, Weighted) else None
        self.window = None if window is None else Window(self.reading.state, self.reading.image, window)
        self.cell = LSTM(self.reading.inputs(window), hidden)
        self.head = nn.Linear(hidden, self.family.count(self.reading.size))

    def encode(self, evidence: Mapping[EvidenceKey, Tensor]) -> dict[str, Tensor]:
        """What a run starts with: the data, (*plates, features), and the LSTM's state, which `raw` moves on."""
        h, memory = self.cell.start()
        return {"data": evidence[self.reading.key].to(h.dtype), "h": h, "memory": memory}

    def raw(self, name: str, encoded: dict[str, Tensor], values: Mapping[str, Tensor]) -> Tensor:
        """The numbers of a factor, (*particles, *plates, count), by a step of the LSTM from its state in `encoded`."""
        data, observed = encoded["data"], encoded["data"][..., : self.reading.observed]
        errors = [observed - self._vector(mean, values) for mean in self.reading.means[name]]
        states = [self._vector(site, values) for site in self.reading.states[name]]
        state = self.layout.language.join(states) if states else data.new_zeros(self.reading.state)
        if self.window is None:
            read = [data, *errors]
        else:
            read = [self.window.read(state, observed, *errors)]
            read += [data[..., self.reading.observed :]] if self.reading.data > self.reading.observed else []
        read += [state] if self.reading.has_state else []
        encoded["h"], encoded["memory"] = self.cell((encoded["h"], encoded["memory"]), *read)
        return self.head(encoded["h"])

    def _vector(self, site: str, values: Mapping[str, Tensor]) -> Tensor:
        value, told = values[site], self.reading.told.get(site)
        if told is not None:
            value = value.to(self.cell.recurrent.weight.dtype)
            return features(value, told.event_dim, told.plates, self.reading.key.shared_plates)
        latent = self.layout.latents[site]
        facts = latent.facts
        value = value if facts.is_real else biject_to(facts.support).inv(value)
        return features(value, len(facts.unconstrained_shape), latent.plates, latent.shared_plates)

    def free(self, name: str, raw: Tensor) -> TorchDistributionMixin:
        """The factor of the numbers, on the support of its site."""
        family = cast(Family, self.family if self.flow is None else self.flow)
        return on_support(family.residual(raw, 0.0, 1.0), self.layout.latents[name])


class Recurrent(TopDownGuide):
    """A recurrent network that runs beside the model and reads, step by step, what its latents have made so far.

        q(z | x) = prod_t q(z_t | z_<t, x)
        r_t = (x, x - mean_t) or patches of both,      e_t = LSTM(r_t, state_t, e_{t-1}),      z_t ~ family(W e_t + b)

    One network serves all steps. The model records mean_t and state_t at deterministic sites between z_{t-1} and z_t,
    in the plate of the data. A site whose name begins with "mean" is what the model expects of the datum at that step,
    and the guide reads x minus it. The other sites, one after another, are the state. So the guide reads the state that
    the model has computed, and does not compute it again. Where a model records no state, it reads z_{t-1} instead.

    With the model `DRAW` it is the paper's encoder.

    Args:
        model: any Pyro model function whose latents are alike in shape, each with a value for each datum.
        args: an example batch, the model's arguments.
        family: see `MeanField`; the same for all steps.
        evidence: as for `MeanField`.
        hidden: size of the LSTM.
        window: N of the N x N grid of Gaussian filters by which it reads images, placed by state_t; None to read all.
        image: (channels, height, width) of a row, for a window.

    Raises:
        ValueError: see `TopDownGuide`; latents that are not alike; sites recorded before some latents alone, or that
            have not one value for each datum; an unknown family; a window without an image.

    Source: Gregor et al. 2015 (arXiv 1502.04623), section 2.1, and 3.2 for the window.

    >>> import torch
    >>> from ppl_models import DRAW
    >>> from ppl_models.factorization import compare
    >>> model, x = DRAW(event=4, steps=3, latent=2, hidden=8), torch.eye(4)[:3]
    >>> report = compare(model, Recurrent(model, x, hidden=8), x)
    >>> print(report.guide)
    q(z1 | x) q(z2 | z1, x) q(z3 | z1, z2, x)
    >>> report.verdict
    'faithful, minimal, perfect'
    """

    density = "q(z | x) = prod_t q(z_t | z_<t, x)"
    source = "Gregor et al. 2015 (arXiv 1502.04623), section 2.1, and 3.2 for the window."

    def __init__(
        self,
        model: Callable,
        *args: Any,
        family: str | Family | Weighted = "diagonal",
        evidence: Reads = "needed",
        hidden: Count = 256,
        window: Annotated[int, Number(whole=True, least=2)] | None = None,
        image: Image | None = None,
    ) -> None:
        args = example_of(type(self).__name__, model, args)
        super().__init__(model, *args)
        self.layout = choose_evidence(self.layout, choose_parents(self.layout, self.order, "all"), evidence)
        self.factors = Recurrence(self.layout, family, hidden, window, image).to(**self.place)

    def get_posterior(self, name: str, prior: TorchDistributionMixin) -> TorchDistributionMixin:
        """q(z_t | z_<t, x)."""
        return self.factors.free(name, self.raw(name))
