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
# # Swap guides
#
# A guide $q(z \mid x)$ is named by its structure, who conditions on whom, and takes any model: `Guide(model, x)`.
# Here one model keeps its place and the guide changes:
#
# 1. four structures on one self-reflective VAE;
# 2. structure and family, chosen independently, against closed-form gaps;
# 3. evidence networks and parents;
# 4. `SelfReflective` in its whole;
# 5. a guide of one's own;
# 6. several arguments, several observed sites, and a guide that does not fit.

# %%
import copy
import inspect
import os
import warnings

warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm, imported by Pyro, would like ipywidgets

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
from torch import nn

from guides import BottomUp, Ladder, MeanField, SelfReflective, TopDownGuide
from guides.parts.conditionals import Conditionals, choose_parents
from ppl_models import HierarchicalVAE, LinearGaussian, SeReVAE, data
from ppl_models.inference import elbo, evaluate, fit, terms
from ppl_models.parts import Net, Program

FAST = os.environ.get("PPL_MODELS_FAST") == "1"
torch.set_num_threads(1)
plt.rcParams |= {"figure.dpi": 130, "axes.spines.top": False, "axes.spines.right": False, "axes.titlelocation": "left"}


def budget(n):
    """n steps (or particles), or a handful in fast mode."""
    return min(n, 8) if FAST else n


train, test = data.load("digits")

# %% [markdown]
# ## 1. Four guides for one model
#
# A `SeReVAE` cuts the image in $L$ blocks, $x = (x_1, \dots, x_L)$, and gives each a code,
#
# $$
# p(x, z) = p(z_1)\, p(x_1 \mid z_1) \prod_{l=2}^{L} p(z_l \mid z_{l-1})\, p(x_l \mid z_l, x_{l-1}).
# $$
#
# All four guides are built on the same example, read the same evidence, and have networks of one width:

# %%
pyro.set_rng_seed(0)
initial = SeReVAE(event=64, layers=3, latent=4, hidden=64)
for Guide in (MeanField, BottomUp, Ladder, SelfReflective):
    guide = Guide(initial, train[:3], hidden=64)
    given = {z: ", ".join((*guide.factors.parents[z], "x")) for z in guide.order}
    weights = sum(p.numel() for p in guide.parameters())
    print(f"{Guide.__name__:<15}" + " ".join(f"q({z} | {g})" for z, g in given.items()) + f"   {weights} weights")
print(f"\nmodel          {guide.layout.factorization}")

# %% [markdown]
# `Ladder` and `SelfReflective` have one structure here and differ in how a factor is made from the prior: `Ladder`
# multiplies an estimate of the code with the prior, `SelfReflective` shifts and scales the prior's base. Both share
# the prior's bijections. `MeanField` and `BottomUp` know nothing of the prior.
#
# Every pair starts from the same weights of the model and sees the same number of steps. Each guide is trained
# twice, from two seeds of its own weights, the noise and the order of the images.

