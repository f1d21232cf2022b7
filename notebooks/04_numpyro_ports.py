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
# # NumPyro ports, reference posteriors and ArviZ
#
# Every model and guide of the collection has a port in NumPyro: same file names, same sites, same names of parameters.
# So weights cross over by name, and what one side has trained the other evaluates, draws from, or samples with NUTS.
#
# 1. one pair on both sides, with the same weights and the same numbers;
# 2. one factorization, recovered from either program;
# 3. trained by either, evaluated by either; how long a step takes;
# 4. a guide held against NUTS, in ArviZ: where it is too narrow, and the Pareto k-hat that says so;
# 5. global latents: eight schools, and leave-one-out cross-validation.
#
# It needs the extra: `pip install 'ppl-models[numpyro]'`.

# %%
import os
import warnings

warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm would like ipywidgets
warnings.filterwarnings("ignore", message=r"\s*ArviZ is undergoing a major refactor", category=FutureWarning)

import arviz as az
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpyro
import numpyro.distributions as dist
import pyro
import torch
from numpyro import handlers
from pyro import poutine

import guides
import guides.numpyro
import ppl_models
import ppl_models.numpyro
from ppl_models import data, inference
from ppl_models.factorization import compare
from ppl_models.inference.diagnostics import loo
from ppl_models.inference.numpyro import nuts
from ppl_models.numpyro import like_torch, to_torch
from ppl_models.views import to_arviz

FAST = os.environ.get("PPL_MODELS_FAST") == "1"
torch.set_num_threads(1)
plt.rcParams |= {"figure.dpi": 110}


def budget(n, least=8):
    """n steps (or draws), or a handful in fast mode."""
    return min(n, least) if FAST else n


train, test = data.load("digits")

# %% [markdown]
# ## 1. One pair, two languages
#
# A self-reflective VAE with its guide, in Pyro, trained for a while:

# %%
sizes = {"event": 64, "layers": 3, "latent": 4, "hidden": 64}
pyro.set_rng_seed(0)
model = ppl_models.SeReVAE(**sizes)
guide = guides.SelfReflective(model, train[:3], hidden=64)
run = inference.fit(model, guide, train, steps=budget(1000), batch_size=64, lr=5e-3, seed=0, progress=False)

# %% [markdown]
# The port takes the same arguments, and a `key` for its initial weights. An Equinox module does not change:
# `like_torch` gives a new one with the weights of the torch module.

# %%
keys = jax.random.split(jax.random.key(0))
port = like_torch(ppl_models.numpyro.SeReVAE(**sizes, key=keys[0]), model)
x = jnp.asarray(test[:8].numpy())
port_guide = like_torch(guides.numpyro.SelfReflective(port, x[:3], hidden=64, key=keys[1]), guide)

back, state = to_torch(port), model.state_dict()
same = all(torch.equal(back[name], value) for name, value in state.items())
print(f"{sum(v.numel() for v in state.values())} weights; carried over and back all bits are the same: {same}")

# %% [markdown]
# The same latents give the same log-density at every site. Single precision agrees to six or seven digits; the tests
# hold every pair of the collection to $10^{-10}$ in double precision, with its gradients to $10^{-8}$.

# %%
rows = test[:8]
with torch.no_grad():
    drawn = poutine.trace(guide).get_trace(rows)
    scored = poutine.trace(poutine.replay(model, trace=drawn)).get_trace(rows)
    scored.compute_log_prob()
latents = {name: jnp.asarray(drawn.nodes[name]["value"].numpy()) for name in guide.order}
sites = handlers.trace(handlers.seed(handlers.substitute(port, data=latents), keys[0])).get_trace(x)
print(f"{'site':<6}{'Pyro':>12}{'NumPyro':>12}{'difference':>12}")
for name, node in scored.nodes.items():
    if node["type"] == "sample" and name in sites and sites[name]["type"] == "sample":
        ours = float(node["log_prob"].sum())
        theirs = float(sites[name]["fn"].log_prob(sites[name]["value"]).sum())
        print(f"{name:<6}{ours:>12.4f}{theirs:>12.4f}{theirs - ours:>12.1e}")

# %% [markdown]
# ## 2. One factorization
#
# The inspector runs either program, and finds the same:

# %%
reports = {"Pyro": compare(model, guide, test[:3]), "NumPyro": compare(port, port_guide, x[:3])}
for language, report in reports.items():
    print(f"{language:<8} {report.model}\n{'':<8} {report.guide}\n{'':<8} {report.verdict}")

