"""Programs that are not the same from run to run: an inspection says so, and otherwise runs none again in vain."""

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from guides import MeanField
from ppl_models import VAE
from ppl_models.factorization import compare
from ppl_models.factorization.comparison import by_site
from ppl_models.factorization.probing.inspect_guide import inspect_pair
from ppl_models.programs.laboratory import experiments


class Drifting:
    """A number that grows with every nth call."""

    def __init__(self, every: int) -> None:
        self.calls, self.every = 0, every

    def __call__(self) -> float:
        self.calls += 1
        return 0.1 * (self.calls // self.every)


class Alternating(Drifting):
    """A number that is another at every nth call."""

    def __call__(self) -> float:
        super().__call__()
        return 0.1 * (self.calls % self.every == 0)


def still() -> float:
    return 0.0


def pair(of_model: Callable[[], float], of_guide: Callable[[], float]) -> tuple[Callable, Callable]:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z + of_model(), 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x + of_guide(), 1.0))

    return model, guide


@pytest.mark.parametrize("hidden", [Drifting(1), Drifting(2), Alternating(2)], ids=["each", "second", "in turns"])
@pytest.mark.parametrize("where", ["model", "guide"])
def test_a_number_that_changes_from_run_to_run_is_doubted(where, hidden):
    report = compare(*(pair(hidden, still) if where == "model" else pair(still, hidden)), torch.randn(3))
    assert report.faithful is None
    assert any(where in reason and "changes from run to run" in reason for reason in report.reasons), report.reasons


@pytest.mark.parametrize("every", [2, 3])
def test_a_latent_that_comes_with_every_nth_call_is_refused(every):
    count = Alternating(every)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            also = pyro.sample("also", dist.Normal(0.0, 1.0)) if count() else 0.0
            pyro.sample("x", dist.Normal(z + also, 1.0), obs=x)

    with pytest.raises(ValueError, match="the model draws 'also' in some runs and not in others"):
        compare(model, pair(still, still)[1], torch.randn(3))


def test_what_is_seen_to_be_the_same_is_not_run_again():
    """A first run, values, a run of these, the places of data in two, provenance, each copy of each site; no more."""
    x = torch.rand(3, 12).round()
    model = VAE(12, latent=2, hidden=4)
    guide = MeanField(model, x, hidden=4)
    with experiments([model, guide], (x,), {}) as (p, q):
        assert by_site(inspect_pair(p, q)).faithful
    of_model, of_guide = (1, 1, 1, 2, 1, 6), (1, 1, 1, 6)
    assert p.laboratory.runs <= sum(of_model) + sum(of_guide)
