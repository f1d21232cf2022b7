"""VampPrior: its density and draws, the rate that is a mutual information, and one encoder for prior and posterior."""

from math import log
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor, nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from guides import BottomUp, Faithful, Ladder, MeanField, SelfReflective
from ppl_models import SeReVAE, VampVAE, data
from ppl_models.factorization import compare, factorization
from ppl_models.inference import elbo, evaluate, fit, importance_weighted, mutual_information
from ppl_models.inference.pyro.passes.terms import terms
from ppl_models.inference.pyro.training.checkpoint import CHECKPOINT, read
from ppl_models.inference.pyro.training.training_step import training_step
from ppl_models.inference.training.loop import Loop
from ppl_models.parts import EncoderMixture, GatedNet, VampPrior
from ppl_models.parts.distributions import diagonal_moments
from tests.helpers.processes import Killed, bomb

WIDTH, SIZES = 6, {"latent": 2, "hidden": 5, "components": 4}


def rows(n: int = 7, seed: int = 1, width: int = WIDTH) -> Tensor:
    found = torch.bernoulli(torch.full((n, width), 0.5), generator=torch.Generator().manual_seed(seed))
    return found.to(torch.get_default_dtype())


def built(seed: int = 0, likelihood: str = "bernoulli", **sizes: int) -> VampVAE:
    torch.manual_seed(seed)
    return VampVAE(WIDTH, **SIZES | sizes, likelihood=likelihood)


def mixture(loc: Tensor, scale: Tensor) -> MixtureSameFamily:
    """Equal parts of diagonal Gaussians, by torch."""
    return MixtureSameFamily(Categorical(logits=torch.zeros(len(loc))), Independent(Normal(loc, scale), 1))


# the network