# %%
steps = budget(350)
rows, trained = {}, {}
for Guide in (MeanField, BottomUp, Ladder, SelfReflective):
    for seed in (0, 1):
        model = copy.deepcopy(initial)
        pyro.set_rng_seed(seed)
        guide = Guide(model, train[:3], hidden=64)
        fit(model, guide, train, steps=steps, lr=5e-3, warmup=steps // 2, seed=seed, progress=False)
        rows[Guide.__name__, seed] = evaluate(model, guide, test, particles=budget(200), progress=False)
        trained[Guide.__name__, seed] = model, guide

sites = list(guide.layout.latents)
print(f"{'nats per image':<16}{'seed':>5}{'-ELBO':>9}{'NLL':>9}{'+-':>7}" + "".join(f"{'KL ' + z:>9}" for z in sites))
for (name, seed), row in rows.items():
    divergences = "".join(f"{row.kl[z]:>9.2f}" for z in sites)
    print(f"{name:<16}{seed:>5}{-row.elbo:>9.2f}{row.nll:>9.2f}{row.nll_error:>7.2f}{divergences}")

nll = torch.tensor([row.nll for row in rows.values()]).view(-1, 2)
print(f"\nrange of NLL between guides (means of two seeds)  {nll.mean(1).max() - nll.mean(1).min():.2f}")
print(f"largest difference between two seeds of one guide {(nll[:, 0] - nll[:, 1]).abs().max():.2f}")

# %% [markdown]
# How to read the table. $-\mathrm{ELBO}$ minus NLL is a lower estimate of what the guide loses to the exact
# posterior of *its* model: each guide has trained a model of its own, so the rows compare pairs, not guides alone.
# "KL" is what the code of a layer says about the image; where it is near zero, the model has learned to do without
# that layer.
#
# What not to conclude. "+-" is the standard error over the test images, which are the same in every row, so much of
# it cancels in a comparison; what does not cancel is the luck of a training, of which the last line gives an idea.
# `Ladder` and `SelfReflective` have the same structure here, so no difference between these two is one of structure:
# it is how fast each parametrization learns. A few hundred steps on 8 x 8 images say that the pairs are
# interchangeable and what they report, not which guide is best. That takes full-size trainings over several seeds,
# or a model of which the answer is known, as in the next section.
#
# ## 2. Structure and family
#
# The *structure* says what a factor reads, the *family* which Gaussian it is: `family="diagonal"`, `"rank-one"` or
# `"full"`. On a `LinearGaussian` the price of each choice is known,
#
# $$
# \mathrm{gap} = \min_q\; \mathbb{E}_x\, \mathrm{KL}\big(q(z \mid x) \,\|\, p(z \mid x)\big),
# $$
#
# and `model.gap(structure, family)` computes it by linear algebra. With `encoder="linear", depth=0` all networks of
# a guide are linear maps, which is enough here. Measured is the mean of $\log p(x) - \mathrm{ELBO}(x)$ over data of
# the model, with draws of the guide: the last digit is noise, of the draws and of the training.

# %%
pyro.set_rng_seed(0)
linear = LinearGaussian(event=3, latent=(2, 2, 2), generator=torch.Generator().manual_seed(0)).requires_grad_(False)
x = linear(n=4096)
evidence = linear.log_evidence(x).mean().item()


def measured(guide, model=linear, x=x, evidence=evidence):
    """Train a guide on a frozen model; mean of log p(x) - ELBO(x)."""
    fit(model, guide, x, steps=budget(3000), batch_size=256, lr=2e-2, ema=0.99, seed=0, progress=False)
    gap = evidence - evaluate(model, guide, x, particles=budget(50), progress=False).elbo
    return round(gap, 4) + 0.0  # no -0.0


structures = {"mean-field": MeanField, "bottom-up": BottomUp, "top-down": SelfReflective}
table = {}
print(f"{'structure':<12}{'family':<10}{'measured':>10}{'closed form':>13}")
for structure, Guide in structures.items():
    for family in ("diagonal", "full"):
        guide = Guide(linear, x[:3], family=family, encoder="linear", depth=0)
        table[structure, family] = measured(guide), linear.gap(structure, family).item()
        print(f"{structure:<12}{family:<10}" + "{:>10.4f}{:>13.4f}".format(*table[structure, family]))

# %%
figure, axes = plt.subplots(figsize=(6.8, 3.3), layout="constrained")
place = range(len(table))
axes.bar([i - 0.2 for i in place], [m for m, _ in table.values()], 0.38, label="measured", color="#1b6ca8")
axes.bar([i + 0.2 for i in place], [c for _, c in table.values()], 0.38, label="closed form", color="#c3d7e6")
for i, pair in enumerate(table.values()):
    for value, shift in zip(pair, (-0.2, 0.2), strict=True):
        axes.text(i + shift, max(value, 0) + 0.015, f"{round(value, 2) + 0.0:.2f}", ha="center", fontsize=7)
axes.set_xticks(list(place), [f"{structure}\n{family}" for structure, family in table], fontsize=8)
axes.set_ylim(0, 1.45)
axes.set(ylabel="gap (nats)", title="What a structure and a family lose to the exact posterior")
axes.grid(alpha=0.3, axis="y")
axes.set_axisbelow(True)
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# A full covariance repairs what happens inside a layer, and nothing between layers: mean field gains little by it.
# Both structured guides become exact, in either direction, because each factor is given what the exact one needs.
#
# ## 3. Evidence networks and parents
#
# How a guide reads the data is a third argument. `encoder=` is `"separate"` (one network a latent), `"shared"` (one
# trunk), `"bottom-up"` (the ladder's chain), `"conv"` (images), `"linear"`, or any module that says its number of
# features:

# %%
rows_of_pixels = nn.Sequential(nn.Unflatten(-1, (8, 8)), nn.Linear(8, 16), nn.Tanh(), nn.Flatten(-2))
rows_of_pixels.output = 128
choices = ("separate", "shared", "bottom-up", ("conv", (1, 8, 8)), "linear", rows_of_pixels)
for choice in choices:
    encoder, image = choice if isinstance(choice, tuple) else (choice, None)
    guide = SelfReflective(initial, train[:3], encoder=encoder, image=image, hidden=64)
    widths = guide.factors.encoders[0].widths
    weights = sum(p.numel() for p in guide.parameters())
    name = encoder if isinstance(encoder, str) else "a module of mine"
    print(f"{name:<18}features {widths}, {weights} weights in all")

# %% [markdown]
# `parents=` says which other latents a factor reads. The default, `"needed"`, takes the fewest with which the guide
# can be exact, read off the model's factorization: in the direction of the guide, those latents that $z_l$ still
# depends on once the data are known. `"all"`, `"previous"`, `"none"` or a mapping overrule it. Here a chain, and the
# same with skip connections from every latent to $x$:

# %%
for skip in (False, True):
    model = HierarchicalVAE(event=64, latent=(2, 4, 8), hidden=32, skip=skip)
    for Guide in (SelfReflective, BottomUp):
        guide = Guide(model, train[:3], hidden=32)
        if Guide is SelfReflective:
            print(guide.layout.factorization)
        print(f"    {Guide.__name__:<15}", {z: guide.factors.parents[z] for z in guide.order})
print("    a mapping      ", SelfReflective(model, train[:3], hidden=32, parents={"z3": ("z1",)}).factors.parents)

# %% [markdown]
# In the chain $z_2$ screens $z_1$ from $z_3$. A skip opens a second way: once $x$ is observed, all that fed it
# explain it together, and $z_3$ must be given $z_1$ as well. The linear twin tells what it costs to forget this,
# with full covariances in every factor:

# %%
pyro.set_rng_seed(0)
skips = {"x": ("z1", "z2", "z3")}
skipping = LinearGaussian(3, (2, 2, 2), parents=skips, generator=torch.Generator().manual_seed(0)).requires_grad_(False)
y = skipping(n=4096)
for parents in ("all", "needed", "previous"):
    guide = SelfReflective(skipping, y[:3], family="full", parents=parents, encoder="linear", depth=0)
    gap = measured(guide, skipping, y, skipping.log_evidence(y).mean().item())
    print(f"parents={parents!r:<12}gap {gap:.4f}    {guide.factors.parents}")
print(f"closed form, top-down: {skipping.gap('top-down', 'full').item():.4f}")

# %% [markdown]
# ## 4. `SelfReflective` in its whole
#
# A `TopDownGuide` runs the model and is asked, at each latent, for a factor in place of the prior. This is the whole
# answer of `SelfReflective`, and of the method that it calls:

# %%
print(inspect.getsource(SelfReflective.get_posterior))
print(inspect.getsource(Conditionals.residual))

# %% [markdown]
# The last line puts the prior's own `transforms` over a new base: the very object, not a copy of it. torch compares
# transforms by identity, so it may use
#
# $$
# \mathrm{KL}\big(f_\# \mathcal{N}(m_q, s_q^2) \,\|\, f_\# \mathcal{N}(m_p, s_p^2)\big)
# = \sum_i \log \frac{s_{p,i}}{s_{q,i}} + \frac{s_{q,i}^2 + (m_{q,i} - m_{p,i})^2}{2\, s_{p,i}^2} - \frac{1}{2},
# $$
#
# and no Jacobian of $f$ enters the loss.

# %%
model, guide = trained["SelfReflective", 0]
batch = test[:128]
with torch.no_grad():
    guide(batch)
    model_trace, guide_trace = guide.get_traces()
    for z in sites:
        p, q = model_trace.nodes[z]["fn"], guide_trace.nodes[z]["fn"]
        divergence = torch.distributions.kl_divergence(q, p).mean()
        print(f"{z}: one transform {q.transforms[0] is p.transforms[0]}, closed-form KL {divergence:.4f}")


# %% [markdown]
# What the closed form is worth: the loss of one batch and its gradient, drawn many times, with the divergence in
# closed form or sampled as $\log q(z) - \log p(z)$ at the same draws of $z$.


# %%
def draws(model, guide, analytic, n):
    """Loss of the batch, and its gradient as one vector, n times."""
    pyro.set_rng_seed(0)
    weights = [*model.parameters(), *guide.parameters()]
    losses, gradients = [], []
    for _ in range(n):
        loss = -elbo(terms(model, guide, (batch,), analytic=analytic))
        gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, weights)]))
        losses.append(loss.detach())
    return torch.stack(losses), torch.stack(gradients)


