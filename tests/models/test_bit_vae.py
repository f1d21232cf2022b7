"""BitVAE against sums over all its bits: evidence, bounds, what each encoder leaves; who reads whom; steps that run."""

from functools import partial
from itertools import product
from math import cos, pi
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor
from torch.nn.functional import logsigmoid

from guides import Faithful, Ladder, MeanField, SelfReflective
from guides.parts.families.bits import AutoregressiveBits, Bits
from guides.parts.parents import needed_entries
from ppl_models import VAE, BitVAE
from ppl_models.factorization import compare
from ppl_models.inference import evaluate, fit
from ppl_models.inference.pyro.engine import compiled
from ppl_models.inference.pyro.passes.messengers import Substitute
from ppl_models.parts import Discretized, RelaxedBits
from tests.helpers.cases import few
from tests.helpers.uncompiled import as_it_is

FAMILIES = ("bits", "autoregressive-bits:hidden=8,context=4")
PERFECT = "faithful, minimal, perfect"


def built(event: int = 5, latent: int = 3, seed: int = 0, **sizes) -> BitVAE:
    """A model whose bits depend on each other given the data, with an uneven prior."""
    torch.manual_seed(seed)
    model = BitVAE(event, latent, hidden=16, **sizes).to(torch.get_default_dtype())
    with torch.no_grad():
        model.decoder.last.weight.mul_(4)
        model.logits.normal_()
    return model


def rows(model: BitVAE, n: int = 12) -> Tensor:
    with torch.no_grad():
        return Discretized(model)(n=n)


def all_of(model: BitVAE) -> Tensor:
    """All data that there can be."""
    return torch.tensor([*product((0.0, 1.0), repeat=model.event)], dtype=model.logits.dtype)


def divergence(model: BitVAE, guide: MeanField, x: Tensor, forward: bool = False) -> Tensor:
    """KL(q(b | x) || p(b | x)) of the bits themselves, or forward KL(p || q), by sums over all states, (n,)."""
    z = model.states()[:, None].expand(-1, len(x), -1)
    with poutine.trace() as found, Substitute({"z1": z}), pyro.plate("states", len(z), dim=-2):
        Discretized(guide)(x)
    log_q = found.trace.nodes["z1"]["fn"].log_prob(z)
    assert torch.allclose(log_q.logsumexp(0), torch.zeros(len(x), dtype=z.dtype), atol=1e-6)
    exact = model.log_joint(x).log_softmax(-1).T
    return (exact.exp() * (exact - log_q) if forward else log_q.exp() * (log_q - exact)).sum(0)


# sums over all bits


def test_evidence_by_a_loop_over_bits(double):
    model = built()
    x, total = rows(model, 4), []
    for bits in product((0.0, 1.0), repeat=3):
        b = torch.tensor(bits)
        prior = logsigmoid(torch.where(b > 0, model.logits, -model.logits)).sum()
        total.append(prior + dist.Bernoulli(logits=model.decoder(b)).log_prob(x).sum(-1))
    torch.testing.assert_close(model.log_joint(x), torch.stack(total, -1))
    torch.testing.assert_close(model.log_evidence(x), torch.stack(total, -1).logsumexp(-1))
    torch.testing.assert_close(model.log_evidence(all_of(model)).exp().sum(), torch.tensor(1.0))


def test_more_bits_than_are_summed_over_are_refused():
    with pytest.raises(ValueError, match="BitVAE: found 17 bits, want at most 16 for a sum over all states; try eval"):
        BitVAE(4, 17, hidden=4).log_evidence(torch.zeros(2, 4))
    with pytest.raises(ValueError, match="5"):
        built().log_evidence(torch.zeros(2, 4))