# %% [markdown]
# ## 3. Train with either, evaluate with either
#
# `fit` and `evaluate` of `ppl_models.numpyro` take the same arguments. A run leaves its (averaged) pair in the `Run`,
# as programs do not change in JAX:

# %%
port_run = ppl_models.numpyro.fit(
    port, port_guide, train, steps=budget(500), batch_size=64, lr=2e-3, seed=1, progress=False
)
trained, trained_guide = port_run.model, port_run.guide

# and back: the torch pair with the weights that NumPyro has trained on
model.load_state_dict(to_torch(trained))
guide.load_state_dict(to_torch(trained_guide))
particles = budget(1000)
by_numpyro = ppl_models.numpyro.evaluate(trained, trained_guide, test, particles=particles, progress=False)
by_pyro = inference.evaluate(model, guide, test, particles=particles, progress=False)
print(f"NLL by NumPyro {by_numpyro.nll:.3f}, by Pyro {by_pyro.nll:.3f} nats, {particles} importance samples each")

# %% [markdown]
# From the shell: `ppl-models train sere-vae -g self-reflective --backend numpyro`, and `ppl-models evaluate RUN
# --backend numpyro` on a run of either.
#
# How long a step takes, past its compilation: the records of `fit` have the seconds. Pyro's eager step is what the
# ports are compared with; its compiled one, and every pair of the collection, are in `benchmarks/README.md`.

