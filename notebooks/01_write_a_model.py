# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Write a model
#
# A model is a Pyro program: a function that draws latent variables, then observes data. Everything in this project
# takes any such program, and this notebook writes three of them:
#
# 1. a plain function, trained by `fit` and by `pyro.infer.SVI`;
# 2. a `Program`, an `nn.Module` with networks, that generates as well as observes;
# 3. a `Program` with a bijection in its prior.
#
# Then it holds an estimate against the exact answer, draws from the model, and makes two mistakes.
#
# `make notebooks` runs this file; `PPL_MODELS_FAST=1` cuts the trainings to a few steps.

# %%
import os
import warnings

warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm, imported by Pyro, would like ipywidgets

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import SVI, Predictive, Trace_ELBO

from guides import MeanField, SelfReflective
from ppl_models import LinearGaussian, data
from ppl_models.inference import evaluate, fit
from ppl_models.parts import ConditionalRankOneAffine, Net, Program, check_data, likelihood
from ppl_models.views import image_grid, reconstructions

FAST = os.environ.get("PPL_MODELS_FAST") == "1"
torch.set_num_threads(1)
plt.rcParams |= {"figure.dpi": 130, "axes.spines.top": False, "axes.spines.right": False, "axes.titlelocation": "left"}


def budget(n):
    """n steps (or particles), or a handful in fast mode."""
    return min(n, 10) if FAST else n


train, test = data.load("digits")
print(train)
print(test)

# %% [markdown]
# The digits of scikit-learn are 8 x 8 images. Pixels of the training part are binarized anew at every access, those
# of the test part once: test figures repeat.
#
# ## 1. A plain function
#
# Two latents for each image, $z_1 \in \mathbb{R}^2$ and $z_2 \in \mathbb{R}^8$:
#
# $$
# z_1 \sim \mathcal{N}(0, I), \qquad z_2 \mid z_1 \sim \mathcal{N}(W^\top z_1, I), \qquad
# x \mid z_2 \sim \mathrm{Bernoulli}\big(\sigma(V^\top z_2 + b)\big).
# $$
#
# The plate says that images are independent; `.to_event(1)` says that the last dimension belongs to one draw.