@pytest.mark.parametrize("family", FAMILIES)
def test_bounds_of_the_discretized_pair(family, double):
    """ELBO = evidence - KL, and the NLL tends to the evidence: both within 5 standard errors of the exact sums."""
    model = built(latent=4)
    x = rows(model, 60)
    guide = MeanField(model, x[:3], family=family, hidden=8).double()
    pair = Discretized(model), Discretized(guide)
    found, exact = evaluate(*pair, x, particles=2000, progress=False), model.log_evidence(x)
    assert found.nll == pytest.approx(-exact.mean().item(), abs=0.01)
    bound = (exact - divergence(model, guide, x)).mean().item()
    assert found.elbo == pytest.approx(bound, abs=5 * 3 / (60 * 2000) ** 0.5)  # terms vary by less than 3 nats
    assert found.elbo < -found.nll
    assert not found.notes
    relaxed = evaluate(model, guide, x, particles=50, progress=False)
    assert abs(relaxed.elbo - found.elbo) > 0.1  # a bound of another model


def test_the_relaxed_model_is_another_one(double):
    """What is drawn from it discretized has the exact frequencies; relaxed it has others."""
    model = built(event=2, latent=2)
    torch.manual_seed(0)
    exact, n = model.log_evidence(all_of(model)).exp(), 40_000
    error = (exact * (1 - exact) / n).sqrt()

    def off(program) -> Tensor:
        with torch.no_grad():
            x = program(n=n)
        share = (x[:, None] == all_of(model)).all(-1).double().mean(0)
        return ((share - exact) / error).abs().max()

    assert off(Discretized(model)) < 5
    assert off(model) > 10


# what encoders leave


def learned(model: BitVAE, x: Tensor, family: object, steps: int, forward: bool = False) -> Tensor:
    """The mean divergence that is left once it has been minimized over a guide: that of the exact bound of the bits."""
    torch.manual_seed(1)
    guide = MeanField(model, x[:3], family=family, hidden=64).double()
    if forward:
        optimizer: Any = torch.optim.LBFGS(guide.parameters(), max_iter=steps, line_search_fn="strong_wolfe")
        repeats = 1
    else:
        optimizer, repeats = torch.optim.Adam(guide.parameters(), lr=1e-2), steps

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = divergence(model, guide, x, forward).mean()
        loss.backward()
        return loss

    for k in range(repeats):
        if not forward:  # a cosine
            optimizer.param_groups[0]["lr"] = 5e-3 * (1 + cos(pi * k / steps))
        with pyro.validation_enabled(False):
            optimizer.step(closure)
    with torch.no_grad():
        return divergence(model, guide, x, forward).mean()


def best_product(model: BitVAE, x: Tensor, starts: int = 40) -> Tensor:
    """The least divergence of independent bits of each datum, by coordinate ascent from many starts, (n,)."""
    exact, bits = model.log_joint(x).log_softmax(-1), model.states() > 0
    mean = torch.rand(starts, len(x), model.latent)

    def masses(mean: Tensor) -> Tensor:
        return torch.where(bits, mean[..., None, :], 1 - mean[..., None, :]).prod(-1)

    for _ in range(100):
        for i in range(model.latent):
            sides = [mean.index_fill(-1, torch.tensor(i), value) for value in (1.0, 0.0)]
            on, off = ((masses(side) * exact).sum(-1) for side in sides)
            mean[..., i] = (on - off).sigmoid()
    q = masses(mean)
    return (torch.special.xlogy(q, q) - q * exact).sum(-1).amin(0)


def given(bits: int, n: int) -> tuple[BitVAE, Tensor]:
    model = built(10, bits).requires_grad_(False)
    model.logits.zero_()
    return model, rows(model, n)


def test_an_encoder_of_independent_bits_leaves_the_total_correlation(double):
    """Of KL(p || q), sum_i H(b_i) - H(b) of the posterior, exactly, and masks nothing: there is but one optimum."""
    model, x = given(4, 3)
    posterior, on = model.log_joint(x).softmax(-1), (model.states() > 0).double()
    entropy = -torch.special.xlogy(posterior, posterior).sum(-1)
    correlation = (dist.Bernoulli(posterior @ on).entropy().sum(-1) - entropy).mean()
    assert correlation > 0.1
    assert learned(model, x, "bits", 20, forward=True) == pytest.approx(correlation.item(), abs=1e-3)
    assert learned(model, x, AutoregressiveBits(hidden=32), 50, forward=True) < correlation / 20


