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
# # Flows
#
# One step is a network in which entry $i$ of a vector reads the entries before it, and all of a context that no mask
# hides:
#
# $$
# y_i = f(x_i; \theta_i), \qquad \theta_i = \mathrm{net}_i(x_{<i}, c).
# $$
#
# From $x$ to $y$ it takes one call of the network, back as many as there are entries. The same step is a density model
# (MAF), a prior of codes, a layer of data (SeRe-MAF) and, the other way round, a family of a guide's factors (IAF).
#
# 1. a density in two dimensions by each kind of step;
# 2. what IAF adds to a factor: the gap of a diagonal factor is known in closed form, and IAF closes it;
# 3. what it adds to each *structure*: edges between latents that a guide lacks no family brings back;
# 4. digits: an IAF posterior, a flow prior, and the SeRe-MAF in bits per dimension.
#
# Everything here is small: it runs in some minutes on one core.

# %%
import os
import warnings
from math import pi

warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm, imported by Pyro, would like ipywidgets

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch

from guides import MeanField, SelfReflective
from ppl_models import VAE, LinearGaussian, SeReMAF, data
from ppl_models.factorization import compare
from ppl_models.inference import evaluate, fit
from ppl_models.parts.flows.autoregressive import AutoregressiveFlow

FAST = os.environ.get("PPL_MODELS_FAST") == "1"
torch.set_num_threads(1)
plt.rcParams |= {"figure.dpi": 110, "axes.spines.top": False, "axes.spines.right": False, "axes.titlelocation": "left"}


def budget(n):
    """n steps (or particles), or a handful in fast mode."""
    return min(n, 8) if FAST else n


# %% [markdown]
# ## 1. A density in two dimensions
#
# Two rings, by four steps of each kind: shifts alone keep volume, affine steps bend a Gaussian, splines cut it up. The
# model is a Pyro function without latents; its guide draws nothing. The last column is the mean of $\log p$ over 5,000
# new points, in nats.


# %%
def rings(n):
    """Points on two rings, (n, 2)."""
    radius = torch.where(torch.rand(n) < 0.5, 1.0, 2.5) + 0.1 * torch.randn(n)
    angle = 2 * pi * torch.rand(n)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], -1)


class Density(torch.nn.Module):
    """N(0, I) seen through steps of a kind."""

    def __init__(self, kind):
        super().__init__()
        self.flow = AutoregressiveFlow(2, steps=4, hidden=64, depth=2, kind=kind)

    def distribution(self):
        steps = [step.inv for step in reversed(self.flow.transforms())]
        return dist.TransformedDistribution(dist.Normal(torch.zeros(2), 1.0).to_event(1), steps)

    def forward(self, x):
        pyro.module("density", self)
        with pyro.plate("data", len(x)):
            pyro.sample("x", self.distribution(), obs=x)


pyro.set_rng_seed(0)
train, test = rings(5000), rings(5000)
grid = torch.linspace(-3.5, 3.5, 141)
points = torch.cartesian_prod(grid, grid)
figure, axes = plt.subplots(1, 4, figsize=(11, 3))
axes[0].scatter(*train[:2000].T, s=1, alpha=0.5)
axes[0].set(title="data", aspect="equal", xlabel="x_1", ylabel="x_2")
for ax, kind in zip(axes[1:], ("shift", "affine", "spline"), strict=True):
    torch.manual_seed(0)
    density = Density(kind)
    fit(density, lambda x: None, train, steps=budget(1500), lr=3e-3, batch_size=500, progress=False)
    with torch.no_grad():
        shown = density.distribution().log_prob(points).exp().reshape(141, 141)
        score = density.distribution().log_prob(test).mean().item()
    ax.imshow(shown.T, origin="lower", extent=(-3.5, 3.5, -3.5, 3.5), cmap="viridis")
    ax.set(title=f"{kind}: {score:.2f} nats", xlabel="x_1")
    print(f"{kind:7s} {score:6.2f} nats")
figure.tight_layout()
plt.show()

# %% [markdown]
# ## 2. What IAF adds to a factor
#
# In a linear-Gaussian model with one code of two entries the exact posterior is a Gaussian whose entries are tied. The
# best diagonal factor loses a number of nats that `LinearGaussian.gap` knows in closed form; steps that read earlier
# entries close it. By element the inspector says why: an autoregressive factor is a clique of its entries.