pyro.set_rng_seed(0)
untrained = SelfReflective(model, train[:3], hidden=64)
noise = {}
print(f"{'guide':<12}{'divergence':<14}{'mean loss':>10}{'std of loss':>13}{'noise of gradient':>19}")
for label, q in {"untrained": untrained, "trained": guide}.items():
    for analytic in (True, False):
        losses, gradients = draws(model, q, analytic, budget(100))
        deviations = (gradients - gradients.mean(0)).norm(dim=1)
        way = "closed form" if analytic else "sampled"
        noise[label, way] = losses, deviations
        numbers = f"{losses.mean():>10.3f}{losses.std():>13.3f}{deviations.square().mean().sqrt():>19.2f}"
        print(f"{label:<12}{way:<14}{numbers}")

# %%
figure, axes = plt.subplots(1, 2, figsize=(8.4, 3.0), layout="constrained")
panels = {"loss (nats per image)": "The loss of one batch", "distance from the mean gradient": "Its gradient"}
for i, (axis, (label, title)) in enumerate(zip(axes, panels.items(), strict=True)):
    drawn = {way: noise["trained", way][i] for way in ("sampled", "closed form")}
    edges = torch.linspace(min(v.min() for v in drawn.values()), max(v.max() for v in drawn.values()), 31)
    for (way, values), color in zip(drawn.items(), ("#d9822b", "#1b6ca8"), strict=True):
        axis.hist(values.numpy(), bins=edges.numpy(), alpha=0.65, color=color, label=f"KL {way}")
    axis.set(xlabel=label, ylabel="draws")
    axis.set_title(title + ", trained guide", fontsize=10)
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
plt.show()

