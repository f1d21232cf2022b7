"""Recurrent inference: one network that goes down with the model, and reads the state and the errors it has so far."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from numpyro.distributions import Distribution, biject_to

from guides.parts.families.factors import Family, Weighted, choose_family
from guides.parts.families.states import check_states
from guides.parts.looks.evidence import EvidenceKey, features
from guides.parts.looks.layout import Layout
from guides.parts.looks.readings import Reading, reading
from ppl_models.numpyro.parts.nets import LSTM, Linear, Window
from ppl_models.parts.arguments.kinds import Count, Image, Number

from .parts.conditionals import FAMILIES, Reads, choose_evidence, choose_parents
from .parts.families import on_support
from .parts.flows import Steps
from .parts.guide import TopDown, TopDownGuide, example_of, placed


class Recurrence(eqx.Module):
    """Port of `guides.recurrent.Recurrence`; `key` seeds the weights."""

    flow: Steps | None
    window: Window | None
    cell: LSTM
    head: Linear
    family: Family | Weighted = eqx.field(static=True)
    layout: Layout = eqx.field(static=True)
    reading: Reading = eqx.field(static=True)

    def __init__(
        self,
        layout: Layout,
        family: str | Family | Weighted = "diagonal",
        hidden: int = 256,
        window: int | None = None,
        image: Sequence[int] | None = None,
        *,
        key: Array,
    ) -> None:
        check_states(layout, {}, None)
        self.layout, self.reading = layout, reading(layout, window, image)
        keys = jax.random.split(key, 4)
        size, inputs = self.reading.size, self.reading.inputs(window)
        self.family = choose_family(family, size, layout.guide, FAMILIES, False)
        self.flow = self.family.over(size, key=keys[0]) if isinstance(self.family, Weighted) else None
        shape = self.reading.image
        self.window = None if window is None else Window(self.reading.state, shape, window, key=keys[1])
        self.cell = LSTM(inputs, hidden, key=keys[2])
        self.head = Linear(hidden, self.family.count(size), key=keys[3])

    @property
    def parents(self) -> dict[str, tuple[str, ...]]:
        """Latent -> the sites whose values its step reads."""
        return self.reading.parents

    def encode(self, evidence: Mapping[EvidenceKey, Array]) -> dict[str, Array]:
        """What a run starts with: the data, (*plates, features), and the LSTM's state, which `raw` moves on."""
        h, memory = self.cell.start()
        return {"data": evidence[self.reading.key].astype(h.dtype), "h": h, "memory": memory}

    def raw(self, name: str, encoded: dict[str, Array], values: Mapping[str, Array]) -> Array:
        """The numbers of a factor, (*particles, *plates, count), by a step of the LSTM from its state in `encoded`."""
        data, observed = encoded["data"], encoded["data"][..., : self.reading.observed]
        errors = [observed - self._vector(mean, values) for mean in self.reading.means[name]]
        states = [self._vector(site, values) for site in self.reading.states[name]]
        state = self.layout.language.join(states) if states else jnp.zeros(self.reading.state, data.dtype)
        if self.window is None:
            read = [data, *errors]
        else:
            read = [self.window.read(state, observed, *errors)]
            read += [data[..., self.reading.observed :]] if self.reading.data > self.reading.observed else []
        read += [state] if self.reading.has_state else []
        encoded["h"], encoded["memory"] = self.cell((encoded["h"], encoded["memory"]), *read)
        return self.head(encoded["h"])

    def _vector(self, site: str, values: Mapping[str, Array]) -> Array:
        value, told = values[site], self.reading.told.get(site)
        if told is not None:
            value = value.astype(self.cell.recurrent.weight.dtype)
            return features(value, told.event_dim, told.plates, self.reading.key.shared_plates)
        latent = self.layout.latents[site]
        facts = latent.facts
        value = value if facts.is_real else biject_to(facts.support).inv(value)
        return features(value, len(facts.unconstrained_shape), latent.plates, latent.shared_plates)

    def free(self, name: str, raw: Array) -> Distribution:
        """The factor of the numbers, on the support of its site."""
        family = cast(Family, self.family if self.flow is None else self.flow)
        return on_support(family.residual(raw, 0.0, 1.0), self.layout.latents[name])


class Recurrent(TopDownGuide):
    """Port of `guides.Recurrent`: same arguments and names of parameters; `key` seeds the weights."""

    factors: Recurrence

    def __init__(
        self,
        model: Callable,
        *args: Any,
        family: str | Family | Weighted = "diagonal",
        evidence: Reads = "needed",
        hidden: Count = 256,
        window: Annotated[int, Number(whole=True, least=2)] | None = None,
        image: Image | None = None,
        key: Array,
    ) -> None:
        args = example_of(type(self).__name__, model, args)
        super().__init__(model, *args)
        self.layout = choose_evidence(self.layout, choose_parents(self.layout, self.order, "all"), evidence)
        self.factors = placed(Recurrence(self.layout, family, hidden, window, image, key=key), model, args)

    def get_posterior(self, name: str, prior: Distribution, run: TopDown) -> Distribution:
        """q(z_t | z_<t, x)."""
        return self.factors.free(name, run.raw(name))
