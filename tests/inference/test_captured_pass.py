"""An evaluation whose passes are compiled has the numbers of the one that runs them as they are."""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from guides import SelfReflective
from ppl_models import SeReVAE
from ppl_models.inference import evaluate
from ppl_models.inference.pyro.evaluation import captured_pass
from ppl_models.inference.pyro.evaluation.captured_pass import Passes
from tests.inference.test_xla import gammas

pytest.importorskip("jax")


def taken(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each pass from now on was a compiled one, and all of more than one may be."""
    seen: list[bool] = []
    plain = Passes.__call__

    def call(self: Passes, batch: Any, particles: int) -> list[Tensor]:
        before = self.run is not None
        found = plain(self, batch, particles)
        seen.append(before)
        return found

    monkeypatch.setattr(Passes, "__call__", call)
    monkeypatch.setattr(captured_pass, "OFTEN", 2)
    return seen


def test_compiled_passes_give_the_numbers_of_the_others(monkeypatch):
    model = SeReVAE(6, 2, 2, 8, likelihood="gaussian").double()
    x = torch.randn(22, 6, dtype=torch.float64)
    guide = SelfReflective(model, x, hidden=8).double()
    how = {"particles": 7, "rows": 35, "progress": False}
    plain = evaluate(model, guide, x, **how)
    seen = taken(monkeypatch)
    after = torch.get_rng_state()
    found = evaluate(model, guide, x, **how)
    assert seen == [False, True, True, True, True]  # four batches of five, and one of two, whose shape is another
    assert torch.equal(torch.get_rng_state(), after)
    assert (found.elbo, found.nll, found.nll_error) == pytest.approx((plain.elbo, plain.nll, plain.nll_error), 1e-12)
    assert found.kl == pytest.approx(plain.kl, rel=1e-12) and found.notes == plain.notes


def reading(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z if float(x[0]) > -9 else -z, 1.0), obs=x)


def standard(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x / 2, 1.0))


@pytest.mark.parametrize(("pair", "width"), [((reading, standard), 0), (gammas(), 6)])
def test_passes_that_cannot_be_compiled_run_as_they_are(pair: tuple[Callable, Callable], width, monkeypatch):
    """One reads a value in Python, one draws what depends on a tensor."""
    x = torch.randn(20, width) if width else torch.randn(20)
    how = {"particles": 5, "rows": 10, "progress": False}
    plain = evaluate(*pair, x, **how)
    seen = taken(monkeypatch)
    assert evaluate(*pair, x, **how) == plain
    assert len(seen) == 10 and not any(seen)


def test_the_site_that_is_not_finite_is_named(monkeypatch):
    """In a compiled pass, which alone has a draw so far out."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(torch.where(z > 2.2, torch.inf, z), 1.0), obs=x)

    seen = taken(monkeypatch)
    with pytest.raises(ValueError, match="'x'"):
        evaluate(model, lambda x: standard(0 * x), torch.zeros(100), particles=5, rows=10, progress=False)
    assert seen[1]