# %% [markdown]
# Both ways have one mean. Training follows the gradient, and the gradient is less noisy with the closed form, for
# the trained guide as for the untrained. The loss itself is another matter: near the exact posterior
# $\log p(x, z) - \log q(z \mid x)$ hardly depends on $z$, so the noise of the sampled divergence cancels that of the
# likelihood, and the closed form cannot cancel anything. To estimate a bound, sample; to train, take the closed
# form. So `fit` does, and the NLL of `evaluate` is made of sampled weights.
#
# ## 5. A guide of one's own
#
# Which latents are worth inferring? This guide infers some, and leaves the others to the prior, given what was
# inferred above them:
# $q(z \mid x) = \prod_{l \in I} q(z_l \mid \mathrm{pa}_l, x) \prod_{l \notin I} p(z_l \mid z_{<l})$.


# %%
class Partial(TopDownGuide):
    """A factor for each latent in `infer`, the prior for all others."""

    def __init__(self, model, *args, infer=("z1",), family="diagonal", encoder="separate", **sizes):
        super().__init__(model, *args)
        self.infer = infer
        parents = choose_parents(self.layout, list(self.layout.latents), "needed")
        self.factors = Conditionals(self.layout, parents, family, encoder, **sizes)

    def get_posterior(self, name, prior):
        return self.factors.residual(name, self.raw(name), prior) if name in self.infer else prior


