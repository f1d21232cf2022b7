"""What an evaluation of a pair says, whichever library ran it. No torch in here."""

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Evaluation:
    """What `evaluate` measured: means over the data, in nats per datum.

    Attributes:
        elbo: evidence lower bound.
        nll: bound on -log p(x) by `particles` importance samples; it falls to -log p(x) as they grow.
        nll_error: standard error of `nll` over the data (over the particles where all data count as one).
        kl: latent site -> divergence of its factor from its prior.
        bits_per_dim: of nll, None where it has no meaning.
        particles: importance samples a datum.
        n: number of data.
        notes: what one should know of these numbers.
    """

    elbo: float
    nll: float
    nll_error: float
    kl: dict[str, float]
    bits_per_dim: float | None
    particles: int
    n: int
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        rows = [
            ("ELBO", f"{self.elbo:.3f}", "nats per datum"),
            ("NLL", f"{self.nll:.3f} +- {self.nll_error:.3f}", f"nats per datum, {self.particles} importance samples"),
        ]
        if self.bits_per_dim is not None:
            rows.append(("bits/dim", f"{self.bits_per_dim:.4f}", ""))
        rows += [(f"KL {site}", f"{value:.3f}", "nats") for site, value in self.kl.items()]
        rows.append(("data", str(self.n), ""))
        text = "\n".join(f"{name:<10}{value:>18}  {unit}".rstrip() for name, value, unit in rows)
        return "\n".join([text, *self.notes])