def test_gates_by_hand(double):
    torch.manual_seed(0)
    net, a, b = GatedNet([3, 2], 4, hidden=5), torch.randn(7, 3), torch.randn(6, 1, 2)

    def gated(h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        image = h @ weight.T + bias
        return image[..., :5] * torch.sigmoid(image[..., 5:])

    first = [gated(x, net.first[i].images[0].weight, net.first[i].images[0].bias) for i, x in enumerate((a, b))]
    joined = torch.cat([each.expand(6, 7, 5) for each in first], -1)
    second = torch.cat([layer.weight for layer in net.second.images], -1)
    expected = gated(joined, second, net.second.images[0].bias) @ net.last.weight.T + net.last.bias
    torch.testing.assert_close(net(a, b), expected)


def test_gates_begin_as_he_et_al():
    torch.manual_seed(0)
    weights = [*(layer.weight for layer in GatedNet([300, 100], 10, hidden=200).second.images)]
    found = torch.cat(weights, -1)  # 400 x 400: the error of a variance is 2 / 160,000 of it, rooted
    assert abs(found.var() * 200 - 1) < 4 * (2 / found.numel()) ** 0.5


# the distribution


def test_density_is_that_of_the_mixture(double, monkeypatch):
    torch.manual_seed(0)
    loc, scale = torch.randn(5, 3), torch.rand(5, 3) + 0.1
    fn, exact = EncoderMixture(loc, scale, lambda x: x, 9), mixture(loc, scale)
    z = 2 * torch.randn(4, 7, 3)
    for found in (fn, fn.expand([7]), fn.expand([4, 7])):
        torch.testing.assert_close(found.log_prob(z), exact.log_prob(z))
        assert found.encodes == 9
    assert fn.expand([4, 7]).log_prob(z[0, 0]).shape == (4, 7)
    whole = fn.log_prob(z)
    monkeypatch.setattr("ppl_models.parts.vamp.LARGEST", 3 * 5 * 2)
    assert torch.equal(fn.log_prob(z), whole)  # a slice at a time
    torch.testing.assert_close(fn.mean, exact.mean)
    torch.testing.assert_close(fn.expand([2]).variance, exact.variance.expand(2, 3))


def test_draws_have_the_frequencies_of_cells():
    torch.manual_seed(0)
    loc, scale = torch.tensor([[-2.0], [0.0], [1.0]]), torch.tensor([[0.3], [1.0], [0.2]])
    n, edges = 40_000, torch.linspace(-3, 3, 13)
    draws = EncoderMixture(loc, scale, lambda x: x, 1).expand([100]).sample(torch.Size([n // 100]))
    assert draws.shape == (n // 100, 100, 1) and not draws.requires_grad
    found = torch.bucketize(draws.flatten(), edges).bincount(minlength=14) / n
    below = Normal(loc, scale).cdf(edges).mean(0)
    exact = torch.diff(torch.cat([torch.zeros(1), below, torch.ones(1)]))
    assert ((found - exact).abs() < 4.5 * (exact * (1 - exact) / n).sqrt()).all()


def test_one_component_is_a_gaussian(double):
    model = built(components=1)
    (loc, scale), z = model.prior.moments(model.prior.pseudo_inputs), torch.randn(8, 2)
    torch.testing.assert_close(model.prior().log_prob(z), Normal(loc, scale).log_prob(z).sum(-1))


def test_dropout_in_an_encoder_is_not_in_the_prior():
    torch.manual_seed(0)
    prior = VampPrior(nn.Sequential(nn.Dropout(0.5), nn.Linear(WIDTH, 4)), WIDTH, 3).train()
    one, other = prior(), prior()
    assert torch.equal(one.loc, other.loc)
    assert all(module.training for module in prior.modules())
    x = torch.ones(1, WIDTH)
    assert not torch.equal(prior.moments(x)[0], prior.moments(x)[0])


def test_pseudo_inputs_are_where_data_are():
    bounded, free = ("bernoulli", "unit-gaussian:0.1", "logistic:4"), ("gaussian", "gaussian:0.5", "shared-gaussian")
    for likelihood, unit in [*((each, True) for each in bounded), *((each, False) for each in free)]:
        model = built(likelihood=likelihood)
        assert abs(model.prior.rows.mean() - 0.05) < 0.01
        model.prior.rows.data[0, :2] = torch.tensor([-3.0, 2.0])
        assert model.prior.pseudo_inputs[0, :2].tolist() == ([0.0, 1.0] if unit else [-3.0, 2.0])


# the rate


def test_with_all_data_for_pseudo_inputs_the_rate_is_the_mutual_information(double):
    """Of the encoder on these data, by quadrature, for codes that overlap, coincide and are apart."""
    x, grid = rows(5), torch.linspace(-60, 60, 24_001)
    for gain in (0.0, 1.0, 30.0):
        model = built(latent=1, components=5)
        model.prior.rows.data.copy_(x)
        net = model.prior.network
        net.last.weight.data[0] *= gain
        net.last.weight.data[1:] = 0
        net.last.bias.data = torch.tensor([0.0, -1.0])
        loc, scale = model.prior.moments(x)
        each = Normal(loc, scale).log_prob(grid)  # (5, points)
        step = grid[1] - grid[0]
        whole = each.logsumexp(0) - log(5)
        entropy = -(whole.exp() * whole).sum() * step
        information = entropy - Normal(loc, scale).entropy().mean()
        rate = ((each - model.prior().log_prob(grid.unsqueeze(-1))) * each.exp()).sum(-1).mean() * step
        torch.testing.assert_close(rate, information, rtol=1e-8, atol=1e-8)
        assert -1e-9 < rate < log(5) + 1e-9
        assert rate < 1e-9 if gain == 0 else rate > 0.05
        assert rate > log(5) - 0.05 or gain < 30


def test_the_rate_of_the_pair_is_its_information(double):
    """The two estimates of the library agree code by code, whose prior is the encoder's average over the same rows."""
    x = rows(30)
    model = built(components=30)
    model.prior.rows.data.copy_(x)
    model.prior.network.last.weight.data[:2] *= 3
    found = mutual_information(model, MeanField(model, x), x)
    assert abs(found.rate - found.lower) < 1e-10 and found.rate > 0.3
    assert found.marginal[1] < 1e-10


# one encoder


def test_an_unknown_encoder_is_refused_where_the_model_has_the_only_one():
    with pytest.raises(ValueError, match="guide MeanField: found encoder 'nets', want 'separate'"):
        MeanField(built(), rows(), encoder="nets")


@pytest.mark.parametrize(("layers", "guide"), [(1, MeanField), (2, MeanField), (2, SelfReflective)])
def test_the_factor_of_the_top_is_the_encoder_of_the_prior(double, layers, guide):
    model, x = built(layers=layers), rows()
    q = guide(model, x[:3], hidden=4)
    q(x)
    found = q.trace.nodes["z1"]
    for mine, expected in zip(diagonal_moments(found["fn"]), model.prior.moments(x), strict=True):
        torch.testing.assert_close(mine, expected)
    assert not {id(p) for p in q.parameters()} & {id(p) for p in model.parameters()}
    assert not any("q_z1" in name for name in q.state_dict())
    assert bool(list(q.parameters())) == (layers == 2)


def test_the_encoder_is_trained_through_prior_and_posterior(double):
    model, x = built(), rows()
    q = MeanField(model, x)
    z = q(x)["z1"].detach()
    for log_prob in (model.prior().log_prob(z), model.prior.encode(x).log_prob(z)):
        slope = torch.autograd.grad(log_prob.sum(), model.prior.network.last.weight)[0]
        assert slope.abs().max() > 1e-3
    elbo(terms(model, q, (x,))).backward()
    assert model.prior.rows.grad.abs().max() > 0


@pytest.mark.parametrize("options", [{}, {"objective": importance_weighted}])
def test_pseudo_inputs_are_encoded_once_a_step(options):
    model, x = built(layers=2), rows(9)
    q = SelfReflective(model, x[:3], hidden=4)
    seen: list[int] = []
    model.prior.network.register_forward_hook(lambda _, args, __: seen.append(args[0].numel() // WIDTH))
    step = training_step(model, q, (x,), particles=6, compile=False, **options)
    seen.clear()
    step(x)
    assert sorted(seen) == [4, 9]


@pytest.mark.parametrize(("layers", "guide"), [(1, MeanField), (2, SelfReflective)])
def test_a_compiled_step_is_the_eager_one(double, layers, guide):
    pytest.importorskip("jax")
    found = []
    for compile in (False, "xla"):
        model, x = built(layers=layers), rows(9)
        q = guide(model, x[:3], hidden=4)
        torch.manual_seed(1)
        step = training_step(model, q, (x,), particles=2, compile=compile, lr=1e-2)
        torch.manual_seed(2)
        losses = [float(step(x)) for _ in range(4)]
        found.append([torch.tensor(losses), *(p.detach().clone() for m in (model, q) for p in m.parameters())])
        step.close()
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-10)


def test_a_checkpoint_holds_the_encoder_once_and_a_run_goes_on_bit_for_bit(tmp_path, monkeypatch):
    x, options = rows(40), {"steps": 8, "every": 3, "batch_size": 10, "ema": 0.9, "resume": True, "progress": False}

    def trained(folder: Path) -> VampVAE:
        model = built()
        fit(model, MeanField(model, x[:3]), x, folder=folder, seed=0, compile=False, **options)
        return model

    whole = trained(tmp_path / "whole").state_dict()
    with monkeypatch.context() as patch:
        bomb(patch, Loop, "_save", True, 2)
        with pytest.raises(Killed):
            trained(tmp_path / "cut")
    assert read(tmp_path / "cut" / CHECKPOINT).about["step"] < 8
    for name, value in trained(tmp_path / "cut").state_dict().items():
        assert torch.equal(value, whole[name]), name
    kept, own = read(tmp_path / "whole" / CHECKPOINT), "model.prior.network.last.weight"
    assert {name for name in kept.weights if name.endswith("last.weight")} == {own, "model.decoder.last.weight"}
    kinds = {name.removesuffix(f".{own}") for name in kept.training if own in name}
    assert kinds == {"parameter", "average", "exp_avg", "exp_avg_sq"}


# who takes it, and who has a factor of its own


def test_verdicts_of_one_layer():
    x, one = rows(), built()
    assert str(factorization(one, x)) == "p(z1) p(x | z1)"
    for guide in (MeanField, SelfReflective, BottomUp, Faithful):
        report = compare(one, guide(one, x, hidden=4), x)
        assert (str(report.guide), report.verdict) == ("q(z1 | x)", "faithful, minimal, perfect")


def test_other_guides_and_families_have_factors_of_their_own():
    model, x = built(layers=2), rows()
    for guide in (BottomUp, Faithful):
        assert "factors.q_z1.last.weight" in guide(model, x, hidden=4).state_dict()
    for family in ("rank-one", {"z1": "full"}):
        q = SelfReflective(model, x, hidden=4, family=family)
        assert "factors.q_z1.last.weight" in q.state_dict()
    assert "factors.q_z1.last.weight" not in SelfReflective(model, x, hidden=4, family={"z2": "full"}).state_dict()
    with pytest.raises(ValueError, match="guide Ladder: site 'z1' has a EncoderMixture prior.* try SelfReflective"):
        Ladder(model, x)


def test_a_factor_that_reads_more_than_the_encoder_is_the_guides_own():
    prior = VampPrior(GatedNet([WIDTH], 4, 5), WIDTH, 3)

    def conditional(x: Tensor, c: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior())
            pyro.sample("x", dist.Normal((z.sum(-1) + c).unsqueeze(-1), torch.ones(WIDTH)).to_event(1), obs=x)

    x, c = rows(3), torch.tensor([0.0, 1.0, 2.0])
    q = MeanField(conditional, x, c, hidden=4)
    assert "factors.q_z.last.weight" in q.state_dict()
    assert "factors.q_z.last.weight" not in MeanField(conditional, x, c, evidence="observed", hidden=4).state_dict()


def test_a_mask_on_the_prior_is_on_the_posterior():
    prior, keep = VampPrior(GatedNet([WIDTH], 4, 5), WIDTH, 3), torch.tensor([True, False, True])

    def masked(x: Tensor) -> None:
        with pyro.plate("data", len(x)), poutine.mask(mask=keep):
            z = pyro.sample("z", prior())
            pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True), torch.ones(WIDTH)).to_event(1), obs=x)

    x = rows(3)
    found = terms(masked, MeanField(masked, x), (x,))
    assert found.log_q["z"].flatten()[1] == 0 and (found.log_q["z"].flatten()[::2] != 0).all()


def test_the_self_reflective_vae_takes_it_on_the_first_code_alone(double):
    torch.manual_seed(0)
    model, x = SeReVAE(WIDTH, layers=3, latent=2, hidden=8, prior="vamp"), rows()
    assert str(factorization(model, x)) == "p(z1) p(x1 | z1) p(z2 | z1) p(x2 | x1, z2) p(z3 | z2) p(x3 | x2, z3)"
    q = SelfReflective(model, x[:3], hidden=4)
    assert compare(model, q, x).verdict == "faithful, not minimal, perfect"  # its last codes read all of x, as ever
    q(x)
    model_trace, factors = q.get_traces()
    assert isinstance(model_trace.nodes["z1"]["fn"], EncoderMixture)
    for name in ("z2", "z3"):
        prior, own = model_trace.nodes[name]["fn"], factors.nodes[name]["fn"]
        assert prior.transforms and all(a is b for a, b in zip(prior.transforms, own.transforms, strict=True))
    for mine, expected in zip(diagonal_moments(factors.nodes["z1"]["fn"]), model.vamp.moments(x), strict=True):
        torch.testing.assert_close(mine, expected)
    with pytest.raises(ValueError, match="EncoderMixture"):
        Ladder(model, x)


# at work


def test_evaluation_and_samples():
    model, x = built(layers=2), rows(20)
    q = SelfReflective(model, x[:3], hidden=4)
    found = evaluate(model, q, x, particles=50, progress=False)
    assert found.nll < -found.elbo and found.kl.keys() == {"z1", "z2"}
    pyro.set_rng_seed(0)
    assert model(n=5).shape == (5, WIDTH)


@pytest.mark.slow
def test_it_learns_and_the_mixture_fits_better_than_a_gaussian():
    """Equal steps on digits, on the same test images: the difference is many of its standard errors."""
    train, test = data.load("digits")
    nll = []
    for components in (1, 100):
        torch.manual_seed(0)
        model = VampVAE((1, 8, 8), latent=8, hidden=64, components=components)
        q = MeanField(model, train[:3])
        fit(model, q, train, steps=600, lr=2e-3, batch_size=100, seed=0, progress=False)
        nll.append(evaluate(model, q, test, particles=20, seed=0, progress=False).nll)
    assert nll[1] < nll[0] - 0.2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layers": 3}, "VampVAE: found layers=3, want 1 or 2"),
        ({"components": 0}, "VampVAE: found components=0"),
        ({"latent": -1}, "VampVAE: found latent=-1"),
    ],
)
def test_wrong_sizes(arguments, message):
    with pytest.raises(ValueError, match=message):
        VampVAE(WIDTH, **arguments)


def test_the_second_layer_starts_near_its_prior():
    """16 nats, where last layers of the usual size give 22,000 (of four seeds 4 to 16, and 1,700 to 22,000)."""
    torch.manual_seed(0)
    model = VampVAE(event=20, latent=8, layers=2, hidden=64, components=5)
    x = torch.bernoulli(torch.full((50, 20), 0.5))
    guide = SelfReflective(model, x[:3], hidden=16)
    assert evaluate(model, guide, x, particles=20, progress=False).kl["z2"] < 50