print("infer           gap   KL z1   KL z2   KL z3")
for infer in (("z1",), ("z3",), ("z2", "z3"), ("z1", "z2", "z3")):
    guide = Partial(linear, x[:3], infer=infer, family="full", encoder="linear", depth=0)
    gap = measured(guide)
    kl = evaluate(linear, guide, x, particles=1, progress=False).kl
    print(f"{' '.join(infer):<9}{gap:>10.4f}" + "".join(f"{kl[z]:>8.3f}" for z in sites))

# %% [markdown]
# A latent left to the prior has no divergence, and the gap says what that saves at what price: inferring all three,
# the guide is exact again. The class works on any model, with any family and encoder. It is trained, evaluated and
# checked by the same calls as the others, since those see only two Pyro programs.
#
# ## 6. Several arguments, and a guide that does not fit
#
# The evidence of a guide is what the model observes inside its plate, whatever the arguments are called. Here are an
# image $x$ and its class $c$, both given by one code $z$, and a positive latent $r$, the contrast of the image:
#
# $$
# p(x, c, z, r) = p(z)\, p(r)\, p(x \mid z, r)\, p(c \mid z), \qquad r \sim \mathrm{Gamma}(4, 4).
# $$


# %%
class ImageAndClass(Program):
    """p(z) p(r) p(image | z, r) p(class | z)."""

    def __init__(self, pixels=64, classes=10, latent=6, hidden=64):
        super().__init__()
        self.register_buffer("zero", torch.zeros(latent))
        self.image = Net([latent], pixels, hidden, norm=True)
        self.label = Net([latent], classes, hidden, norm=True)

    def forward(self, image, label):
        with pyro.plate("data", len(image)):
            z = pyro.sample("z", dist.Normal(self.zero, 1.0).to_event(1))
            r = pyro.sample("r", dist.Gamma(4 * self.zero[0].exp(), 4.0))
            pyro.sample("x", dist.Normal(r.unsqueeze(-1) * self.image(z).sigmoid(), 0.2).to_event(1), obs=image)
            pyro.sample("c", dist.OneHotCategorical(logits=self.label(z)), obs=label)


grey, grey_test = data.load("digits", transform="none")
pairs = [(part, nn.functional.one_hot(part.labels, 10).float()) for part in (grey, grey_test)]
example = tuple(column[:3] for column in pairs[0])
pyro.set_rng_seed(0)
model = ImageAndClass()
for Guide in (MeanField, BottomUp, SelfReflective):
    guide = Guide(copy.deepcopy(model), *example, hidden=64)
    print(f"{Guide.__name__:<15}", {z: guide.factors.parents[z] for z in guide.order})
print("model          ", guide.layout.factorization)
print("evidence       ", {name: site.event_shape for name, site in guide.layout.evidence_sites.items()})

# %% [markdown]
# Data are a tuple, one entry an argument. The factor of $r$ is a Gaussian pushed to the positive numbers.

# %%
guide = BottomUp(model, *example, hidden=64)
fit(model, guide, pairs[0], steps=budget(400), lr=3e-3, seed=0, progress=False)
print(evaluate(model, guide, pairs[1], particles=budget(100), progress=False))

# %% [markdown]
# A guide that cannot serve a model says so when it is built, and a run without what it needs says so when it is
# called:


# %%
def message(call):
    try:
        call()
    except (TypeError, ValueError) as error:
        print(f"{type(error).__name__}: {error}\n")


def two_kinds(x):
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.Categorical(torch.ones(2)))
        pyro.sample("x", dist.Normal(k.float().unsqueeze(-1) * torch.ones(64), 1.0).to_event(1), obs=x)


message(lambda: Ladder(model, *example)(*example))
message(lambda: Ladder(two_kinds, example[0]))
message(lambda: SelfReflective(linear, x[:3], family="wishart"))
message(lambda: SelfReflective(linear, x[:3], parents={"z1": ("z2",)}))

# %% [markdown]
# Precision weighting wants a Gaussian prior, so `Ladder` declines the Gamma and names the guides that take it. The
# other three: a discrete latent, which `MeanField`, `BottomUp`, `SelfReflective` and `Faithful` take, an unknown
# family, and a parent that is drawn after its child.
