"""The proposition of docs/proposition.md: what it says, and what it needs, by exact covariances and by graphs.

A self-reflective model of four layers, all linear and Gaussian: eps_l = A z_{l-1} + noise, z_l = B eps_l + C z_{l-1},
x_l = W z_l + V x_{l-1} + noise. Each variable is a matrix over one vector of independent standard normals, so that
every conditional covariance is exact.
"""

from itertools import pairwise

import numpy as np
import pytest

from ppl_models.factorization import Factorization, judge

LAYERS, SIZE, BLOCK = 4, 3, 2
CLOSE = 1e-10


def joint(rank: int = SIZE, skips: int = 0, coupling: bool = True, seed: int = 0) -> dict[str, np.ndarray]:
    """Name -> its matrix over the noise.

    Args:
        rank: of the maps eps_l -> z_l, 3 where they are bijections.
        skips: of how many codes before its own block l reads, too.
        coupling: whether it reads block l - 1.
        seed: of the maps.
    """
    draw = np.random.default_rng(seed).normal
    noise = iter(np.split(np.eye(LAYERS * (SIZE + BLOCK)), np.cumsum(([SIZE, BLOCK] * LAYERS)[:-1])))
    found = {}
    for i in range(1, LAYERS + 1):
        above, before = found.get(f"z{i - 1}"), found.get(f"x{i - 1}")
        eps = next(noise)
        z = draw(size=(SIZE, rank)) @ draw(size=(rank, SIZE))
        if above is not None:
            eps = eps + draw(size=(SIZE, SIZE)) @ above / 2
        found[f"eps{i}"] = eps
        found[f"z{i}"] = z @ eps + (0 if above is None else draw(size=(SIZE, SIZE)) @ above / 2)
        x = draw(size=(BLOCK, SIZE)) @ found[f"z{i}"] + next(noise)
        if coupling and before is not None:
            x = x + draw(size=(BLOCK, BLOCK)) @ before / 2
        for k in range(max(1, i - skips), i):
            x = x + draw(size=(BLOCK, SIZE)) @ found[f"z{k}"]
        found[f"x{i}"] = x
    return found


def covariance(maps: dict[str, np.ndarray], of: list[str], given: list[str]) -> np.ndarray:
    """Of some variables given others, which may be functions of one another."""
    a, b = np.vstack([maps[name] for name in of]), np.vstack([maps[name] for name in given])
    left = a - a @ np.linalg.pinv(b, rcond=1e-9) @ b  # what the others do not tell of them
    return left @ left.T


def numbered(letter: str, first: int, last: int) -> list[str]:
    return [f"{letter}{i}" for i in range(first, last + 1)]


X = numbered("x", 1, LAYERS)


def error(maps: dict[str, np.ndarray], layer: int, data: list[str] = X) -> float:
    """How far the covariance of eps_l given z_{l-1} and data is from that given all eps before it and all data."""
    exact = covariance(maps, [f"eps{layer}"], [*numbered("eps", 1, layer - 1), *X])
    return float(np.abs(covariance(maps, [f"eps{layer}"], [f"z{layer - 1}", *data]) - exact).max())


@pytest.mark.parametrize("layer", range(2, LAYERS + 1))
def test_a_the_code_before_is_enough(layer):
    assert error(joint(), layer) < CLOSE


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("layer", range(2, LAYERS + 1))
def test_b_the_map_from_base_to_code_need_not_be_a_bijection(layer, rank):
    assert error(joint(rank), layer) < CLOSE


def divergence(mean: np.ndarray, q: np.ndarray, p: np.ndarray) -> float:
    """KL(N(mean, q) || N(0, p)) on the space where p lives."""
    inverse, kept = np.linalg.pinv(p, rcond=1e-9), np.linalg.eigvalsh(p) > 1e-9
    logdets = [np.log(np.linalg.eigvalsh(each)[kept]).sum() for each in (p, q)]
    return float((np.trace(inverse @ q) - kept.sum() + mean @ inverse @ mean + logdets[0] - logdets[1]) / 2)


