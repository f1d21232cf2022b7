"""What `compare` says of discrete pairs whose verdicts were worked out by hand before it saw them."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from ppl_models.factorization import compare
from tests.helpers.pairs.kept_back import KEPT


def test_there_are_twenty():
    assert len(KEPT) == 20


@pytest.mark.parametrize("name", KEPT)
def test_verdict_of_a_pair_that_was_kept_back(name):
    kept = KEPT[name]
    model, guide, args = kept.build()
    report = compare(model, guide, *args)
    assert {site: {*names} for site, names in report.missing.items() if names} == kept.missing, str(report)
    assert report.faithful is (not kept.missing), str(report)


def chosen_means(x):
    """A mixture whose component, a label, chooses the mean of a datum."""
    with pyro.plate("components", 3):
        mean = pyro.sample("mean", dist.Normal(0.0, 5.0))
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.Categorical(torch.ones(3) / 3))
        pyro.sample("x", dist.Normal(mean[k], 0.7), obs=x)


def with_hidden_states(x):
    """A chain of states, each of which chooses the row of a table that the next one is drawn from."""
    with pyro.plate("states", 2):
        table = pyro.sample("table", dist.Dirichlet(torch.ones(2)))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z1", dist.Categorical(torch.tensor([0.5, 0.5])))
        pyro.sample("x1", dist.Normal(z.float(), 0.5), obs=x[:, 0])
        z = pyro.sample("z2", dist.Categorical(table[z]))
        pyro.sample("x2", dist.Normal(z.float(), 0.5), obs=x[:, 1])


def fixed_groups(x):
    """Groups that are known choose the mean of a datum: no mean meets another."""
    with pyro.plate("groups", 3):
        mean = pyro.sample("mean", dist.Normal(0.0, 5.0))
    with pyro.plate("data", len(x)):
        flag = pyro.sample("flag", dist.Bernoulli(0.5))
        pyro.sample("x", dist.Normal(mean[torch.arange(len(x)) % 3] + flag, 0.7), obs=x)


CHOOSING = {"components": (chosen_means, 0), "states": (with_hidden_states, 2), "groups": (fixed_groups, 0)}


@pytest.mark.parametrize("plate", CHOOSING)
@pytest.mark.parametrize("rows", [3, 12])
def test_what_a_discrete_site_chooses_is_all_that_it_might_choose(plate, rows):
    """Copies of what is chosen are parents of one datum, whichever it was at first; those of known groups are not."""
    model, width = CHOOSING[plate]
    x = torch.randn(rows, width) if width else torch.randn(rows)
    report = compare(model, pyro.poutine.block(model, hide=["x", "x1", "x2"]), x)  # independent copies
    assert any(f"[{plate}']" in str(lacks) for lacks in report.missing.values()) is (plate != "groups"), str(report)
