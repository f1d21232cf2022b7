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
# # Information preference
#
# Zhao, Song and Ermon ([1702.08658](https://arxiv.org/abs/1702.08658)) read a variational autoencoder backwards: not
# the encoder approximates a posterior over codes, but the decoder approximates $q(x \mid z)$, the data of a code.
# Then any regularizer $R$ of the encoder will do,
#
# $$
# \mathbb{E}_{q(x, z)}[\log p(x \mid z)] + R(q),
# $$
#
# and what $R$ decides is which code is learned. Here that is seen
#
# 1. on joints of a few data and codes, where everything is a sum;
# 2. in an estimate of mutual information that cannot exceed $\log n$, and its counterpart from above;
# 3. in why samples blur;
# 4. with a decoder that can do without the code: KL weight 0, 1 and 78.4;
# 5. in criteria between these: InfoVAE, with a discrepancy that draws can tell.
#
# What runs in this notebook is small (8 x 8 digits, a minute or two a section). Beside it stand the results of the
# recipes on MNIST, with the command that makes them again.

# %%
import os
import textwrap
import warnings
from functools import partial
from math import log
from pathlib import Path

warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm, imported by Pyro, would like ipywidgets
warnings.filterwarnings("ignore", message=r"\s*ArviZ is undergoing a major refactor", category=FutureWarning)

import matplotlib.pyplot as plt
import pyro
import torch
from IPython.display import Image, display

import ppl_models
from guides import MeanField
from ppl_models import VAE, PixelVAE, data
from ppl_models.inference import (
    ancestral,
    evaluate,
    fit,
    info_vae,
    markov_chain,
    mmd,
    mutual_information,
    reversal,
    unregularized,
)
from ppl_models.inference.pyro.evaluation.discrete import coupled
from ppl_models.runs.recipes.experiments import discrete
from ppl_models.runs.recipes.results import recorded
from ppl_models.views import mixing

FAST = os.environ.get("PPL_MODELS_FAST") == "1"
RECORDED = Path(ppl_models.__file__).parents[1] / "docs" / "recipes"
torch.set_num_threads(1)
plt.rcParams |= {"figure.dpi": 110, "axes.spines.top": False, "axes.spines.right": False, "axes.titlelocation": "left"}


def budget(n):
    """n steps (or particles), or a handful in fast mode."""
    return min(n, 8) if FAST else n


def told(value):
    """A number, or both ends of a bracket."""
    values = value if isinstance(value, list) else [value]
    return " to ".join(f"{v:.3f}".replace("-0.000", "0.000") if isinstance(v, float) else str(v) for v in values)


def show(recipe, name, width=800):
    """A picture that a recipe has made, so many pixels wide; they lie beside the package in a checkout."""
    if (RECORDED / recipe / name).exists():
        display(Image(RECORDED / recipe / name, width=width))
    else:
        print(f"{name}: `ppl-models recipe {recipe}` makes it")


train, test = data.load("digits")

# %% [markdown]
# ## 1. A few data, a few codes
#
# With a decoder of unlimited capacity the best $p(x \mid z)$ is $q(x \mid z)$, whatever the regularizer. A table of
# logits is such a decoder. The following runs Pyro programs, takes every expectation in full, maximizes over the
# decoder and compares with the closed form (`ppl-models recipe discrete`, seed 0):

# %%
statements = discrete.analyse({}, discrete.OPTIONS, Path(), 0, print)
worst = max(row["error"] for row in statements.values() if "error" in row)
print(f"\nlargest error: {worst:.1e}")

# %% [markdown]
# * Without a regularizer the largest value is $I_q(x; z) - H(x)$: the criterion wants information.
# * The ELBO's largest value is $-H(x) - \mathrm{KL}(q(z) \,\|\, p(z))$: the information has cancelled. The three
#   codes with $q(z) = p(z)$ say nothing, something and all that four codes can say, and the ELBO cannot tell them
#   apart.
# * The chain $x \to z \to x'$ keeps the distribution of the data whatever the code is. That does not mean that it
#   mixes:

# %%
x = torch.full((4,), 0.25)
print("strength   I(x; z)   second eigenvalue of the chain")
for strength in (0.0, 0.5, 0.9, 1.0):
    joint = coupled(x, x, strength)
    second = torch.linalg.eigvals(joint.transition).abs().sort(descending=True).values[1]
    print(f"{strength:8.1f} {abs(joint.information):9.3f} {second:12.3f}")

# %% [markdown]
# At full information the chain stands still: what the unregularized criterion wants is what keeps its own sampler
# from moving. Both effects are seen below in images.
#
# ## 2. Mutual information, from both sides
#
# With one code a datum, $z_i \sim q(z \mid x_i)$, the estimator of the paper is
#
# $$
# \hat I = \frac1n \sum_i \Big[ \log q(z_i \mid x_i) - \log \frac1n \sum_j q(z_i \mid x_j) \Big].
# $$
#
# It counts the datum itself among the $j$, so it is at most $\log n$, and in the mean at most $I$. Without it the mean
# is at least $I$; so is the rate, $\mathbb{E}\, \mathrm{KL}(q(z \mid x) \,\|\, p(z))$. Here for $x \sim N(0, 1)$ and
# $q(z \mid x) = N(x, s^2)$, of which $I = \frac12 \log(1 + s^{-2})$ is known:

# %%
import pyro.distributions as dist


def gaussian(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


x = torch.randn(budget(1000), generator=torch.Generator().manual_seed(0))
print(f"n = {len(x)}, log n = {log(len(x)):.2f}\n\n       s    lower        I    upper     rate")
for s in (1.0, 0.1, 0.01, 0.001, 0.0001):

    def encoder(x, s=s):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, s))

    found = mutual_information(gaussian, encoder, x)
    exact = 0.5 * log(1 + s**-2)
    print(f"{s:8g} {found.lower:8.2f} {exact:8.2f} {found.upper:8.2f} {found.rate:8.2f}")

# %% [markdown]
# Beyond $\log n$ the lower bound stands still and the upper one does not: that is how a "large mutual information" is
# to be read. (The published curve of the unregularized model stands at 9.9035 = log 20,000.)
#
# ## 3. Why samples blur
#
# A decoder with independent pixels can do no better than the mean $\mathbb{E}_q[x \mid z]$, an average of the data
# that share the code, and its squared error is then $\sum_i \mathrm{Var}_q[x_i \mid z]$. `reversal` computes both
# from the encoder and the data, without the decoder. A VAE with a plane of codes:

# %%
grey, _ = data.load("digits", transform="none")
pyro.set_rng_seed(0)
model = VAE(event=64, latent=2, hidden=64, likelihood="gaussian:0.25")
guide = MeanField(model, grey[:3], hidden=64)
fit(model, guide, grey, steps=budget(2500), batch_size=64, lr=3e-3, seed=0, progress=False)

line = torch.linspace(-2.5, 2.5, 9 if FAST else 31)
second, first = torch.meshgrid(line, line, indexing="ij")
codes = torch.stack([first.flatten(), second.flatten()], -1)
found = reversal(model, guide, grey, codes)
with torch.no_grad():
    decoded = model.decoder(codes)

figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 4.2), layout="constrained")
extent = (line[0], line[-1], line[0], line[-1])
shown = left.imshow(found.variance.sum(-1).view(len(line), -1), origin="lower", extent=extent, cmap="magma_r")
figure.colorbar(shown, ax=left, shrink=0.8, label="sum over pixels of Var[x | z], white = 1")
left.set(xlabel="first unit of z", ylabel="second unit of z", title="variance of the data that share a code")
coarse = decoded.view(len(line), len(line), 8, 8)[:: max(len(line) // 10, 1), :: max(len(line) // 10, 1)].flip(0)
right.imshow(coarse.transpose(1, 2).flatten(2, 3).flatten(0, 1), extent=extent, cmap="gray", vmin=0, vmax=1)
right.set(xlabel="first unit of z", title="decoded")
plt.show()

known = (found.effective > 5) & (found.log_q > found.log_q.median())
center = grey[:].mean(0)
a, b = ((images[known] - center).flatten() for images in (decoded, found.mean))
print(f"codes that at least five data share: {known.sum()} of {len(codes)}")
if known.any():
    print(f"correlation of the decoder's image with the average of those data: {(a @ b / (a.norm() * b.norm())):.3f}")

# %% [markdown]
# Dark places are shared by unlike digits, and what is decoded there is their average. The same on MNIST,
# `ppl-models recipe blur` (seed 0):

# %%
rows = recorded()["blur"][0]["rows"]["vae"]
for name, value in rows.items():
    print(f"{name:<46}", told(value))

# %%
show("blur", "vae_map.png")

# %% [markdown]
# The variance of the data is the sum of what the code explains and what it leaves; the decoder's mean has learned the
# average where data have been.
#
# ## 4. A decoder that can do without the code
#
# `PixelVAE` draws pixel by pixel, each given those before it and the code. The weight of the divergence is 0
# (unregularized), 1 (the ELBO) or 78.4. The last is what the published code minimizes on MNIST: it averages the
# divergence over 10 latents and the reconstruction over 784 pixels, and 784 / 10 = 78.4.

# %%
runs = {}
for beta in (0.0, 1.0, 78.4):
    pyro.set_rng_seed(0)
    model = PixelVAE(event=(1, 8, 8), latent=4, hidden=16, depth=4)
    guide = MeanField(model, train[:3], encoder="conv", image=(1, 8, 8), hidden=64)
    objective = {"objective": unregularized} if beta == 0 else {"beta": beta}
    fit(model, guide, train, epochs=1 if FAST else 30, batch_size=64, lr=2e-3, seed=0, progress=False, **objective)
    runs[beta] = model, guide

print("KL weight   I(x; z), nats        log n   rate   - E log p(x|z)   negative ELBO")
for beta, pair in runs.items():
    found = mutual_information(*pair, train)
    bound = evaluate(*pair, test, particles=budget(20), progress=False)
    reconstruction = -bound.elbo - bound.kl["z1"]
    print(
        f"{beta:9g} {found.lower:8.3f} to {found.upper:7.3f} {found.ceiling:8.2f} {found.rate:7.2f} "
        f"{reconstruction:13.2f} {-bound.elbo:15.2f}"
    )

# %% [markdown]
# Without a regularizer the code tells all data apart; at 78.4 it tells nothing. At the honest weight 1 it tells
# little on these small images: what the pixels before a pixel say already, the code need not say. "- E log p(x | z)"
# of the unregularized model is no bound on the likelihood: its codes are not those of the prior.
#
# So samples from the prior are not its samples:

# %%
figure, axes = plt.subplots(2, 2, figsize=(8.4, 4.6), layout="constrained")
chains = {}
for (beta, name), line in zip(((0.0, "unregularized"), (1.0, "ELBO")), axes, strict=True):
    drawn = ancestral(runs[beta][0], test[:40])
    chain = chains[name] = markov_chain(*runs[beta], (torch.rand(40, 64) < 0.5).float(), steps=budget(30))
    for one, images, kind in ((line[0], drawn, "from the prior"), (line[1], chain.states[-1], "by the chain")):
        page = torch.nn.functional.pad(images.view(4, 10, 8, 8), (0, 1, 0, 1), value=0.2)
        one.imshow(page.transpose(1, 2).flatten(2, 3).flatten(0, 1), cmap="gray_r")
        one.set_title(f"{name}: {kind}", fontsize=9)
        one.axis("off")
plt.show()

# %%
for name, chain in chains.items():
    print(f"the chain of the model trained by the {name} criterion")
    print(mixing(chain, burn=budget(30) // 3), "\n")

# %% [markdown]
# ### The same on MNIST
#
# `ppl-models recipe information-preference` (seed 0), cut to two CPU cores: a decoder of 8 gated layers of 16 maps
# instead of 12 of 32, and 2400 batches of 50 instead of 12,000 of 100; `information-preference-full` has the published
# sizes.

# %%
found = recorded()["information-preference"][0]
for name, command in found["commands"].items():
    line = f"{name} ({found['seconds'][name] / 60:.0f} minutes): {command}"
    print(textwrap.fill(line, 110, subsequent_indent="    ", break_on_hyphens=False))
names, rows = list(found["commands"]), found["rows"]
print(f"\n{'':<36}" + "".join(f"{name:>22}" for name in names))
for key, value in rows[names[0]].items():
    if not isinstance(value, list) or len(value) == 2:
        print(f"{key:<36}" + "".join(f"{told(rows[name][key]):>22}" for name in names))

# %%
show("information-preference", "curves.png", 1000)

# %% [markdown]
# Without a regularizer the lower bound reaches its ceiling within a few hundred batches: all that can be said is that
# the information is between 9.2 nats, log 10,000, and 46.6. With 78.4 there is none, and the bound is that of the
# autoregressive decoder alone, 94.3 nats. These two are what was published. At the honest weight 1 the code tells 1.5
# nats, more with every batch still, and the bound is two nats better: the ELBO does not forbid a code, it pays for one
# where the pixels before do not say the same.

# %% [markdown]
# ### Samples
#
# The "score" of images is their negative ELBO under the model trained by the ELBO: far above that of test data are
# images that make no sense; below it are simple ones, which their ink tells, the mean of all pixels. The chain begins
# at noise, as in the paper, or at test data:

# %%
print(f"test data: score {rows['test data']['score']:.1f}, ink {rows['test data']['ink']:.3f}\n")
for name in names:
    row = rows[name]
    print(f"{name}: from the prior: score {row['score from the prior']:.1f}, ink {row['ink from the prior']:.3f}")
    print("  transitions      " + "".join(f"{k:>8}" for k in row["transitions"]))
    for key in ("score from noise", "ink from noise", "score from data", "ink from data"):
        print(f"  {key:<17}" + "".join(f"{v:>8.3f}" if "ink" in key else f"{v:>8.1f}" for v in row[key]))

# %% [markdown]
# Without a regularizer samples from the prior are no digits at all, 422 nats where test data have 91. Five transitions
# of the chain from noise make strokes of it, 122 nats, ten 104. But it does not stay there, and neither does the chain
# from data, which loses ink with every transition: the distribution of the data is stationary if $p(x \mid z)$ is
# $q(x \mid z)$, and of a decoder of this size and length of training that is not quite true. Samples from the prior,
# states of the chain five transitions from noise, and the chains:

# %%
show("information-preference", "beta-0_ancestral.png", 480)
show("information-preference", "beta-0_chain.png", 480)
show("information-preference", "beta-0_strip.png", 900)

# %% [markdown]
# By the ELBO codes of the prior are codes of data: samples from it (103 nats) are as good as those of the chain (101 to
# 110), which keeps its ink:

# %%
show("information-preference", "beta-1_ancestral.png", 480)
show("information-preference", "beta-1_strip.png", 900)

# %% [markdown]
# ## 5. Between the two
#
# `info_vae` weighs the divergence of each datum's code by $1 - \alpha$ and a discrepancy of their mean $q(z)$ from
# the prior by $\alpha + \lambda - 1$. With $\alpha$ near 1 the code is free to be informative, and its aggregate is
# still that of the prior, so that samples from the prior are samples of the model:

# %%
print("criterion                       I(x; z), nats       KL(q(z) || p(z))   - E log p(x|z)")
criteria = {
    "ELBO": {"beta": 1.0},
    "MMD, alpha 1, lambda 10": {"objective": partial(info_vae, alpha=1.0, lambda_=10.0)},
    "MMD, alpha 0.8, lambda 10": {"objective": partial(info_vae, alpha=0.8, lambda_=10.0)},
    "imq, linear time": {
        "objective": partial(
            info_vae, alpha=0.8, lambda_=10.0, discrepancy=partial(mmd, kernel="imq", estimator="linear")
        )
    },
}
for name, how in criteria.items():
    pyro.set_rng_seed(0)
    model = PixelVAE(event=(1, 8, 8), latent=4, hidden=16, depth=4)
    guide = MeanField(model, train[:3], encoder="conv", image=(1, 8, 8), hidden=64)
    fit(model, guide, train, epochs=1 if FAST else 20, batch_size=64, lr=2e-3, seed=0, progress=False, **how)
    found = mutual_information(model, guide, train)
    bound = evaluate(model, guide, test, particles=1, progress=False)
    low, high = found.marginal
    print(
        f"{name:<28} {found.lower:8.3f} to {found.upper:7.3f} {low:9.2f} to {high:6.2f} "
        f"{-bound.elbo - bound.kl['z1']:13.2f}"
    )

# %% [markdown]
# The marginal divergence is bracketed, too: it is the rate less the information.
