"""Weights of criteria and the latents that they can see, as a user says them, for both languages."""

from collections.abc import Collection, Iterable


def info_weights(alpha: float, lambda_: float) -> tuple[float, float]:
    """The weights of InfoVAE's two divergences: (1 - alpha) of each datum's, (alpha + lambda_ - 1) of the marginal one.

    Raises:
        ValueError: one of them is negative.

    >>> info_weights(1.0, 10.0)
    (0.0, 10.0)
    """
    marginal = alpha + lambda_ - 1
    marginal = 0.0 if abs(marginal) < 1e-9 else marginal  # of a beta-VAE it is 0 up to rounding
    if not alpha <= 1 or not marginal >= 0:
        raise ValueError(
            f"info_vae: found alpha={alpha}, lambda_={lambda_}, want alpha at most 1 and alpha + lambda_ at least 1: "
            "neither divergence can have a negative weight"
        )
    return 1 - alpha, marginal


def check_weight(weight: float) -> None:
    """Raise ValueError for a negative weight of `moment_matching`."""
    if not weight >= 0:
        raise ValueError(f"moment_matching: found weight={weight}, want at least 0")


def check_local(latents: Iterable[str], shared: Collection[str]) -> None:
    """Raise ValueError if one of the latents is among those outside the plate of the data, which have no aggregate."""
    for name in latents:
        if name in shared:
            raise ValueError(
                f"discrepancy of q(z): found the latent {name!r} outside the plate of the data, want a code for each "
                "datum: of a global latent there is one posterior, and no aggregate of many"
            )
