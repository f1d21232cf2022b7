"""`evaluate`: numbers of pairs whose evidence is known, and what it refuses to put a number on."""

import math
import re

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.autoguide import (
    AutoDelta,
    AutoGuideList,
    AutoLaplaceApproximation,
    AutoMultivariateNormal,
    AutoNormal,
)
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from guides import BottomUp, Ladder, MeanField, SelfReflective
from ppl_models import VAE
from ppl_models.data import Data, Scale
from ppl_models.inference import evaluate, fit, terms
from ppl_models.inference.pyro.feeding.columns import Columns
from tests.helpers.cases import few

N, WIDTH, COLUMNS = 40, 4, 7


def rows(n: int = N, width: int = WIDTH) -> Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(1))


def model(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z.unsqueeze(-1).expand(*z.shape, WIDTH), 1.0).to_event(1), obs=x)


def guide(x: Tensor) -> None:
    """The exact posterior: the weights are constant."""
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x.sum(-1) / (WIDTH + 1), (WIDTH + 1) ** -0.5))


def log_evidence(x: Tensor) -> Tensor:
    return MultivariateNormal(torch.zeros(WIDTH), torch.ones(WIDTH, WIDTH) + torch.eye(WIDTH)).log_prob(x)


def quiet(*pair_and_data, **arguments):
    return evaluate(*pair_and_data, **{"particles": 3, "progress": False, **arguments})


def test_an_exact_posterior_gives_the_evidence():
    for sizes in ({}, {"rows": 7}, {"vectorize": False}, {"rows": 1}):
        found = quiet(model, guide, rows(), **sizes)
        assert found.nll == pytest.approx(-log_evidence(rows()).mean().item(), rel=1e-4)
        assert found.n == N and found.notes == [] and found.bits_per_dim is None
        assert found.elbo == pytest.approx(-found.nll, abs=0.3)


# ---- subsamples


def subsampled(size: int):
    def program(x: Tensor) -> None:
        with pyro.plate("rows", len(x), subsample_size=min(size, len(x))) as index:
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z.unsqueeze(-1).expand(*z.shape, WIDTH), 1.0).to_event(1), obs=x[index])

    return program


@pytest.mark.parametrize("make", [MeanField, BottomUp, SelfReflective])
@pytest.mark.parametrize("size", [2, 8])  # 8 is more than the few rows that are looked at first
def test_a_model_that_subsamples_has_no_bound(make, size):
    program = subsampled(size)
    with pytest.raises(ValueError, match=f"evaluate: the plate 'rows' draws {size} of 40 data, want every datum"):
        quiet(program, make(program, rows(), hidden=4), rows())


def test_a_plate_of_a_fixed_size_that_subsamples_has_none_either():
    def fixed(x: Tensor) -> None:
        with pyro.plate("rows", N, subsample_size=8) as index:
            pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(torch.zeros(WIDTH), 1.0).to_event(1), obs=x[index])

    def posterior(x: Tensor) -> None:
        with pyro.plate("rows", N, subsample_size=8):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    with pytest.raises(ValueError, match="the plate 'rows' draws 8 of 40"):
        quiet(fixed, posterior, rows())


def test_a_subsample_that_only_all_the_data_need_is_found():
    def program(x: Tensor) -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(x), subsample_size=min(1500, len(x))) as index:
            pyro.sample("x", dist.Normal(mu, 1.0), obs=x[index, 0])

    with pytest.raises(ValueError, match="the plate 'rows' draws 1500 of 2000"):
        quiet(program, MeanField(program, rows(), hidden=4), rows(2000), rows=10)


def test_a_plate_that_draws_every_datum_is_evaluated():
    program = subsampled(N)
    assert quiet(program, MeanField(program, rows(), hidden=4), rows()).n == N


# ---- which plate enumerates the rows