# %%
def plain(x):
    w = pyro.param("w", lambda: 0.5 * torch.randn(2, 8))
    v = pyro.param("v", lambda: 0.5 * torch.randn(8, 64))
    b = pyro.param("b", lambda: torch.zeros(64))
    with pyro.plate("data", len(x)):
        z1 = pyro.sample("z1", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        z2 = pyro.sample("z2", dist.Normal(z1 @ w, 1.0).to_event(1))
        return pyro.sample("x", dist.Bernoulli(logits=z2 @ v + b).to_event(1), obs=x)


pyro.set_rng_seed(0)
trace = poutine.trace(plain).get_trace(train[:5])
print(trace.format_shapes())

# %% [markdown]
# Left of the bar is the plate (five images), right of it the event. This is all that a guide needs: it runs the model
# once on an example, finds sites, shapes, plates and what depends on what, and builds its networks.

# %%
guide = SelfReflective(plain, train[:3], hidden=64)
print("model           ", guide.layout.factorization)
print("parents of q    ", guide.factors.parents)

# %% [markdown]
# The first line is the model's factorization, recovered from the running program: nothing declared it. The second is
# the guide's, $q(z \mid x) = q(z_1 \mid x)\, q(z_2 \mid z_1, x)$; every factor reads $x$ as well.
#
# `fit` maximizes the evidence lower bound
#
# $$
# \mathrm{ELBO}(x) = \mathbb{E}_{q(z \mid x)}\big[\log p(x, z) - \log q(z \mid x)\big] \;\le\; \log p(x)
# $$
#
# over the parameters of both programs, `pyro.param`s included. Pyro's own loop does the same: model and guide are
# ordinary Pyro programs, so either trainer takes them. The parameters of a plain function live in Pyro's global
# store, which is emptied in between so that the second training starts anew.

# %%
steps, window = budget(1500), budget(50)
kept = {}

run = fit(plain, guide, train, steps=steps, lr=1e-2, schedule="constant", every=window, seed=0, progress=False)
kept["fit"] = [(record["step"], record["negative_elbo"]) for record in run.history]
print("fit")
print(evaluate(plain, guide, test, particles=budget(500), progress=False))

# %%
pyro.clear_param_store()
pyro.set_rng_seed(0)
guide = SelfReflective(plain, train[:3], hidden=64)
svi = SVI(plain, guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
losses = [svi.step(train[torch.randint(len(train), (128,))]) / 128 for _ in range(steps)]
means = torch.tensor(losses).split(window)
kept["SVI"] = [(window * (i + 1), part.mean().item()) for i, part in enumerate(means)]
print("SVI")
print(evaluate(plain, guide, test, particles=budget(500), progress=False))

# %% [markdown]
# Two bounds on one number: the negative log-likelihood $-\log p(x)$ lies below the negative ELBO and below the NLL,
# an importance-weighted bound and the closer of the two (section 4). "KL z1" is
# $\mathbb{E}\,\mathrm{KL}(q(z_1 \mid x) \,\|\, p(z_1))$, what the code says about the image, in nats.
#
# The trainers differ in what surrounds the same gradient: `fit` takes divergences in closed form where there is one
# and ends with a moving average of the parameters; `SVI` as called here samples everything and keeps the last step.

# %%
figure, axes = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
for (name, curve), style in zip(kept.items(), ("-", "--"), strict=True):
    axes.plot(*zip(*curve, strict=True), style, label=name)
axes.set(xlabel="step", ylabel="negative ELBO (nats per image)", title="One pair of programs, two trainers")
axes.grid(alpha=0.3)
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# ## 2. A `Program`
#
# A `Program` is an `nn.Module` whose `forward` is a Pyro program. Two habits make it fit everywhere: `x=None` means
# generate, and the networks (`Net`, a residual perceptron) broadcast over leading dimensions, so that many particles
# run in one pass. The likelihood is an argument, by name; it says how many numbers it takes for each pixel.


# %%
class TwoLayers(Program):
    """p(x, z) = p(z1) p(z2 | z1) p(x | z2), by networks."""

    def __init__(self, event=64, latent=(4, 8), hidden=64, spec="bernoulli"):
        super().__init__()
        self.event = event
        self.likelihood = likelihood(spec)
        self.register_buffer("zero", torch.zeros(latent[0]))
        self.prior = Net([latent[0]], 2 * latent[1], hidden, norm=True)
        self.decoder = Net([latent[1]], self.likelihood.count * event, hidden, norm=True)

    def forward(self, x=None, n=1):
        if x is not None:
            check_data(x, self.event)
            self.likelihood.check(x)
            n = len(x)
        with pyro.plate("data", n):
            # p(z1)
            z1 = pyro.sample("z1", dist.Normal(self.zero, 1.0).to_event(1))
            # p(z2 | z1)
            loc, log_scale = self.prior(z1).chunk(2, -1)
            z2 = pyro.sample("z2", dist.Normal(loc, log_scale.exp()).to_event(1))
            # p(x | z2)
            return pyro.sample("x", self.likelihood(self.decoder(z2)), obs=x)


# %% [markdown]
# The same program for two kinds of data: binary pixels under a Bernoulli, and the 17 grey levels of the original
# images under a logistic density integrated over the bin of each level.

# %%
grey = data.load("digits", transform="none")
sets = {"bernoulli": (train, test), "logistic:17": grey}
pairs = {}
print(f"{'likelihood':<14}{'numbers a pixel':>16}{'ELBO':>10}{'NLL':>10}{'bits a pixel':>14}")
for spec, (train_x, test_x) in sets.items():
    pyro.set_rng_seed(0)
    model = TwoLayers(spec=spec)
    guide = SelfReflective(model, train_x[:3], hidden=64)
    fit(model, guide, train_x, steps=budget(1500), lr=3e-3, warmup=budget(500), seed=0, progress=False)
    found = evaluate(model, guide, test_x, particles=budget(200), progress=False)
    pairs[spec] = model, guide
    numbers = f"{found.elbo:>10.2f}{found.nll:>10.2f}{found.bits_per_dim:>14.3f}"
    print(f"{spec:<14}{model.likelihood.count:>16}{numbers}")

# %% [markdown]
# The rows describe different data and are not to be compared with each other: an image of 17 levels has more to say
# than a binary one. `warmup` lets the weight of the divergences rise from 0 to 1, which keeps codes from being
# switched off before the decoder has learned to read them.
#
# ## 3. A bijection in the prior
#
# The self-reflective VAE pushes each code through a bijection whose parameters are networks of the code above,
#
# $$
# \epsilon \sim \mathcal{N}\big(\mu(z_1), \mathrm{diag}\,\sigma(z_1)^2\big), \qquad
# z_2 = f_{z_1}(\epsilon) = c + \big(\mathrm{diag}(d) + u u^\top\big)\,\epsilon, \qquad (c, d, u) = \mathrm{net}(z_1).
# $$
#
# `ConditionalRankOneAffine` is the network, and gives a `torch.distributions` transform. The sample site is $z_2$
# itself.


# %%
class Bent(Program):
    """p(x, z) = p(z1) p(z2 | z1) p(x | z2), p(z2 | z1) a Gaussian pushed through a bijection, both given z1."""

    def __init__(self, event=64, latent=(4, 8), hidden=64):
        super().__init__()
        self.event = event
        self.register_buffer("zero", torch.zeros(latent[0]))
        self.prior = Net([latent[0]], 2 * latent[1], hidden, norm=True)
        self.bijector = ConditionalRankOneAffine(latent[1], [latent[0]], hidden)
        self.decoder = Net([latent[1]], event, hidden, norm=True)

    def base(self, z1):
        loc, log_scale = self.prior(z1).chunk(2, -1)
        return dist.Normal(loc, log_scale.exp()).to_event(1)

    def forward(self, x=None, n=1):
        with pyro.plate("data", n if x is None else len(x)):
            z1 = pyro.sample("z1", dist.Normal(self.zero, 1.0).to_event(1))
            z2 = pyro.sample("z2", dist.TransformedDistribution(self.base(z1), [self.bijector(z1)]))
            return pyro.sample("x", dist.Bernoulli(logits=self.decoder(z2)).to_event(1), obs=x)


pyro.set_rng_seed(0)
bent = Bent()
z1, eps = torch.randn(4), torch.randn(8)
f = bent.bijector(z1)
z2 = f(eps)
log_det = torch.linalg.slogdet(torch.autograd.functional.jacobian(f, eps)).logabsdet
left = dist.TransformedDistribution(bent.base(z1), [f]).log_prob(z2)
right = bent.base(z1).log_prob(eps) - log_det
print(f"largest |eps - inverse(forward(eps))|          {(f.inv(z2) - eps).abs().max():.1e}")
print(f"log|det| of the transform, and of its Jacobian {f.log_abs_det_jacobian(eps, z2):.5f} {log_det:.5f}")
print(f"log p(z2 | z1), and from eps                   {left:.5f} {right:.5f}")

# %% [markdown]
# Why is the site $z_2$, and not $\epsilon$ followed by a deterministic step? The density is the same, the
# factorization is not. Here is the other way, on the same networks:


# %%
def by_eps(x):
    with pyro.plate("data", len(x)):
        z1 = pyro.sample("z1", dist.Normal(bent.zero, 1.0).to_event(1))
        eps = pyro.sample("eps", bent.base(z1))
        z2 = bent.bijector(z1)(eps)
        return pyro.sample("x", dist.Bernoulli(logits=bent.decoder(z2)).to_event(1), obs=x)


for name, program in {"site z2 ": bent, "site eps": by_eps}.items():
    found = MeanField(program, test[:3], hidden=16).layout.factorization
    below = found.latents[-1]
    print(f"{name}   {found}")
    needed = ", ".join(found.needed_parents("z1", [below]))
    print(f"           the posterior of z1, given {below} and x, depends on: {needed}")

# %% [markdown]
# With $\epsilon$ as the site, $z_2$ is a function of $(z_1, \epsilon)$ that no trace shows, so $x$ depends on both
# sites and the chain is lost: whoever reads the program, an inspector or a guide, sees one arrow too many, and a
# guide that goes upward must read $x$ once more. With $z_2$ as the site the chain
# $p(z_1)\,p(z_2 \mid z_1)\,p(x \mid z_2)$ is there to be read. And the transform, being an object of the prior, can
# be shared by a guide. That makes a divergence of bent densities one of Gaussians, because a bijection common to
# both leaves it unchanged:
#
# $$
# \mathrm{KL}\big(f_\#q \,\|\, f_\#p\big) = \mathrm{KL}(q \,\|\, p).
# $$

# %%
guide = SelfReflective(bent, train[:3], hidden=64)
fit(bent, guide, train, steps=budget(600), lr=3e-3, warmup=budget(300), seed=0, progress=False)
with torch.no_grad():
    guide(test[:3])
    model_trace, guide_trace = guide.get_traces()
p, q = model_trace.nodes["z2"]["fn"], guide_trace.nodes["z2"]["fn"]
print("the guide's transform is the prior's:", q.transforms[0] is p.transforms[0])
print("KL of z2, three images: ", [f"{kl:.4f}" for kl in torch.distributions.kl_divergence(q, p)])
print("KL of the Gaussian bases:", [f"{kl:.4f}" for kl in torch.distributions.kl_divergence(q.base_dist, p.base_dist)])

# %% [markdown]
# ## 4. The exact answer
#
# `LinearGaussian` is the deep model of which every integral is known. `log_evidence` gives $\log p(x)$ in closed
# form, so it tells whether an estimate is right. `evaluate` estimates with $K$ importance samples a datum,
#
# $$
# \mathrm{NLL}_K = -\,\mathbb{E}\,\log \frac{1}{K} \sum_{k=1}^{K} \frac{p(x, z_k)}{q(z_k \mid x)},
# \qquad z_k \sim q(z \mid x),
# $$
#
# which is the negative ELBO for $K = 1$ and falls to $-\log p(x)$ as $K$ grows, for any guide that covers the
# posterior. A mean-field guide shows the fall, and how slow it is: the guide is narrower than the posterior, so a
# few rare draws carry most of the weight. The top-down guide with full covariance can be exact and has nowhere to
# fall.

# %%
pyro.set_rng_seed(0)
exact = LinearGaussian(event=3, latent=(2, 2, 2)).requires_grad_(False)
x = exact(n=4096)
held_out = exact(n=500)
truth = -exact.log_evidence(held_out).mean().item()
guides = {
    "mean field, diagonal": MeanField(exact, x[:3], encoder="linear", depth=0),
    "top-down, full": SelfReflective(exact, x[:3], family="full", encoder="linear", depth=0),
}
counts = [k for k in (1, 3, 10, 30, 100, 300, 1000, 3000) if k <= budget(3000)]
found = {}
for name, guide in guides.items():
    fit(exact, guide, x, steps=budget(3000), batch_size=512, lr=2e-2, ema=0.99, seed=0, progress=False)
    found[name] = [evaluate(exact, guide, held_out, particles=k, progress=False).nll for k in counts]
print(f"exact -log p(x): {truth:.4f}\n")
print(f"{'K':>6}" + "".join(f"{name:>24}" for name in guides) + "   (NLL_K minus exact)")
for i, k in enumerate(counts):
    print(f"{k:>6}" + "".join(f"{found[name][i] - truth:>24.4f}" for name in guides))
print(f"\nclosed-form gap of the best mean-field guide, K = 1: {exact.gap('mean-field', 'diagonal').item():.4f}")

# %%
figure, axes = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
for (name, values), marker in zip(found.items(), "os", strict=True):
    axes.plot(counts, values, marker=marker, markersize=4, label=name)
axes.axhline(truth, color="black", linewidth=1, linestyle="--", label="exact $-\\log p(x)$")
axes.set(xscale="log", xlabel="importance samples $K$", ylabel="NLL$_K$ (nats)")
axes.set_title("Importance-weighted bounds and the truth")
axes.grid(alpha=0.3)
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# For one sample the loss of the mean-field guide should be the closed-form gap, up to the noise of a single draw and
# of the training. A pair of your own has no such line under it; this is why one checks the machinery where there is
# one.
#
# ## 5. Drawing from the model
#
# `pyro.infer.Predictive` runs the program without data: the prior predictive. Every site comes back, particles first.

# %%
model, guide = pairs["bernoulli"]
drawn = Predictive(model, num_samples=1)(n=40)
print({site: tuple(value.shape) for site, value in drawn.items()})
image_grid(drawn["x"][0], (1, 8, 8), columns=10, title="Prior predictive: 40 binary images drawn from the model")

# %% [markdown]
# Given a guide and data, `Predictive` draws the latents from $q(z \mid x)$ instead. Handing these draws back to the
# model, without data, gives the posterior predictive; its mean over the draws is what the model makes of each image.

# %%
shown = test[:10]
latents = Predictive(model, guide=guide, num_samples=budget(100), return_sites=["z1", "z2"])(shown)
print({site: tuple(value.shape) for site, value in latents.items()})
again = Predictive(model, posterior_samples=latents)(n=len(shown))["x"].mean(0)
reconstructions(shown, again, (1, 8, 8), title="Test images, and the mean of the posterior predictive")

# %% [markdown]
# ## 6. What the errors say
#
# A message names the site, what was found, what is wanted and what to try. Grey images given to a Bernoulli, and
# images that were not flattened:


# %%
def message(call):
    try:
        call()
    except (TypeError, ValueError) as error:
        print(f"{type(error).__name__}: {error}\n")


message(lambda: model(grey[1][:5]))
message(lambda: model(test[:5].unflatten(-1, (8, 8))))

# %% [markdown]
# The checks that read values run while Pyro's validation is on; `fit` and `evaluate` run the pair once so before they
# start, and without validation after that.
#
# Next: `02_swap_guides`, where the model stays and the guide changes.