@pytest.mark.slow
def test_an_encoder_of_independent_bits_keeps_a_gap_which_masks_close(double):
    """Of 8 bits, of the bound: no product is nearer than the best of each datum, found by itself; masks come nearer.

    Seen: 0.294 nats of the best product and of the encoder, 0.015 with masks; the evidence is -6.205.
    """
    model, x = given(8, 12)
    least = best_product(model, x).mean()
    assert least > 0.2
    assert least - 1e-6 < learned(model, x, "bits", 300) < least + 0.02
    assert learned(model, x, AutoregressiveBits(hidden=64), 600) < least / 10


# who reads whom


Seen = tuple[tuple[int, int], ...]
READS: dict[Seen, list[tuple[int, ...]]] = {
    ((0, 1), (1, 2), (2, 3)): [(), (0,), (1,), (2,)],  # a chain
    ((0, 1), (2, 3)): [(), (0,), (), (2,)],  # pairs
    ((0, 1), (0, 2), (0, 3)): [(), (0,), (0,), (0,)],  # one that all are seen with, drawn first
    ((0, 3), (1, 3), (2, 3)): [(), (0,), (0, 1), (0, 1, 2)],  # the same, drawn last
}


def seen_by_two(seen: Seen, x: Tensor) -> Tensor:
    """A decoder whose weights have a pattern: each value of x is made of two of four bits."""
    with pyro.plate("data", len(x)):
        b = pyro.sample("z1", RelaxedBits(torch.zeros(4), 0.5).to_event(1)).sigmoid()
        logits = torch.stack([2 * b[..., i] - 3 * b[..., j] + 1 for i, j in seen], -1)
        return pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)


@pytest.mark.parametrize("seen", few([(seen,) for seen in READS], lambda seen: len(seen) == 2))
def test_masks_are_those_of_the_faithful_inverse(seen):
    """With them no bit lacks another, and none reads one that it does not need; without, they read too many."""
    model, x = partial(seen_by_two, seen), torch.eye(3)[:, : len(seen)]
    needed = needed_entries(model, x)
    assert [tuple(j for j, read in enumerate(row) if read) for row in needed] == READS[seen]
    many = sum(4 - 1 - i - len(row) for i, row in enumerate(reversed(READS[seen])))
    for reads, extra in ((needed, 0), (None, many)):
        family = AutoregressiveBits(reads, hidden=16)
        report = compare(model, MeanField(model, x, family=family, hidden=8), x, level="element")
        assert report.faithful
        assert sum(u.startswith("z1") for row in report.rows for u in row.superfluous) == extra
    lacking = compare(model, MeanField(model, x, family="bits", hidden=8), x, level="element").missing
    assert {site: len(u) for site, u in lacking.items()} == {f"z1.{i}": len(r) for i, r in enumerate(READS[seen]) if r}


def test_networks_with_masks_take_fewer_calls():
    model, x = partial(seen_by_two, ((0, 1), (2, 3))), torch.eye(3)[:, :2]
    for reads, passes in ((needed_entries(model, x), 2), (None, 4)):
        guide = MeanField(model, x, family=AutoregressiveBits(reads), hidden=8)
        assert guide.factors.get_submodule("flow_q_z1").net.passes == passes


def test_one_bit_needs_no_other():
    model, x = BitVAE(4, 1, hidden=8), torch.eye(4)[:3]
    assert needed_entries(model, x) == ((False,),)
    for family in ("bits", "autoregressive-bits"):
        assert compare(model, MeanField(model, x, family=family, hidden=8), x, level="element").verdict == PERFECT


def test_discretized_pairs_are_inspected_as_they_are():
    model, x = built(4), torch.eye(4)[:3]
    pair = Discretized(model), Discretized(MeanField(model, x, family="bits", hidden=8))
    assert compare(*pair, x).verdict == PERFECT
    assert compare(*pair, x, level="element").verdict == "unfaithful"


