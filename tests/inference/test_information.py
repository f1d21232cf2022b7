"""Mutual information from both sides, and the encoder read backwards: against sums, closed forms and plain loops."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor

from guides import BottomUp, Faithful, MeanField, SelfReflective
from ppl_models import DLGM, VAE, HierarchicalVAE, LinearGaussian, PixelVAE, SeReVAE
from ppl_models.inference import Joint, mutual_information, reversal
from ppl_models.inference.pyro.evaluation.densities import Densities
from ppl_models.inference.pyro.evaluation.discrete import coupled
from ppl_models.inference.pyro.passes.messengers import Substitute
from tests.helpers.cases import few


def table(seed: int, n: int = 5, m: int = 4) -> Joint:
    drawn = torch.rand(n, m, generator=torch.Generator().manual_seed(seed), dtype=torch.double).pow(3)
    return Joint(drawn / drawn.sum())


def programs(joint: Joint):
    """(model, guide) of a discrete joint; the model's p(z) is uniform."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Categorical(torch.ones(len(joint.codes), dtype=torch.double)))
            pyro.sample("x", dist.Categorical(joint.decoder[z]), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Categorical(joint.encoder[x]))

    return model, guide


def line(scale: float = 0.5):
    """(model, guide) with z ~ N(x, scale^2) of x ~ N(0, 1), of which I = log(1 + 1 / scale^2) / 2."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, scale))

    return model, guide


# Exact joints


def test_information_identities_hold_on_discrete_joints():
    for seed in range(20):
        joint, prior = table(seed), torch.full((4,), 0.25)
        direct = (joint.table * (joint.encoder / joint.codes).log()).sum().item()
        rate = (joint.table * (joint.encoder / prior).log()).sum().item()
        assert abs(joint.information - direct) < 1e-12
        assert abs(joint.information - (joint.entropy - joint.conditional_entropy)) < 1e-12
        assert abs(rate - joint.information - joint.divergence(prior)) < 1e-12
        assert (joint.data @ joint.transition - joint.data).abs().max() < 1e-15
        values = torch.randn(5, 3, dtype=torch.double)
        total = (joint.data @ values.square() - (joint.data @ values) ** 2).sum()
        between = (joint.codes @ (joint.decoder @ values).square() - (joint.data @ values) ** 2).sum()
        torch.testing.assert_close(joint.codes @ joint.variance(values) + between, total)  # the law of total variance


def test_couplings_keep_the_marginals_and_move_the_information():
    data, codes = torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.tensor([0.3, 0.3, 0.4])
    found = [coupled(data, codes, s) for s in (0.0, 0.3, 1.0)]
    for joint in found:
        torch.testing.assert_close(joint.data, data.double())
        torch.testing.assert_close(joint.codes, codes.double())
    information = [joint.information for joint in found]
    assert abs(information[0]) < 1e-12 and information[0] < information[1] < information[2]


def test_codes_and_data_that_never_occur_are_no_trouble():
    joint = Joint(torch.tensor([[0.5, 0.0], [0.5, 0.0]]))
    assert joint.information == 0 and joint.transition.sum() == 2 and joint.variance(torch.eye(2)).isfinite().all()
    joint = Joint(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    assert joint.information == joint.entropy == 0 and joint.transition.isfinite().all()

    assert joint.divergence(torch.tensor([1.0, 0.0])) == 0  # the second code is none of either
    assert joint.divergence(torch.tensor([0.0, 1.0])) == float("inf")


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_couplings_are_between_independence_and_order(strength):
    with pytest.raises(ValueError, match="coupled: found strength = .*, want 0 to 1"):
        coupled(torch.tensor([0.5, 0.5]), torch.tensor([0.5, 0.5]), strength)


@pytest.mark.parametrize(
    "bad",
    [torch.rand(3), torch.tensor([[1.5, -0.5]]), torch.rand(2, 2), torch.tensor([[0.5, float("nan")]])],
)
def test_what_is_no_joint_is_refused(bad):
    with pytest.raises(ValueError, match=r"Joint: found a table of shape .*want \(data, codes\), at least 0, of sum 1"):
        Joint(bad)


# The bracket


@pytest.mark.parametrize("seed", few(range(3), lambda seed: seed == 0))
def test_a_discrete_joint_is_bracketed(seed):
    joint = table(seed)
    generator = torch.Generator().manual_seed(seed)
    small = [torch.multinomial(joint.data, 20, True, generator=generator) for _ in range(300)]
    model, guide = programs(joint)
    found = [mutual_information(model, guide, x, seed=i) for i, x in enumerate(small)]
    lower, without, rate, upper = (
        torch.tensor([getattr(f, name) for f in found]) for name in ("lower", "leave_one_out", "rate", "upper")
    )
    for values, sign in ((lower, 1), (without, -1), (rate, -1), (upper, -1)):  # in the mean on its side of the truth
        finite = values[values.isfinite()]  # a code that no other datum has: an upper bound of infinity
        assert sign * (joint.information - finite.mean()) > -4 * finite.std() / 300**0.5  # four standard errors
    assert lower.mean() < joint.information < without[without.isfinite()].mean()
    large = mutual_information(model, guide, torch.multinomial(joint.data, 4000, True, generator=generator))
    assert abs(large.lower - joint.information) < 4 * large.lower_error
    exact = joint.information + joint.divergence(torch.full((4,), 0.25))
    assert abs(large.rate - exact) < 4 * large.lower_error + 1e-6
    assert large.marginal[0] <= joint.divergence(torch.full((4,), 0.25)) + 0.05


def test_of_a_whole_population_the_lower_bound_is_the_information_itself():
    """Every datum once: q(z) is then the mean over the data, and only the codes are drawn."""
    joint = Joint(table(1).encoder / 5)  # uniform data
    model, guide = programs(joint)
    found = torch.tensor([mutual_information(model, guide, torch.arange(5), seed=i).lower for i in range(400)])
    assert abs(found.mean() - joint.information) < 4 * found.std() / 400**0.5


def test_the_upper_bound_is_one_in_the_mean_though_it_is_the_smaller_of_two():
    """q(z) = p(z), so that both bounds are close: their plain minimum is below the truth by eight standard errors."""
    rho = 0.8
    exact = -0.5 * math.log(1 - rho**2)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(rho * x, (1 - rho**2) ** 0.5))

    generator = torch.Generator().manual_seed(0)
    found = [mutual_information(model, guide, torch.randn(30, generator=generator), seed=i) for i in range(300)]
    upper = torch.tensor([f.upper for f in found])
    assert upper.mean() > exact - 4 * upper.std() / 300**0.5
    least = torch.tensor([min(f.leave_one_out, f.rate) for f in found])
    assert least.mean() < exact - 4 * least.std() / 300**0.5


def test_scales_of_the_programs_do_not_count():
    x = torch.randn(500, generator=torch.Generator().manual_seed(0))
    plain = mutual_information(*line(), x)
    weighed = [lambda x, p=p: poutine.scale(p, 0.1)(x) for p in line()]
    again = mutual_information(*weighed, x)
    assert abs(again.lower - plain.lower) < 1e-6 and abs(again.rate - plain.rate) < 1e-6


def test_what_leaves_q_unknown_is_refused():
    model, _ = line()
    x = torch.randn(20)

    def auxiliary(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(x, 1.0), infer={"is_auxiliary": True})
            pyro.sample("z", dist.Normal(a, 0.1))

    def masked(program):
        return lambda x: poutine.mask(program, mask=x > 0)(x)

    with pytest.raises(
        ValueError, match="the guide has the site 'a', which the model does not draw, want q.z | x. itself"
    ):
        mutual_information(model, auxiliary, x)
    with pytest.raises(ValueError, match="mutual_information: the latent 'z' has a mask; drop the rows"):
        mutual_information(*map(masked, line()), x)

    def wrong_with_many(x):
        many = any(getattr(frame, "name", "") == "_particles" for frame in pyro.poutine.runtime._PYRO_STACK)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.flip(0) if many else x, 1.0))

    with pytest.raises(ValueError, match="the guide is not right with many particles in one pass"):
        mutual_information(model, wrong_with_many, x)


@pytest.mark.parametrize("scale", [0.01, 0.5, 3.0])
def test_a_linear_gaussian_code_is_bracketed(scale):
    """z = x + scale e of x ~ N(0, I_2): I = log(1 + 1 / scale^2), in float32."""
    x = torch.randn(3000, 2, generator=torch.Generator().manual_seed(0))

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, scale).to_event(1))

    exact = math.log(1 + scale**-2)
    found = mutual_information(model, guide, x)
    assert found.lower - 4 * found.lower_error < exact < found.upper + 4 * found.upper_error
    assert found.lower <= found.ceiling + 1e-9 and found.ceiling == math.log(3000)
    if scale == 0.01:  # 9.2 nats cannot be seen through log 3000 = 8.0
        assert found.lower > found.ceiling - 1 and exact > found.ceiling
    else:
        assert abs(found.lower - exact) < 4 * found.lower_error + 0.02
    assert "log n of n = 3000" in str(found)


def test_the_ceiling_is_reached_in_the_log_domain():
    """Codes so narrow that every density but its own underflows, and its own is e^1000."""
    x = torch.arange(50.0)[:, None].expand(50, 200).contiguous()

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(200), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 1e-3).to_event(1))

    found = mutual_information(model, guide, x)
    assert abs(found.lower - math.log(50)) < 1e-6 and found.upper > 1000 and math.isfinite(found.upper)
    assert ", reached" in str(found)


def by_loops(guide, codes: dict[str, Tensor], x: Tensor) -> Tensor:
    """log q(z_i | x_j), one pair at a time."""
    rows = []
    for i in range(len(next(iter(codes.values())))):
        row = []
        for j in range(len(x)):
            with Substitute({name: code[i][None] for name, code in codes.items()}), torch.no_grad():
                trace = poutine.trace(guide).get_trace(x[j][None])
                row.append(sum(trace.nodes[n]["fn"].log_prob(trace.nodes[n]["value"]).sum() for n in codes))
        rows.append(torch.stack(row))
    return torch.stack(rows)


PAIRS = [
    (lambda: VAE(6, 2, 4), MeanField),
    (lambda: DLGM(6, (2, 1), 4), Faithful),
    (lambda: HierarchicalVAE(6, (1, 2), 4), BottomUp),
    (lambda: SeReVAE(6, 2, 2, 4), SelfReflective),
    (lambda: PixelVAE((1, 2, 3), 2, 4, 2), SelfReflective),
]


@pytest.mark.parametrize(("model", "guide"), PAIRS)
def test_densities_of_all_codes_at_all_data_are_those_of_one_at_a_time(model, guide, monkeypatch):
    monkeypatch.setattr("ppl_models.inference.pyro.evaluation.densities.BLOCK", 12)  # blocks of 4 data and 3 codes
    monkeypatch.setattr("ppl_models.inference.pyro.evaluation.densities.DATA", 4)
    p = model().double()
    x = torch.bernoulli(torch.full((7, 6), 0.5, dtype=torch.double))
    q = guide(p, x, hidden=4)
    for parameter in (*p.parameters(), *q.parameters()):
        parameter.data += 0.3 * torch.randn_like(parameter)
    with torch.no_grad():
        table = Densities(p, q, (x,), "test")
        codes, rates = table.draw()
        found = torch.full((7, 7), math.nan, dtype=torch.double)
        for i, j, block in table.blocks(codes):
            found[i, j] = block
    assert list(codes) == list(q.layout.latents) and rates.shape == (7,)
    torch.testing.assert_close(found, by_loops(q, codes, x), rtol=1e-9, atol=1e-9)


def test_a_bracket_leaves_the_world_as_it_was():
    model, x = VAE(6, 2, 4), torch.bernoulli(torch.full((20, 6), 0.5))
    guide = MeanField(model, x, hidden=4)
    state = torch.random.get_rng_state()
    found = mutual_information(model, guide, x)
    assert torch.equal(state, torch.random.get_rng_state()) and model.training
    assert found == mutual_information(model, guide, x)
    assert not any(p.grad is not None for p in guide.parameters())


def test_linear_gaussian_pairs_have_the_information_of_the_posterior():
    """The exact posterior as guide: I = mean KL(p(z | x) || p(z)), since the aggregate is the prior."""
    model = LinearGaussian(3, (2,), generator=torch.Generator().manual_seed(0)).requires_grad_(False)
    torch.manual_seed(0)
    x = model(n=3000)

    def guide(x):
        exact = model.posterior(x)
        posterior = dist.MultivariateNormal(exact.loc, scale_tril=exact.scale_tril)
        with pyro.plate("data", len(x)):
            pyro.sample("z1", posterior)

    found = mutual_information(model, guide, x)
    assert found.lower - 4 * found.lower_error < found.rate + 4 * found.upper_error
    assert abs(found.rate - found.lower) < 4 * (found.lower_error + found.upper_error) + 0.02


@pytest.mark.parametrize(
    ("run", "text"),
    [
        (lambda m, g, x: mutual_information(m, g, x[:1]), "mutual_information: found 1 datum, want at least 2"),
        (lambda m, g, x: reversal(m, g, x, {"z9": x}), "reversal: found codes of z9, want those of z1"),
        (lambda m, g, x: reversal(m, g, x, torch.zeros(2)), r"codes of 'z1' of shape \(2,\), want \(k, 2\)"),
        (lambda m, g, x: reversal(m, g, x, torch.zeros(4, 3)), r"codes of 'z1' of shape \(4, 3\), want \(k, 2\)"),
        (lambda m, g, x: mutual_information(g, m, x), "are model and guide in this order"),
    ],
)
def test_what_cannot_be_asked_is_refused(run, text):
    model, x = VAE(6, 2, 4), torch.bernoulli(torch.full((5, 6), 0.5))
    with pytest.raises(ValueError, match=text):
        run(model, MeanField(model, x, hidden=4), x)


def test_global_latents_have_no_aggregate():
    def model(x):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(mu, 1.0), obs=x)

    def guide(x):
        pyro.sample("mu", dist.Normal(0.0, 1.0))

    with pytest.raises(
        ValueError, match="the latent 'mu' is outside the plate of the data, want a value for each datum"
    ):
        mutual_information(model, guide, torch.randn(5))


# The reversal


def test_the_encoder_read_backwards_by_hand():
    torch.manual_seed(0)
    x, weight = torch.randn(300, 5).double(), torch.randn(5, 2).double()
    codes = torch.randn(7, 2).double()

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2).double(), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ weight.T, 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x @ weight, 0.5).to_event(1))

    log_q = dist.Normal(x @ weight, 0.5).to_event(1).log_prob(codes[:, None])
    w = log_q.softmax(1)
    found = reversal(model, guide, x, codes)
    torch.testing.assert_close(found.mean, w @ x)
    torch.testing.assert_close(found.variance, w @ x.square() - (w @ x).square())
    torch.testing.assert_close(found.log_q, torch.logsumexp(log_q, 1) - math.log(300))
    torch.testing.assert_close(found.effective, 1 / w.square().sum(1))
    again = reversal(model, guide, x, {"z": codes})
    torch.testing.assert_close(found.mean, again.mean)


def test_of_a_gaussian_pair_the_reversal_is_the_posterior_of_the_data():
    """x ~ N(0, 1), z = x + e / 2: E[x | z] = 0.8 z and Var[x | z] = 0.2; within five standard errors of 20,000 data."""
    x = torch.randn(20_000, 1, generator=torch.Generator().manual_seed(0))

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 0.5).to_event(1))

    z = torch.tensor([[-1.0], [0.0], [1.5]])
    found = reversal(model, guide, x, z)
    error = (0.2 / found.effective).sqrt()
    assert ((found.mean - 0.8 * z)[:, 0].abs() < 5 * error).all()
    assert ((found.variance[:, 0] - 0.2).abs() < 5 * 0.2 * (2 / found.effective).sqrt()).all()


def test_codes_outside_the_support_of_some_data_or_of_all():
    """Uniform encoders: most data cannot have sent a code, and a block of them gives nothing to start from."""
    x = torch.arange(200.0) / 10

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Uniform(-1.0, 30.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Uniform(x - 0.25, x + 0.25))

    found = reversal(model, guide, x, torch.tensor([15.0, 0.0, 25.0]))
    torch.testing.assert_close(found.mean[:2, 0], torch.tensor([15.0, 0.1]))  # of five data, and of the first three
    torch.testing.assert_close(found.effective[:2], torch.tensor([5.0, 3.0]))
    assert found.mean[2].isnan() and found.log_q[2] == -math.inf


def test_discrete_data_are_read_as_numbers():
    joint = table(0)
    found = reversal(*programs(joint), torch.arange(5).repeat(40), {"z": torch.arange(4)})
    uniform = Joint(joint.encoder / 5)
    expected = uniform.decoder @ torch.arange(5.0).double()
    torch.testing.assert_close(found.mean[:, 0].double(), expected, rtol=1e-5, atol=1e-5)
