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
# # The sequential VAE, and infusion training
#
# A sequential VAE (Zhao, Song and Ermon, [1702.08658](https://arxiv.org/abs/1702.08658)) draws an image step by step.
# Every step has a code of its own, reads the image before, and keeps what it likes of it:
#
# $$
# \hat x_1 = G_1(z_1), \qquad \hat x_t = g_t\, G_t(\hat x_{t-1}, z_t) + (1 - g_t)\, \hat x_{t-1}, \qquad z_t \sim N(0,
# I).
# $$
#
# 1. the model, and what its exact posterior needs of a guide;
# 2. two criteria: the published one, step by step, and the ELBO of the last image;
# 3. one step or eight, with as many codes in all;
# 4. the chain of codes from the prior against that of data;
# 5. infusion training, which is the same with true pixels in place of codes.
#
# What runs here is small (8 x 8 digits). Beside it stand the results of `ppl-models recipe sequential` on MNIST.

# %%
import os
import textwrap
import warnings
from pathlib import Path

warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm, imported by Pyro, would like ipywidgets

import matplotlib.pyplot as plt
import pyro
import torch
from IPython.display import Image, display

import ppl_models
from guides import Infused, MeanField, SelfReflective
from ppl_models import Infusion, SequentialVAE, data
from ppl_models.factorization import compare
from ppl_models.inference import evaluate, fit, sharpness, terms, unregularized
from ppl_models.runs.recipes.energy import energy_distance
from ppl_models.runs.recipes.experiments.sequential import chains
from ppl_models.runs.recipes.results import recorded

FAST = os.environ.get("PPL_MODELS_FAST") == "1"
RECORDED = Path(ppl_models.__file__).parents[1] / "docs" / "recipes"
torch.set_num_threads(1)
plt.rcParams |= {"figure.dpi": 110, "axes.spines.top": False, "axes.spines.right": False, "axes.titlelocation": "left"}


def budget(n):
    """n steps (or particles), or a handful in fast mode."""
    return min(n, 8) if FAST else n


def strip(states, title):
    """Images (steps, n, 64), a line each."""
    page = states.detach().view(len(states), -1, 8, 8).permute(1, 2, 0, 3)
    page = torch.nn.functional.pad(page, (0, 1, 0, 0, 0, 1), value=0.2).flatten(2, 3).flatten(0, 1)
    figure, axes = plt.subplots(figsize=(0.8 * len(states), 0.75 * states.shape[1]), layout="constrained")
    axes.imshow(page, cmap="gray_r", vmin=0, vmax=1)
    axes.axis("off")
    axes.set_title(title, fontsize=9)
    plt.show()


train, test = data.load("digits", transform="none")  # grey levels in [0, 1]

# %% [markdown]
# ## 1. What the exact posterior needs
#
# The published inference network reads the image and nothing else, $q(z_1, \dots, z_T \mid x) = \prod_t q_t(z_t \mid
# x)$: by structure that is `MeanField`. The inspector's verdict:

# %%
sizes = {"event": 64, "latent": 2, "hidden": 64, "likelihood": "gaussian:0.25"}
model = SequentialVAE(steps=3, **sizes)
print(compare(model, MeanField(model, test[:3], hidden=16), test[:3]))

# %% [markdown]
# The codes are independent in the prior, but all of them give one image: once the image is known, what one code says
# changes what another can have said. So $z_2$ needs $z_1$, and $z_3$ both. A guide that reads the codes before is one
# word away, on the same model:

# %%
for Guide in (MeanField, SelfReflective):
    report = compare(model, Guide(model, test[:3], hidden=16), test[:3])
    print(f"{Guide.__name__:<15} {report.guide}   {report.verdict}")
compare(model, MeanField(model, test[:3], hidden=16), test[:3])

# %% [markdown]
# ## 2. Two criteria
#
# The published training reconstructs the image at *every* step, with no gradient from one step to those before. Given
# the image before, each step is a conditional VAE with one code and a bound of its own. The guide loses something
# here, too: the posterior of a code depends on the image before, which the codes before have made, and $q_t(z_t \mid
# x)$ does not see it. And the sum of these bounds scores $x$ once for each step: it is no bound of $p(x)$. (A guide
# that reads the codes before has gradients through them, so that its factors are trained by later steps, too.) In Pyro
# it is the same program with more observed sites, in training mode:

# %%
pyro.set_rng_seed(0)
model = SequentialVAE(steps=3, criterion="per-step", **sizes)
guide = MeanField(model, test[:3], hidden=16)
for mode in (True, False):
    model.train(mode)
    found = terms(model, guide, (test[:100],))
    scores = {site: round(value.mean().item(), 1) for site, value in found.log_likelihood.items()}
    print("training  " if mode else "evaluation", scores)

# %% [markdown]
# In evaluation mode, and so in `evaluate` and in the validation bound of `fit`, it is the model of the last image,
# whose bound is one. Two criteria, each with the guide of the paper and with one that reads the codes before:

# %%
choices = {
    "per step, mean field": ("per-step", MeanField),
    "per step, self-reflective": ("per-step", SelfReflective),
    "ELBO, mean field": ("elbo", MeanField),
    "ELBO, self-reflective": ("elbo", SelfReflective),
}
pairs = {}
print(f"{'T = 8, nats per image':<26}{'-ELBO':>9}{'NLL':>9}   KL of each step")
for name, (criterion, Guide) in choices.items():
    pyro.set_rng_seed(0)
    model = SequentialVAE(steps=8, criterion=criterion, **sizes)
    guide = Guide(model, train[:3], hidden=64)
    fit(model, guide, train, steps=budget(1500), batch_size=64, lr=3e-3, warmup=budget(500), seed=0, progress=False)
    pairs[name] = model, guide
    bound = evaluate(model, guide, test, particles=budget(100), progress=False)
    print(f"{name:<26}{-bound.elbo:>9.2f}{bound.nll:>9.2f}   " + " ".join(f"{kl:.1f}" for kl in bound.kl.values()))

# %% [markdown]
# Trained by the ELBO, the steps have no reason of their own to be images: what comes before the last one is whatever
# serves it.

# %%
for name, (model, guide) in pairs.items():
    posterior, prior = chains(model, guide, test[:6])
    strip(prior, f"{name}: samples, step by step")

# %% [markdown]
# ## 3. One step or eight
#
# With sixteen codes in all, given to one step or shared among two, four and eight, each trained step by step.
# Sharpness is the mean squared discrete Laplacian, relative to that of the test images. (In 8 x 8 pixels there is
# little to sharpen; 28 x 28 follow.)

# %%
rows, x = {}, test[:]
level = sharpness(x, (1, 8, 8))
print(f"{'':<7}{'-ELBO':>9}{'error':>8}{'sharpness: reconstructed':>26}{'sampled':>9}{'gap':>8}{'KL':>8}")
for steps in (1, 2, 4, 8):
    pyro.set_rng_seed(0)
    model = SequentialVAE(steps=steps, criterion="per-step", **sizes | {"latent": 16 // steps})
    guide = MeanField(model, train[:3], hidden=64)
    fit(model, guide, train, steps=budget(1500), batch_size=64, lr=3e-3, warmup=budget(500), seed=0, progress=False)
    bound = evaluate(model, guide, test, particles=1, progress=False)
    rows[steps] = posterior, prior = chains(model, guide, x)
    error = (posterior[-1] - x).square().sum(-1).mean().item()
    sharp = [sharpness(m[-1], (1, 8, 8)) / level for m in (posterior, prior)]
    print(
        f"T = {steps:<3}{-bound.elbo:>9.2f}{error:>8.3f}{sharp[0]:>26.3f}{sharp[1]:>9.3f}"
        f"{energy_distance(prior[-1], posterior[-1]):>8.3f}{sum(bound.kl.values()):>8.1f}"
    )

# %%
posterior, prior = rows[8]
figure, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.0), layout="constrained")
left.plot(range(1, 9), (posterior - x).square().sum(-1).mean(-1), "o-", color="#1b6ca8")
left.set(xlabel="step", ylabel="squared error, summed over pixels", title="reconstruction, T = 8")
for chain, label, color in ((posterior, "reconstructed", "#1b6ca8"), (prior, "sampled", "#d9822b")):
    right.plot(range(1, 9), [sharpness(m, (1, 8, 8)) / level for m in chain], "o-", label=label, color=color)
right.set(xlabel="step", ylabel="sharpness, data = 1", title="step by step")
right.legend(frameon=False)
plt.show()

# %% [markdown]
# ### The same on MNIST
#
# `ppl-models recipe sequential` (seed 0): 32 codes in all, perceptrons, 6 epochs. "ELBO" scores the last
# image alone, and "codes read" is the same with a guide that reads the codes before.

# %%
found = recorded()["sequential"][0]
columns = {  # header -> (key, decimals)
    "-ELBO": ("negative ELBO", 1),
    "NLL": ("NLL", 1),
    "error": ("error", 2),
    "sharpness": ("sharpness of reconstructions", 3),
    "of samples": ("sharpness of samples", 3),
    "gap": ("gap", 3),
    "distance": ("distance", 3),
    "minutes": ("minutes", 1),
}
print(f"{'':<24}" + "".join(f"{column:>{max(len(column) + 2, 9)}}" for column in columns))
for name, row in found["rows"].items():
    told = row | {"minutes": found["seconds"][name] / 60}
    values = ((max(len(column) + 2, 9), told[key], digits) for column, (key, digits) in columns.items())
    print(f"{name:<24}" + "".join(f"{value:>{width}.{digits}f}" for width, value, digits in values))
print("\n" + textwrap.fill(found["commands"]["T = 8"], 110, subsequent_indent="    ", break_on_hyphens=False))