def effects(x: Tensor) -> None:
    """Global effects of the columns, in a plate of their own: w_j ~ N(0, 1), x_ij ~ N(w_j, 1)."""
    columns = pyro.plate("cols", COLUMNS, dim=-1)
    with columns:
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("n", len(x), dim=-2), columns:
        pyro.sample("x", dist.Normal(w, 1.0), obs=x)


def effects_of(x: Tensor):
    """Their exact posterior given all of x."""
    loc, scale = x.sum(0) / (len(x) + 1), (len(x) + 1) ** -0.5

    def program(x: Tensor) -> None:
        with pyro.plate("cols", COLUMNS, dim=-1):
            pyro.sample("w", dist.Normal(loc, scale))

    return program


def effects_evidence(x: Tensor) -> float:
    """Each column is a Gaussian vector with covariance 1 + 11'."""
    return MultivariateNormal(torch.zeros(len(x)), torch.eye(len(x)) + 1).log_prob(x.T).sum().item()


@pytest.mark.parametrize("n", [N, 5, COLUMNS])  # as many rows as columns, too
def test_global_effects_of_columns_are_no_data(n):
    x = rows(n, COLUMNS)
    found = terms(effects, effects_of(x), (x,), particles=3)
    assert found.shared == {"w"} and found.log_likelihood["x"].shape == (3, n)
    result = quiet(effects, effects_of(x), x)
    assert result.nll == pytest.approx(-effects_evidence(x) / n, rel=1e-4) and result.n == n
    assert result.nll_error < 1e-4 and "count as one datum" in result.notes[0]


@pytest.mark.parametrize("make", few([MeanField, BottomUp, Ladder, SelfReflective], lambda make: make is MeanField))
@pytest.mark.parametrize("n", [N, COLUMNS])
def test_guides_take_effects_of_columns_for_global(make, n):
    x = rows(n, COLUMNS)
    posterior = make(effects, x, hidden=4)
    site = posterior.layout.latents["w"]
    assert site.is_global and [plate.name for plate in site.private_plates] == ["cols"]
    fit(effects, posterior, x, steps=300, batch_size=n // 2, lr=5e-2, ema=0.98, progress=False, seed=0)
    result = quiet(effects, posterior, x, particles=200)
    assert result.nll == pytest.approx(-effects_evidence(x) / n, abs=0.03)
    assert result.elbo == pytest.approx(effects_evidence(x) / n, abs=0.1)


@pytest.mark.parametrize("make", [MeanField, BottomUp, Ladder, SelfReflective])
def test_effects_of_columns_and_latents_of_rows(make):
    def both(x: Tensor) -> None:
        columns = pyro.plate("cols", COLUMNS, dim=-1)
        with columns:
            w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("n", len(x), dim=-2):
            u = pyro.sample("u", dist.Normal(0.0, 1.0))
            with columns:
                v = pyro.sample("v", dist.Normal(w + u, 1.0))
                pyro.sample("x", dist.Normal(v, 1.0), obs=x)

    x = rows(12, COLUMNS)
    posterior = make(both, x, hidden=4)
    sites = posterior.layout.latents
    assert sites["w"].is_global and sites["u"].shared_plates == {"n"} and sites["v"].shared_plates == {"n", "cols"}
    fit(both, posterior, x, steps=2, batch_size=5, progress=False)  # another number of rows than the example's
    found = terms(both, posterior, (x,), particles=2)
    assert found.shared == {"w"} and found.log_w.shape == (2, 12)


def test_plates_of_which_none_has_the_number_of_rows():
    def one_plate(x: Tensor) -> None:
        with pyro.plate("n", len(x) - 1):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[1:, 0])

    def two_plates(x: Tensor) -> None:
        with pyro.plate("n", len(x) - 1, dim=-2), pyro.plate("cols", COLUMNS, dim=-1):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[1:])

    x = rows(5, COLUMNS)
    assert not terms(one_plate, MeanField(one_plate, x, hidden=4), (x,)).shared
    assert terms(two_plates, MeanField(two_plates, x, hidden=4), (x,)).shared == {"x", "z"}


