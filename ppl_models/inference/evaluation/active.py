"""`ActiveUnits`: the units of latents that tell of the data, by the variance of their means and their divergences."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

NO_UNITS = "no divergences by unit: a factor or a prior is no product over units"


@dataclass(frozen=True)
class ActiveUnits:
    """How much each unit of each latent tells of the data.

    A unit is active where the variance of its posterior mean over the data is above `threshold`, or by KL where its
    mean divergence from the prior is, in nats. A unit can be active by one and not by the other: one whose posterior is
    the same for all data, and not the prior, costs nats and tells nothing.

    Attributes:
        variance: latent -> variance over the data of E_q[z_u | x], (units,).
        kl: latent -> mean over the data of the divergence of each unit, (units,), in nats; empty where a factor or
            prior is no product over units, as `notes` then say.
        threshold: what is above it is active.
        n: number of data.
        notes: what one should know of these numbers.
    """

    variance: Mapping[str, np.ndarray]
    kl: Mapping[str, np.ndarray]
    threshold: float
    n: int
    notes: tuple[str, ...] = ()

    @property
    def active(self) -> dict[str, np.ndarray]:
        """Latent -> whether each unit is active by the variance of its mean, (units,)."""
        return {name: value > self.threshold for name, value in self.variance.items()}

    @property
    def active_by_kl(self) -> dict[str, np.ndarray]:
        """Latent -> whether each unit is active by its divergence, (units,)."""
        return {name: value > self.threshold for name, value in self.kl.items()}

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON, with the numbers of active units."""
        counts = {name: int(found.sum()) for name, found in self.active.items()}
        by_kl = {name: int(found.sum()) for name, found in self.active_by_kl.items()}
        about = {"threshold": self.threshold, "n": self.n, "notes": list(self.notes)}
        values = {"variance": self.variance, "kl": self.kl}
        lists = {word: {name: each.tolist() for name, each in found.items()} for word, found in values.items()}
        return {"active": counts, "active_by_kl": by_kl, **about, **lists}

    def __str__(self) -> str:
        by_kl = self.active_by_kl
        lines = [f"active units: variance of the mean over {self.n} data, or divergence, above {self.threshold:g}"]
        for name, found in self.active.items():
            also = f", by KL {by_kl[name].sum()}" if name in by_kl else ""
            lines.append(f"{name:<10}{found.sum()} of {len(found)}{also}")
        return "\n".join([*lines, *self.notes])


def counted_units(
    means: Mapping[str, np.ndarray],
    errors: Mapping[str, np.ndarray],
    kl: Mapping[str, np.ndarray],
    threshold: float,
    notes: tuple[str, ...] = (),
) -> ActiveUnits:
    """From posterior means with the variance of each as an estimate, latent -> (n, *event), and mean divergences.

        Var_x(estimate) = Var_x(E_q[z_u | x]) + E_x Var(estimate | x)

    Args:
        means, errors: the estimates, and Var(estimate | x).
        kl: latent -> (units,).
        threshold, notes: see `ActiveUnits`.
    """
    n, variance, unsure = len(next(iter(means.values()))), {}, []
    for name, value in means.items():
        added = np.asarray(errors[name], np.float64).reshape(n, -1).mean(0)
        variance[name] = np.asarray(value, np.float64).reshape(n, -1).var(0) - added * (1 - 1 / n)
        # the standard error of what is subtracted, of estimates that are about normal
        if (error := float(added.max(initial=0.0)) * (2 / n) ** 0.5) > threshold / 2:
            unsure.append(f"variances of {name} are known to +- {error:.2g} alone; try more particles, or more data")
    return ActiveUnits(variance, kl, threshold, n, (*notes, *unsure))