@pytest.mark.parametrize(("rank", "equal"), [(3, True), (2, False), (1, False)])
def test_b_what_a_bijection_buys_is_the_divergence_of_the_bases(rank, equal):
    draw = np.random.default_rng(0).normal
    f, mean, root = draw(size=(3, rank)) @ draw(size=(rank, 3)), draw(size=3), draw(size=(3, 3))
    q, p = root @ root.T + np.eye(3), np.eye(3)
    codes, bases = divergence(f @ mean, f @ q @ f.T, f @ p @ f.T), divergence(mean, q, p)
    assert codes <= bases + CLOSE
    assert (abs(codes - bases) < 1e-8) is equal


def test_c_a_block_that_reads_earlier_codes_opens_a_collider():
    assert max(error(joint(skips=LAYERS), layer) for layer in range(2, LAYERS + 1)) > 0.01
    # the code just before does no harm: the factor is given it
    assert max(error(joint(skips=1), layer) for layer in range(2, LAYERS + 1)) < CLOSE
    # and in the graph: the factor of z3 needs z1
    skips = Factorization(
        {"z1": (), "x1": ("z1",), "z2": ("z1",), "x2": ("z2", "x1"), "z3": ("z2",), "x3": ("z3", "x2", "z1")},
        observed=("x1", "x2", "x3"),
    )
    assert "z1" in skips.faithful_inverse("top-down").parents["z3"]


@pytest.mark.parametrize("layer", range(3, LAYERS + 1))
def test_d_the_blocks_from_the_one_before_are_enough_and_no_fewer(layer):
    maps = joint()
    assert error(maps, layer, numbered("x", layer - 1, LAYERS)) < CLOSE
    assert error(maps, layer, numbered("x", layer, LAYERS)) > 1e-3
    # without the coupling of blocks, those from its own
    assert error(joint(coupling=False), layer, numbered("x", layer, LAYERS)) < CLOSE


def test_e_layers_are_not_independent_given_the_data():
    maps = joint()
    together = covariance(maps, numbered("eps", 1, LAYERS), X)
    crossed = [together[SIZE * i : SIZE * (i + 1), SIZE * k : SIZE * (k + 1)] for i, k in pairwise(range(LAYERS))]
    assert min(np.abs(each).max() for each in crossed) > 0.05


def test_the_form_is_that_of_the_exact_posterior_for_any_number_of_layers():
    for layers in (1, 2, 5, 9):
        sites: dict[str, tuple[str, ...]] = {}
        for i in range(1, layers + 1):
            sites |= {f"z{i}": (f"z{i - 1}",) if i > 1 else (), f"x{i}": (f"z{i}", f"x{i - 1}") if i > 1 else ("z1",)}
        blocks = tuple(numbered("x", 1, layers))
        model = Factorization(sites, observed=blocks)
        form = {f"z{i}": ((f"z{i - 1}",) if i > 1 else ()) + blocks for i in range(1, layers + 1)}
        guide = Factorization(form, given=blocks, letter="q")
        verdict = judge(model, guide)
        assert verdict.faithful and verdict.perfect


def log_normal(value, loc, scale):
    return -(((value - loc) / scale) ** 2) / 2 - np.log(scale) - np.log(2 * np.pi) / 2


def test_the_lemma_on_a_map_that_is_not_linear():
    """p(eps | z) = p(eps | f(z)) with f = tanh: its derivative stands above and below."""
    eps, z = np.array([-1.3, 0.2, 0.9]), np.array([0.4, -0.7, 1.1])  # z = 0.8 eps + 0.6 noise
    w = np.tanh(z)

    def posterior(log_likelihood, log_marginal):
        return log_normal(eps, 0.0, 1.0) + log_likelihood - log_marginal

    def pushed(loc, scale):  # the density of w
        return log_normal(np.arctanh(w), loc, scale) - np.log1p(-(w**2))

    direct = posterior(log_normal(z, 0.8 * eps, 0.6), log_normal(z, 0.0, 1.0))
    np.testing.assert_allclose(posterior(pushed(0.8 * eps, 0.6), pushed(0.0, 1.0)), direct, rtol=1e-12)
    np.testing.assert_allclose(direct, log_normal(eps, 0.8 * z, 0.6), rtol=1e-12)  # as known in closed form