def show(recipe, name, width):
    """A picture that a recipe has made, so many pixels wide; they lie beside the package in a checkout."""
    if (RECORDED / recipe / name).exists():
        display(Image(RECORDED / recipe / name, width=width))
    else:
        print(f"{name}: `ppl-models recipe {recipe}` makes it")


# %% [markdown]
# More steps sharpen, by either criterion. By the published one the sharpness of reconstructions rises from 0.24 of that
# of the data to 0.34, most of it in the first four steps. Bound and error are best at four, and the chain of samples
# drifts away from that of reconstructions, so that samples of eight steps are further from the data than those of one.
# By the ELBO of the last image all that is measured of reconstructions gets better with every step, up to half of the
# data's sharpness, and samples stay about as near. At this length of training the guide that reads the codes before,
# which could come nearer to the posterior, has not got there yet.
#
# What the steps do is not the same. By the published criterion each is an image, a little sharper than the one before:

# %%
show("sequential", "T-8_strip.png", 640)
show("sequential", "T-1_samples.png", 420)
show("sequential", "T-8_samples.png", 420)

# %% [markdown]
# By the ELBO all but the last are a place to write down what the codes have said so far:

# %%
show("sequential", "T-8-ELBO_strip.png", 640)
show("sequential", "T-8-ELBO_samples.png", 420)

# %% [markdown]
# ## 4. Two chains
#
# A step is trained on images that codes *of data* have led to, and generates from those that codes of the prior have
# led to. "gap" is the energy distance of the images of the two chains, zero if they were alike, "distance" that of
# the samples from the data. The codes say the same in nats: the marginal divergence $\mathrm{KL}(q(z_1, \dots, z_T)
# \,\|\, p(z_1, \dots, z_T))$ is the rate less the information, and codes of data are not independent from step to
# step, as the prior has them. With `predictor=True` the prior of a code reads the code before:

# %%
print(f"{'T = 8, per step':<18}{'gap':>8}{'-ELBO':>9}{'KL':>8}")
for predictor in (False, True):
    pyro.set_rng_seed(0)
    model = SequentialVAE(steps=8, criterion="per-step", predictor=predictor, **sizes)
    guide = MeanField(model, train[:3], hidden=64)
    fit(model, guide, train, steps=budget(1500), batch_size=64, lr=3e-3, warmup=budget(500), seed=0, progress=False)
    posterior, prior = chains(model, guide, x)
    bound = evaluate(model, guide, test, particles=1, progress=False)
    name = "predictor" if predictor else "independent prior"
    gap = energy_distance(prior[-1], posterior[-1])
    print(f"{name:<18}{gap:>8.3f}{-bound.elbo:>9.2f}{sum(bound.kl.values()):>8.1f}")

# %% [markdown]
# ## 5. Infusion training
#
# Bordes, Honari and Vincent ([1703.06975](https://arxiv.org/abs/1703.06975)) train a chain of noisy images $p(z_1)
# \prod_t p(z_t \mid z_{t-1})\, p(x \mid z_T)$ on draws of the chain itself into which some pixels of the datum are
# infused. That is a guide without parameters, `Infused`; every transition learns to reach $x$; and no divergence is
# asked for: it is the unregularized criterion of notebook 05, with true pixels in place of a learned code.

# %%
noisy, noisy_test = data.load("digits", transform="dequantize")
pyro.set_rng_seed(0)
chain = Infusion(event=64, steps=10, hidden=256, criterion="per-step")
infused = Infused(chain, noisy[:3], rate=0.02)
report = compare(chain, infused, noisy[:3])
print(textwrap.fill(str(report.guide), 100))
print(report.verdict, "\n")
fit(chain, infused, noisy, steps=budget(3000), batch_size=64, lr=2e-3, objective=unregularized, seed=0, progress=False)
print(evaluate(chain, infused, noisy_test, particles=budget(100), progress=False))

# %% [markdown]
# The infused chain has the factorization of the exact posterior, and its lower bound on $\log p(x)$ is the ELBO of
# the pair. Samples, from $p(z_1)$ to $x$ (means of the transitions):

# %%
with torch.no_grad():
    chain.eval()
    z = chain.transition(0, None).expand([6]).sample()
    means = [z]
    for t in range(1, chain.steps + 1):
        step = chain.transition(t, z)
        z = step.sample()
        means.append(step.mean)
strip(torch.stack(means).clamp(0, 1), "infusion: samples, step by step")

# %% [markdown]
# On MNIST, `ppl-models recipe infusion` (seed 0; 5 epochs, of 1500 in the paper): the bound by 100 importance samples
# of the infused chain, in nats per dequantized image, and samples.

# %%
found = recorded()["infusion"][0]
row = found["rows"]["infusion"]
print(f"log p(x) at least {-row['nll']:.0f} +- {row['nll_error']:.0f}, {row['n']} test images", end="; ")
print(f"{found['seconds']['infusion'] / 60:.0f} minutes of training")
show("infusion", "samples.png", 420)