# %%
steps = budget(600, 30)
settings = {"steps": steps, "every": steps // 3, "batch_size": 64, "lr": 1e-4, "progress": False}


def milliseconds(history):
    """Of a step, over the last two thirds of the records."""
    return 1e3 * (history[-1]["seconds"] - history[0]["seconds"]) / (history[-1]["step"] - history[0]["step"])


times = {
    "Pyro, eager": inference.fit(model, guide, train, compile=False, **settings).history,
    "NumPyro": ppl_models.numpyro.fit(trained, trained_guide, train, **settings).history,
}
if not FAST:  # it takes half a minute
    times["Pyro, compiled"] = inference.fit(model, guide, train, compile=True, **settings).history
for name, history in times.items():
    print(f"{name:<16}{milliseconds(history):6.2f} ms a step")

# %% [markdown]
# ## 4. A guide against NUTS
#
# A decoder with two latents is small enough for Hamiltonian Monte Carlo. We train a VAE, hold its decoder fixed, and
# ask for the posterior of the codes of three digits: by the amortized guide, and by NUTS.

# %%
decoder = ppl_models.numpyro.VAE(event=64, latent=2, hidden=64, key=keys[0])
encoder = guides.numpyro.MeanField(decoder, x[:3], hidden=64, key=keys[1])
vae = ppl_models.numpyro.fit(
    decoder, encoder, train, steps=budget(3000), batch_size=64, lr=2e-3, seed=0, progress=False
)
digits = x[:3]
reference = nuts(vae.model, digits, warmup=budget(1000, 50), draws=budget(1000, 50), chains=4, seed=0)
print(reference)

# %% [markdown]
# `to_arviz` draws from a pair and names every dim: posterior, posterior predictive, prior, log-likelihood, data, and
# for every datum `pareto_k`. Below 0.7 the guide's draws can be reweighted to the posterior's; above, they cannot.

# %%
names = {"dims": {"z1": ["latent"]}, "coords": {"data": ["first", "second", "third"]}}
amortized = to_arviz(vae.model, vae.guide, digits, draws=budget(1000, 50), chains=4, seed=0, **names)
exact = az.from_dict(
    posterior=reference.samples,
    sample_stats={"diverging": reference.stats["diverging"]},
    dims={"z1": ["data", "latent"]},
    coords=names["coords"],
)
print(amortized.groups())
print(amortized.sample_stats.pareto_k.to_series().round(2).to_string())

# %%
az.plot_forest([exact, amortized], model_names=["NUTS", "guide"], var_names=["z1"], combined=True, figsize=(7, 3.5))
plt.show()

# %% [markdown]
# The exact posterior of a code has a tail, up and to the left, that a diagonal Gaussian does not have: k-hats near and
# beyond the limit say so (other draws move them by 0.1 or 0.2). Blue: NUTS. Orange: the guide.

# %%
axes = az.plot_pair(
    exact, var_names=["z1"], coords={"data": ["first"]}, kind="scatter", figsize=(4.5, 4.5),
    scatter_kwargs={"alpha": 0.25, "label": "NUTS"},
)  # fmt: skip
az.plot_pair(
    amortized, var_names=["z1"], coords={"data": ["first"]}, kind="scatter", ax=axes,
    scatter_kwargs={"alpha": 0.25, "color": "C1", "label": "guide"},
)  # fmt: skip
axes.legend()
plt.show()

# %% [markdown]
# The chains of NUTS agree (rank plot), and what the model predicts of the data, drawn from the guide's posterior, looks
# like them (posterior predictive check):

# %%
az.plot_rank(exact, var_names=["z1"], coords={"data": ["first"]}, figsize=(8, 2.5))
plt.show()

# %%
az.plot_ppc(amortized, num_pp_samples=budget(50, 10), kind="cumulative", figsize=(6, 3), random_seed=0)
plt.show()

# %% [markdown]
# k-hat tells too narrow from too wide. We shrink and widen the guide's scale: a narrow guide misses the posterior's
# tails, which weights then have to make up for, and a wide one wastes draws but misses nothing.

# %%
factors = (0.4, 1.0, 2.0)


def scaled(factor):
    """The trained guide with all its standard deviations times a factor."""

    def program(x):
        with handlers.block():  # the guide's own draw is no site of this program
            drawn = handlers.trace(handlers.seed(vae.guide, keys[0])).get_trace(x)
        q = drawn["z1"]["fn"]
        with numpyro.plate("data", len(x)):
            numpyro.sample("z1", dist.Normal(q.mean, factor * jnp.sqrt(q.variance)).to_event(1))

    return program


for factor in factors:
    found = to_arviz(vae.model, scaled(factor), digits, draws=budget(2000, 60), groups="posterior", seed=0)
    print(f"scale x {factor}: pareto_k " + ", ".join(f"{k:5.2f}" for k in found.sample_stats.pareto_k.values))

# %% [markdown]
# ## 5. Global latents, and leave-one-out
#
# Eight schools (Rubin 1981), as a NumPyro function of its own. `Faithful` builds the guide that its graph asks for.

# %%
effects = jnp.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
errors = jnp.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
schools = ["Choate", "Deerfield", "Andover", "Exeter", "Hotchkiss", "Lawrence", "St. Paul's", "Mt. Hermon"]


def eight_schools(y, sigma):
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("school", len(y)):
        theta = numpyro.sample("theta", dist.Normal(0.0, 1.0))  # in units of tau: non-centered
        numpyro.sample("y", dist.Normal(mu + tau * theta, sigma), obs=y)


arguments = (effects, errors)
faithful = guides.numpyro.Faithful(eight_schools, *arguments, family="flow", hidden=32, key=keys[0])
print(faithful.factorization)
fitted = ppl_models.numpyro.fit(
    eight_schools, faithful, arguments, steps=budget(4000), batch_size=8, lr=3e-3, particles=16, seed=0, progress=False
)
truth = nuts(eight_schools, *arguments, warmup=budget(1000, 50), draws=budget(1000, 50), accept=0.95, seed=0)
print(truth)

# %%
label = {"coords": {"school": schools}}
guessed = to_arviz(fitted.model, fitted.guide, arguments, draws=budget(1000, 50), chains=4, seed=0, **label)
sampled = az.from_dict(posterior=truth.samples, dims={"theta": ["school"]}, **label)
print(f"pareto_k {float(guessed.sample_stats.pareto_k):.2f}")
az.plot_forest([sampled, guessed], model_names=["NUTS", "Faithful"], combined=True, figsize=(7, 5))
plt.show()

# %% [markdown]
# The expected log predictive density of a school left out, by PSIS-LOO: ArviZ takes the guide's draws for the
# posterior's, `diagnostics.loo` corrects for the guide as well.

# %%
pointwise = guessed.log_likelihood.y.stack(sample=("chain", "draw")).values.T
weights = guessed.sample_stats.log_w.stack(sample=("chain", "draw")).values
corrected = loo(pointwise, weights)
if not FAST:  # a handful of draws has no tail to fit
    print(az.loo(guessed, var_name="y"))
print(f"\ncorrected for the guide: elpd {corrected.elpd:.2f}, standard error {corrected.error:.2f}")