# ---- the pair and the data


def test_swapped_and_silent_programs():
    x = rows()
    with pytest.raises(ValueError, match="observes the site 'x'; are model and guide in this order"):
        quiet(guide, model, x)
    with pytest.raises(ValueError, match="evaluate: the model guide observes nothing .it draws 'z'.; are model and"):
        quiet(guide, guide, x)
    for make in (MeanField, BottomUp):
        with pytest.raises(ValueError, match="observes the site 'x'; are model and guide in this order"):
            quiet(make(model, x, hidden=4), model, x)


def test_a_guide_may_have_a_factor_and_deterministic_values():
    def more(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.sum(-1) / (WIDTH + 1), (WIDTH + 1) ** -0.5))
            pyro.factor("f", torch.zeros(len(x)), has_rsample=True)
            pyro.deterministic("d", x.sum(-1), event_dim=0)

    assert quiet(model, more, rows()).nll == pytest.approx(-log_evidence(rows()).mean().item(), rel=1e-4)


class Recognition(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.loc = nn.Linear(8, 2)
        self.modes = []

    def forward(self, x: Tensor) -> None:
        self.modes.append(self.training)
        with pyro.plate("data", len(x)):
            pyro.sample("z1", dist.Normal(self.loc(x), 1.0).to_event(1))


def test_every_row_is_looked_at():
    x = (rows(2500, 8) > 0).float()
    vae, q = VAE(8, 2, hidden=8), Recognition()
    generator = torch.get_rng_state()
    assert math.isfinite(quiet(vae, q, x).nll)
    assert torch.equal(torch.get_rng_state(), generator) and not any(q.modes) and q.training
    x[2400, 3] = 0.5
    with pytest.raises(ValueError, match="found the value 0.5, a Bernoulli likelihood wants 0 or 1"):
        quiet(vae, q, x)


@pytest.mark.cuda
def test_rows_go_to_where_the_parameters_are():
    x = (rows(30, 8) > 0).float()
    vae, q = VAE(8, 2, hidden=8), Recognition()
    here = quiet(vae, q, x, particles=500)
    there = quiet(vae.cuda(), q.cuda(), x, particles=500)
    assert here.nll == pytest.approx(there.nll, abs=0.1)


def test_rows_are_moved(monkeypatch):
    """To the device of the modules' parameters, which a machine without an accelerator can only note."""
    devices = []
    inner = Columns.rows

    def noted(columns, index, device):
        devices.append(device)
        return inner(columns, index, device)

    monkeypatch.setattr(Columns, "rows", noted)
    quiet(VAE(8, 2, hidden=8), Recognition(), (rows(30, 8) > 0).float(), rows=9)
    assert len(devices) > 10 and set(devices) == {torch.device("cpu")}


# ---- bits per dimension


def test_bits_per_dimension_of_one_column_by_one_run(monkeypatch):
    runs = []

    class Counted(VAE):
        def forward(self, x: Tensor) -> Tensor:
            runs.append(len(x))
            return super().forward(x)

    torch.manual_seed(0)
    levels = (rows(50, 8) > 0).to(torch.uint8)
    data = Data(levels, (8,), 2, Scale(2), "bits test")
    vae, q = Counted(8, 2, hidden=8), Recognition()
    counts = []
    for size in (50, 25, 10):
        runs.clear()
        found = quiet(vae, q, data, rows=size, particles=1, vectorize=False)
        assert found.bits_per_dim == pytest.approx(found.nll / (8 * math.log(2)), rel=1e-5)
        counts.append(len(runs) - 50 // size)
    # beside one run a chunk, as many runs however many chunks; and one to see if rows may be left out, where any are
    assert counts[1] == counts[2] == counts[0] + 1

    def two(x: Tensor, y: Tensor) -> None:
        vae(x)

    def q_two(x: Tensor, y: Tensor) -> None:
        q(x)

    assert quiet(two, q_two, (data, torch.zeros(50))).bits_per_dim is None


# ---- what bounds nothing


def mean(x: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mu, 1.0), obs=x)


def rate(x: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    scale = pyro.sample("scale", dist.Gamma(2.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mu, scale), obs=x)


def missing(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x, obs_mask=x > 0)


def annealed(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        with poutine.scale(scale=0.2):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 0.5), obs=x)


def annealed_guide(x: Tensor) -> None:
    with pyro.plate("data", len(x)), poutine.scale(scale=0.2):
        pyro.sample("z", dist.Normal(0.5 * x, 0.4))


def mixed_guide() -> AutoGuideList:
    guide = AutoGuideList(rate)
    guide.append(AutoNormal(poutine.block(rate, expose=["mu"])))
    guide.append(AutoDelta(poutine.block(rate, expose=["scale"])))
    return guide


def given_mu(x: Tensor) -> None:
    """A point that moves with another latent, and is none the less one."""
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    pyro.sample("scale", dist.Delta(mu.exp()))


UNBOUNDED = {
    "point": (mean, lambda: AutoDelta(mean), "the guide draws 'mu' from a point mass .Delta.*bound nothing"),
    "one of two": (rate, mixed_guide, "the guide draws 'scale' from a point mass"),
    "mode": (rate, lambda: AutoLaplaceApproximation(rate), "the guide draws 'mu', 'scale' from a point mass"),
    "moving": (rate, lambda: given_mu, "the guide draws 'scale' from a point mass"),
    "mask": (missing, lambda: AutoNormal(missing), "the mask of 'x_unobserved' in the model is not the guide's"),
    "scale": (annealed, lambda: annealed_guide, "a scale in the programs weighs 'z'"),
}


@pytest.mark.parametrize("case", UNBOUNDED)
def test_numbers_that_bound_nothing_say_so(case):
    model, make, words = UNBOUNDED[case]
    guide, x = make(), rows(8, 1)[:, 0]
    found = quiet(model, guide, x)
    assert len([note for note in found.notes if re.search(words, note)]) == 1
    assert len([note for note in found.notes if "bound nothing" in note]) == 1
    if case not in ("moving", "scale"):  # which has no parameter; which trains as it says
        notes = fit(model, guide, x, steps=1, batch_size=8, progress=False).notes
        assert [note for note in notes if re.search(words, note)]


def test_images_of_draws_are_no_points():
    x = rows(8, 1)[:, 0]
    for make in (AutoNormal, AutoMultivariateNormal):
        found = quiet(rate, make(rate), x)
        assert not [note for note in found.notes if "bound nothing" in note]

    def choice(x: Tensor) -> None:
        k = pyro.sample("k", dist.Bernoulli(0.5))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(k, 1.0), obs=x)

    found = quiet(choice, lambda x: pyro.sample("k", dist.Delta(torch.tensor(1.0))), x)  # a mass where masses are
    assert not [note for note in found.notes if "bound nothing" in note]


def test_looking_for_points_leaves_the_draws_as_they_are():
    x = rows(8, 1)[:, 0]
    guide = AutoNormal(rate)
    first, second = (quiet(rate, guide, x, seed=3) for _ in range(2))
    assert (first.elbo, first.nll) == (second.elbo, second.nll)


def test_divergences_are_sampled_where_asked_for():
    """In closed form all 3 particles say the same of z, sampled they do not; the nll has one sample of each."""
    exact = [quiet(model, guide, rows(), analytic=analytic) for analytic in (True, False)]
    assert exact[0].nll == exact[1].nll and exact[0].kl["z"] != exact[1].kl["z"]
    assert exact[1].elbo == pytest.approx(-exact[1].nll, rel=1e-5)  # constant weights