# errors


def test_what_does_not_fit_is_refused():
    model, x = built(4), torch.eye(4)[:3]
    for words in ("bits", "autoregressive-bits"):
        with pytest.raises(
            ValueError, match=f"guide Ladder: found family '{words}', which has no product with a prior"
        ):
            Ladder(VAE(4, 2, hidden=4), x, family=words)
    with pytest.raises(ValueError, match="guide Ladder: site 'z1' has a .*RelaxedBits.* prior, precision weighting"):
        Ladder(model, x)
    with pytest.raises(ValueError, match="family 'autoregressive-bits': found 2 rows of reads, want 3 of 3"):
        MeanField(model, x, family=AutoregressiveBits([[False, False], [True, False]]))
    with pytest.raises(ValueError, match="reads: found entries that read themselves"):
        MeanField(model, x, family=AutoregressiveBits([[True, False, False]] * 3))
    with pytest.raises(ValueError, match="needed_entries: found the site 'z2', want one of z1"):
        needed_entries(model, x, site="z2")
    with pytest.raises(ValueError, match="temperature"):
        Bits(temperature=0.0)
    with pytest.raises(ValueError, match="Discretized: found no relaxed bits .the program draws 'z1' from other"):
        evaluate(Discretized(model), Discretized(MeanField(model, x, hidden=4)), x, progress=False)
    with pytest.raises(
        ValueError, match="fit: the guide draws the site 'z1' from a .*RelaxedBits.*, not reparametrized"
    ):
        fit(Discretized(model), Discretized(MeanField(model, x, family="bits", hidden=4)), x, steps=1, progress=False)


# training


@pytest.mark.parametrize("guide", [MeanField, SelfReflective, Faithful])
def test_families_work_at_other_sites(guide):
    """Around a Gaussian prior, and for globals: densities in their units."""
    model, x = VAE(4, 2, hidden=4), torch.eye(4)
    for family in FAMILIES:
        found = fit(model, guide(model, x, family=family, hidden=4), x, steps=2, progress=False)
        assert not found.notes

    def of_globals(x: Tensor) -> None:
        w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(w, 1.0).to_event(1), obs=x)

    for family in FAMILIES if guide is Faithful else ():
        found = fit(of_globals, guide(of_globals, x[:, :2], family=family), x[:, :2], steps=2, progress=False)
        assert all(note.startswith("start of w: the mode") for note in found.notes)


def test_low_temperatures_of_single_precision():
    """At t = 0.1 the loss and all gradients are finite: nothing is clamped at 0 or 1."""
    model = built(6, 4, temperature=0.1)
    x = rows(model, 20)
    for family in (Bits(0.1), AutoregressiveBits(temperature=0.1, hidden=8)):
        guide = MeanField(model, x[:3], family=family, hidden=8)
        found = fit(model, guide, x, steps=30, batch_size=10, lr=1e-2, progress=False)
        assert all(torch.isfinite(torch.tensor(record["loss"])) for record in found.history)
        assert all(torch.isfinite(p).all() for p in (*model.parameters(), *guide.parameters()))


@pytest.mark.parametrize("compiler", ["as it is", pytest.param("xla", marks=pytest.mark.slow)])
@pytest.mark.parametrize("family", FAMILIES)
def test_captured_steps_are_the_eager_ones(family, compiler, double, monkeypatch):
    graphs: list[torch.fx.GraphModule] = []
    if compiler == "as it is":
        monkeypatch.setattr(compiled, "compiled", as_it_is(graphs.append))
    x, found = rows(built(), 20), []
    for compile in (False, True if compiler == "as it is" else compiler):
        pyro.set_rng_seed(0)
        model = built()
        guide = MeanField(model, x[:3], family=family, hidden=8).double()
        run = fit(model, guide, x, steps=5, batch_size=10, seed=0, compile=compile, progress=False)
        assert not run.notes
        found.append([*model.parameters(), *guide.parameters()])
    assert graphs or compiler == "xla"
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)