# %%
torch.manual_seed(7)
model = LinearGaussian(event=3, latent=(2,)).requires_grad_(False)
x = model(n=256)
print(f"diagonal, in closed form: {model.gap('mean-field', 'diagonal').item():.3f} nats")
for family in ("diagonal", "iaf:hidden=8", "maf:hidden=8", "nsf:hidden=8"):
    torch.manual_seed(0)
    guide = MeanField(model, x, family=family, encoder="linear", depth=0)
    fit(model, guide, x, steps=budget(1000), lr=0.03, batch_size=256, particles=4, progress=False)
    found = evaluate(model, guide, x, particles=budget(200), progress=False)
    verdict = compare(model, guide, x[:3], level="element").verdict
    print(f"{family:13s} {model.log_evidence(x).mean().item() - found.elbo:6.3f} nats, by element {verdict}")

# %% [markdown]
# ## 3. What it adds to each structure
#
# A chain of three codes. The ladder has the factorization of the exact posterior, so that a family that can follow the
# entries of a code closes the gap of its factors. Mean field lacks the edges between the codes: IAF mends its factors,
# and what the missing edges cost, 0.510 nats in closed form, stays.

# %%
torch.manual_seed(3)
model = LinearGaussian(event=4, latent=(2, 2, 2)).requires_grad_(False)
x = model(n=256)
print(f"mean field, any factors, in closed form: {model.gap('mean-field', 'full').item():.3f} nats")
print(f"top-down, diagonal, in closed form:      {model.gap('top-down', 'diagonal').item():.3f} nats")
for structure in (MeanField, SelfReflective):
    for family in ("diagonal", "iaf:hidden=16"):
        torch.manual_seed(0)
        guide = structure(model, x, family=family, encoder="linear", depth=0)
        fit(model, guide, x, steps=budget(1500), lr=0.02, batch_size=256, particles=4, progress=False)
        found = evaluate(model, guide, x, particles=budget(200), progress=False)
        lost = model.log_evidence(x).mean().item() - found.elbo
        print(f"{structure.__name__:14s} {family:13s} {lost:6.3f} nats, by site {compare(model, guide, x[:3]).verdict}")

# %% [markdown]
# ## 4. Digits
#
# The posterior's family and the prior are independent choices. Binarized digits of 8 x 8 pixels, 1,500 steps each:
# negative ELBO and NLL by 100 importance samples, in nats. On so few and so small images neither brings anything: the
# three are within their errors, and the more flexible ones are not ahead.

# %%
train, test = data.load("digits")
for name, prior, family in (
    ("diagonal posterior, N(0, I)", "standard", "diagonal"),
    ("IAF posterior, N(0, I)", "standard", "iaf"),
    ("diagonal posterior, MAF prior", "maf:hidden=64", "diagonal"),
):
    torch.manual_seed(0)
    model = VAE(64, latent=8, hidden=64, prior=prior)
    guide = MeanField(model, train[:3], family=family, hidden=64)
    fit(model, guide, train, steps=budget(1500), lr=2e-3, progress=False)
    found = evaluate(model, guide, test, particles=budget(100), progress=False)
    print(f"{name:30s} -ELBO {-found.elbo:6.2f}   NLL {found.nll:6.2f} +- {found.nll_error:.2f}")

# %% [markdown]
# The SeRe-MAF of two bands of rows on real-valued digits (dequantized, logit), and some of its images: the density of a
# block takes one call of each network, a draw one a pixel.

# %%
train, test = data.load("digits", transform="logit")
torch.manual_seed(0)
model = SeReMAF((1, 8, 8), layers=2, latent=8, hidden=128, code_hidden=32)
guide = SelfReflective(model, train[:3], hidden=64)
print(compare(model, guide, train[:3]).model)
fit(model, guide, train, steps=budget(1500), lr=1e-3, progress=False)
found = evaluate(model, guide, test, particles=budget(100), progress=False)
print(f"NLL {found.nll:.2f} +- {found.nll_error:.2f} nats, {found.bits_per_dim:.3f} bits per dimension")
with torch.no_grad():
    pyro.set_rng_seed(1)
    images = train.transform.to_unit(model(n=16)).reshape(16, 8, 8)
figure, axes = plt.subplots(2, 8, figsize=(8, 2.2))
for ax, image in zip(axes.flat, images, strict=True):
    ax.imshow(image, cmap="gray_r", vmin=0, vmax=1)
    ax.axis("off")
plt.show()
