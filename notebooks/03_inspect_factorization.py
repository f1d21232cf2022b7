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
# # Inspect a factorization
#
# A guide $q(z \mid x)$ draws its latents one after the other, each given some of the earlier ones and some of the
# data. So does the exact posterior, if the chain rule is written in the guide's order $z_1, z_2, \dots$:
#
# $$
# q(z \mid x) = \prod_i q(z_i \mid \mathrm{have}_i), \qquad
# p(z \mid x) = \prod_i p(z_i \mid z_{<i}, x) = \prod_i p(z_i \mid \mathrm{need}_i),
# $$
#
# where $\mathrm{need}_i$ is the smallest part of $z_{<i}$ and $x$ that the exact factor depends on. It follows from
# the model's graph and is unique. The guide *mirrors* the posterior if the two sides have the same arrows. There are
# three degrees:
#
# * **faithful**: $\mathrm{need}_i \subseteq \mathrm{have}_i$ everywhere. Nothing is missing: the guide can be exact;
# * **minimal**: faithful, and no arrow can go;
# * **perfect**: faithful, and every independence between latents that the posterior has holds in the guide.
#
# `compare(model, guide, x)` finds both sides by running the two programs. Nothing has to be declared. This notebook
# shows it on the models of this collection (1 to 4), on a time series (5), says what a missing arrow costs (6), looks
# inside a layer (7), mends a guide (8), and says what all this does not tell (9).

# %%
import os
import warnings

warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm, imported by Pyro, would like ipywidgets

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, Trace_ELBO, autoguide
from pyro.infer.inspect import get_dependencies
from pyro.ops.stats import fit_generalized_pareto
from torch import nn

from guides import BottomUp, Faithful, Ladder, MeanField, SelfReflective
from ppl_models import DLGM, VAE, HierarchicalVAE, LinearGaussian, SeReVAE
from ppl_models.factorization import compare, factorization
from ppl_models.inference import fit, terms
from ppl_models.parts import Net, Program

FAST = os.environ.get("PPL_MODELS_FAST") == "1"
torch.set_num_threads(1)
plt.rcParams |= {"figure.dpi": 110, "axes.spines.top": False, "axes.spines.right": False, "axes.titlelocation": "left"}


def budget(n):
    """n steps (or particles), or a handful in fast mode."""
    return min(n, 10) if FAST else n


def log_weights(model, guide, args, draws):
    """log p(x, z) - log q(z | x), z drawn from the guide: (draws, data)."""
    with torch.no_grad():
        return terms(model, guide, args, particles=budget(draws), nesting=1, analytic=False).log_w


def lost(truth, model, guide, args):
    """log p(x) - ELBO(x), mean over data."""
    return round(truth - log_weights(model, guide, args, 200).mean().item(), 4) + 0.0  # no -0.0


def line(name, report):
    """A report in brief."""
    print(f"{name:<22}{report.verdict}\n    {report.guide}")


pyro.set_rng_seed(0)
x = (torch.rand(3, 16) < 0.5).float()

# %% [markdown]
# Three rows of data are enough, and what they contain does not matter here: the models below are untrained. With
# three rows the inspector checks that data are independent of each other; with one it could only believe it.
#
# ## 1. A VAE

# %%
model = VAE(16, latent=2, hidden=16)
guide = MeanField(model, x, hidden=16)
print(factorization(model, x))
print(factorization(guide, x))

# %% [markdown]
# How are these found? The program is run, one variable is changed, everything else is held, and the factors whose
# density moves are its children. A report holds the two against each other. Printed, it is text:

# %%
print(compare(model, guide, x))

# %% [markdown]
# As the last expression of a cell it has a picture: the model (observed sites grey), the exact posterior (two latents
# are joined if they depend on each other given the data and all other latents), and the guide.

# %%
compare(model, guide, x)

# %% [markdown]
# With one latent there is little to get wrong. The last line is to be taken seriously, though: *structure alone*. A
# diagonal Gaussian for $z_1 \in \mathbb{R}^2$ need not hold $p(z_1 \mid x)$ (section 7).
#
# ## 2. Independent causes: the DLGM
#
# In a deep latent Gaussian model every layer draws independent noise, and the data are made of all of it:

# %%
dlgm = DLGM(16, latent=(2, 2, 2), hidden=16)
found = factorization(dlgm, x)
print(found)
print("joined in the posterior:", *(" - ".join(edge) for edge in found.posterior_graph().edges), sep="   ")

# %% [markdown]
# Independent before the data are seen, dependent after: causes of one effect explain each other away. In the
# posterior every latent is joined to every other, a clique. Mean field, with which this model was published, asserts
# that none is:

# %%
compare(dlgm, MeanField(dlgm, x, hidden=16), x)

# %% [markdown]
# Red and dashed is what the guide lacks. Each line names a path by which the two depend on each other once the data
# are known; a path of one step is an edge of the posterior in the middle panel.
#
# The cure is to let each factor read the earlier ones. In a clique any order will do:

# %%
line("MeanField", compare(dlgm, MeanField(dlgm, x, hidden=16), x))
line("SelfReflective", compare(dlgm, SelfReflective(dlgm, x, hidden=16), x))
line("BottomUp", compare(dlgm, BottomUp(dlgm, x, hidden=16), x))
line("BottomUp, previous", compare(dlgm, BottomUp(dlgm, x, hidden=16, parents="previous"), x))

# %% [markdown]
# The last, a Markov chain upward, lacks one arrow. `compare(...).missing` says which:

# %%
print(compare(dlgm, BottomUp(dlgm, x, hidden=16, parents="previous"), x).missing)

# %% [markdown]
# ## 3. A chain: the hierarchical VAE
#
# The same three latents, where each layer is drawn given the one above, have a sparser posterior: a chain.

# %%
chain = HierarchicalVAE(16, latent=(2, 2, 2), hidden=16)
print(factorization(chain, x), "\n")
for Guide in (MeanField, BottomUp, Ladder):
    report = compare(chain, Guide(chain, x, hidden=16), x)
    line(Guide.__name__, report)
    print(f"    missing {report.missing}, superfluous {report.superfluous}")

# %% [markdown]
# Both structured guides are faithful, one upward and one downward. `BottomUp` is not minimal: its networks read $x$ at
# every layer, and given $z_3$ the data say nothing more about $z_2$. Superfluous arrows do no harm to what the guide
# can be; they cost weights, and a network must learn to ignore them. ("Perfect" speaks of latents alone, so a guide may
# be perfect and read more data than it needs.) They are grey in the picture:

# %%
compare(chain, BottomUp(chain, x, hidden=16), x)

# %% [markdown]
# ## 4. The self-reflective VAE
#
# A `SeReVAE` draws the data in blocks, each given its code and the block before. Its guide replaces each prior factor
# by a posterior factor that reads the same code above:

# %%
sere = SeReVAE(16, layers=3, latent=2, hidden=16)
compare(sere, SelfReflective(sere, x, hidden=16), x)

# %% [markdown]
# Faithful and perfect, but not minimal: $x_1$ is superfluous for $z_3$. The model says why. Whatever $x_1$ says about
# $z_3$ it says through $z_2$, which $z_3$ is given, or through $x_2$, which is data. It does matter for $z_2$,
# whose block $x_2$ was drawn given both:

# %%
found = factorization(sere, x)
for z, above in {"z1": (), "z2": ("z1",), "z3": ("z1", "z2")}.items():
    print(f"{z} needs {found.needed_parents(z, given=above)}")
print("x1 in the factor of z2:", " - ".join(found.witnesses("z2", given=("z1",))["x1"]))
print("\nexact, downward:", found.faithful_inverse("top-down"))
print("exact, upward:  ", found.faithful_inverse("bottom-up"))

# %% [markdown]
# `needed_parents` is the whole theory: take the ancestors of what is asked for and of what is given, join parents of a
# common child, remove what is given; what was adjacent to the part that still holds $z_i$ is needed. `witnesses` adds
# the paths. `faithful_inverse` does it for all latents in an order.
#
# The guide's argument `parents` overrules the structure, and the report follows:

# %%
for parents in ("needed", "all", "none", {"z3": ("z1",)}):
    line(f"{parents}", compare(sere, SelfReflective(sere, x, hidden=16, parents=parents), x))
line("Faithful", compare(sere, Faithful(sere, x, hidden=16), x))

# %% [markdown]
# With `"none"` the networks read no code, and still the guide is faithful: it shares the prior's bijections, whose
# parameters are functions of the code above. The inspector looks at
# the density that results, not at the wiring. The row before the last is what a Markov structure is worth: $z_3$ reads
# $z_1$ as well, without need. The last is the guide that reads what is needed and nothing else.
#
# ## 5. A state space, written here
#
# The programs need not come from this collection; any of Pyro or NumPyro will do. Four steps of a hidden state, with
# networks for transition and emission, in plain Pyro:

# %%
STEPS = 4
transition, emission = Net([2], 4, 8), Net([2], 6, 8)


def gaussian(numbers):
    loc, log_scale = numbers.chunk(2, -1)
    return dist.Normal(loc, log_scale.exp()).to_event(1)


def series(y):
    with pyro.plate("series", len(y)):
        z = pyro.sample("z0", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        for t in range(STEPS):
            z = z if t == 0 else pyro.sample(f"z{t}", gaussian(transition(z)))
            pyro.sample(f"y{t}", gaussian(emission(z)), obs=y[:, t])


class Recurrent(nn.Module):
    """q(z_t | z_{t-1}, h_t), h_t by a GRU that has read the observations up to t, from t on, or all."""

    def __init__(self, way):
        super().__init__()
        self.way = way
        self.gru = nn.GRU(3, 8, batch_first=True, bidirectional=way == "both")
        self.head = Net([16 if way == "both" else 8, 2], 4, 8)

    def forward(self, y):
        h = self.gru(y.flip(1))[0].flip(1) if self.way == "backward" else self.gru(y)[0]
        with pyro.plate("series", len(y)):
            z = torch.zeros(len(y), 2)
            for t in range(STEPS):
                z = pyro.sample(f"z{t}", gaussian(self.head(h[:, t], z)))


y = torch.randn(3, STEPS, 3)
guides = {"filtering": Recurrent("forward"), "smoothing": Recurrent("backward"), "bidirectional": Recurrent("both")}
print(factorization(series, y), "\n")
for name, guide in guides.items():
    report = compare(series, guide, y)
    missing, superfluous = (sum(map(len, found.values())) for found in (report.missing, report.superfluous))
    line(name, report)
    print(f"    {missing} missing, {superfluous} superfluous\n")

# %% [markdown]
# A *filtering* guide runs its GRU forward, so that $z_t$ is drawn from what was seen up to $t$. That is what a filter
# wants, but the posterior of a whole series looks ahead: given $z_{t-1}$, the state $z_t$ depends on all observations
# that are still to come. And the past, all of which is in $z_{t-1}$, is superfluous. Every data arrow but those to
# the present is the wrong one:

# %%
compare(series, guides["filtering"], y)

# %% [markdown]
# The path $z_0 - z_1 - y_1$ reads: $y_1$ says something about $z_1$, which is not yet drawn, and $z_1$ about
# $z_0$. The *smoothing* guide runs the GRU backward, and has each arrow of the posterior and no other:

# %%
compare(series, guides["smoothing"], y)

# %% [markdown]
# That the GRU's output is one tensor, computed from the whole series at once, does not fool the inspector, since it
# changes one observation at a time and sees which factors move.
#
# ## 6. What a missing arrow costs
#
# For one class of models there is a closed form. In a linear-Gaussian model the best guide of a structure loses
#
# $$
# \min_q\; \mathbb{E}_x\, \mathrm{KL}\big(p(z \mid x) \,\|\, q(z \mid x)\big)
# = \sum_i I\big(z_i;\, \text{all it could be given} \mid \mathrm{have}_i\big),
# $$
#
# a sum of conditional informations, one a factor. The inspector recognizes such models from the density and adds the
# prices to the report. Here is the linear twin of the chain of section 3, under mean field with full covariances:

# %%
linear = LinearGaussian(generator=torch.Generator().manual_seed(0)).requires_grad_(False)
pyro.set_rng_seed(0)
v = linear(n=2048)
compare(linear, MeanField(linear, v[:3], family="full", encoder="linear", depth=0), v[:3])

# %% [markdown]
# Two numbers, as there are two divergences. $\mathrm{KL}(p \,\|\, q)$ splits into the prices of the arrows;
# $\mathrm{KL}(q \,\|\, p)$ is what training minimizes, and its least value is what the ELBO cannot get below
# $\log p(x)$ by. They are of one size here, and both are 0 exactly if nothing is missing.
#
# Are they true of guides that are trained? Here is a guide with whatever arrows are asked for: each factor is a linear
# map of what it reads, with a full covariance. A factor in `own` also has numbers for each datum, looked up by its
# index:


# %%
class LinearMaps(Program):
    """q(z | x) = prod_i N(z_i; sum_u A_iu u + b_i, C_i), u in reads[i]; for `own` sites b_i is one for each datum."""

    def __init__(self, sizes, reads, own=(), rows=0):
        super().__init__()
        self.reads, self.own = reads, own
        self.maps = nn.ModuleDict({f"{z}_{u}": nn.Linear(sizes[u], sizes[z]) for z in reads for u in reads[z]})
        self.bias = nn.ParameterDict({z: torch.zeros(rows if z in own else 1, sizes[z]) for z in reads})
        self.root = nn.ParameterDict({z: torch.zeros(sizes[z], sizes[z]) for z in reads})

    def forward(self, x, index):
        values = {"x": x}
        with pyro.plate("data", len(x)):
            for z, parents in self.reads.items():
                loc = self.bias[z][index if z in self.own else torch.zeros_like(index)]
                loc = loc + sum(self.maps[f"{z}_{u}"](values[u]) for u in parents)
                root = self.root[z].tril(-1) + self.root[z].diagonal().exp().diag_embed()
                values[z] = pyro.sample(z, dist.MultivariateNormal(loc, scale_tril=root))


def twin(x, index):
    linear(x)


structures = {
    "mean field": {"z1": ("x",), "z2": ("x",), "z3": ("x",)},
    "z3 without z2": {"z1": ("x",), "z2": ("z1", "x"), "z3": ("x",)},
    "z2 without z1": {"z1": ("x",), "z2": ("x",), "z3": ("z2", "x")},
    "z2 without x": {"z1": ("x",), "z2": ("z1",), "z3": ("z2", "x")},
    "downward": {"z1": ("x",), "z2": ("z1", "x"), "z3": ("z2", "x")},
    "upward": {"z3": ("x",), "z2": ("z3",), "z1": ("z2",)},
    "own, without x": {"z1": (), "z2": ("z1",), "z3": ("z2",)},
}
index = torch.arange(len(v))
evidence = linear.log_evidence(v).mean().item()
table, trained = {}, {}
print(f"{'nats a datum':<20}{'min KL(p||q)':>13}{'min KL(q||p)':>13}{'trained':>10}   verdict")
for name, reads in structures.items():
    own = tuple(reads) if name.startswith("own") else ()
    pyro.set_rng_seed(0)
    guide = trained[name] = LinearMaps(linear.sizes, reads, own, len(v))
    report = compare(twin, guide, v[:3], index[:3])
    fit(twin, guide, (v, index), steps=budget(800), batch_size=len(v), lr=5e-2, ema=0.99, seed=0, progress=False)
    prices = (report.gap.forward, report.gap.elbo) if report.gap else (float("nan"), float("nan"))
    table[name] = prices[1], lost(evidence, twin, guide, (v, index))
    numbers = f"{prices[0]:>13.4f}{prices[1]:>13.4f}{table[name][1]:>10.4f}"
    print(f"{name:<20}{numbers}   {report.verdict}")

print("\nnotes on the last", *report.notes, sep="\n  ")

# %%
figure, axis = plt.subplots(figsize=(6.6, 2.9), layout="constrained")
for i, (closed, gap) in enumerate(table.values()):
    axis.plot(closed, i, "|", color="black", markersize=16, label="closed form" if i == 0 else None)
    axis.plot(gap, i, "o", color="#cf222e", markersize=5, label="trained" if i == 0 else None)
axis.set_yticks(range(len(table)), list(table))
axis.invert_yaxis()
axis.set(xlabel="$\\log p(x) - \\mathrm{ELBO}$ (nats a datum)", title="What a structure loses")
axis.grid(alpha=0.3)
axis.legend(frameon=False)
plt.show()

# %% [markdown]
# The trained guides lose what the structure says they must, up to what training leaves and the noise of drawing.
#
# Compare the two rows "without $x$". A missing arrow *between latents* always costs: the posterior of any one datum has
# the dependence. A missing arrow *from the data* costs an amortized guide, which has one map for all data, and none
# that is fitted to each datum by itself: there the data are a constant, and "$z_2$ depends on $x$" is in the numbers
# that were fitted. (Here it costs nothing at all, because the posterior covariance of a linear-Gaussian model is the
# same for all data.) The inspector knows the difference: a guide that reads nothing of the data but has numbers of its
# own is not reproached for it, and a note says so. It has no price: what `index` tells of the data is not known.
#
# ## 7. Inside a layer
#
# A site is a vector, and its elements depend on each other as well. `level="element"` asks for them one by one. The
# ladder with diagonal factors, faithful by site, is not by element:

# %%
small = LinearGaussian(3, (2, 2), generator=torch.Generator().manual_seed(0)).requires_grad_(False)
ladder = Ladder(small, v[:3], encoder="linear", depth=0)
line("by site", compare(small, ladder, v[:3]))
compare(small, ladder, v[:3], level="element")

# %% [markdown]
# `z1.0` and `z1.1` are the two elements of $z_1$. A diagonal factor asserts that they are independent given the data,
# though both explain the same $z_2$. A full covariance does not:

# %%
full = Ladder(small, v[:3], family="full", encoder="linear", depth=0)
print(compare(small, full, v[:3], level="element").verdict)

# %% [markdown]
# The price, on the twin of three layers of section 6, and what trained ladders lose:

# %%
for family in ("diagonal", "full"):
    pyro.set_rng_seed(0)
    ladder = Ladder(linear, v[:3], family=family, encoder="linear", depth=0)
    fit(linear, ladder, v, steps=budget(1000), batch_size=512, lr=3e-2, ema=0.99, seed=0, progress=False)
    closed = linear.gap("top-down", family).item()
    print(f"{family:<10}closed form {closed:.4f}   trained {lost(evidence, linear, ladder, (v,)):.4f}")

# %% [markdown]
# ## 8. A model of your own
#
# A house has a temperature $a$, two rooms have temperatures $b$ and $c$ near it, and in each hangs a thermometer:


# %%
def house(yb, yc):
    with pyro.plate("days", len(yb)):
        a = pyro.sample("a", dist.Normal(0.0, 3.0))
        b = pyro.sample("b", dist.Normal(a, 1.0))
        c = pyro.sample("c", dist.Normal(a, 1.0))
        pyro.sample("yb", dist.Normal(b, 2.0), obs=yb)
        pyro.sample("yc", dist.Normal(c, 2.0), obs=yc)


# y is Gaussian: variance 3^2 + 1^2 + 2^2, covariance 3^2
marginal = dist.MultivariateNormal(torch.zeros(2), torch.tensor([[14.0, 9.0], [9.0, 14.0]]))
pyro.set_rng_seed(0)
yb, yc = marginal.sample([2000]).T.contiguous()
truth = marginal.log_prob(torch.stack([yb, yc], -1)).mean().item()
example = yb[:3], yc[:3]
print(factorization(house, *example))

# %% [markdown]
# A guide that looks right at first: each room from its thermometer, the house from the rooms. It is also what one
# gets by reading the dependencies that Pyro reports as parents:

# %%
for z, needed in get_dependencies(house, example)["posterior_dependencies"].items():
    print(z, "-", *(u for u in needed if u != z))


class Rooms(Program):
    """q(c | yc) q(b | yb) q(a | b, c), linear maps."""

    def __init__(self):
        super().__init__()
        self.weight = nn.ParameterDict({z: 0.3 * torch.ones(2 if z == "a" else 1) for z in "abc"})
        self.bias = nn.ParameterDict({z: torch.zeros(()) for z in "abc"})
        self.log_scale = nn.ParameterDict({z: torch.zeros(()) for z in "abc"})

    def factor(self, z, *reads):
        loc = self.bias[z] + sum(w * u for w, u in zip(self.weight[z], reads, strict=True))
        return pyro.sample(z, dist.Normal(loc, self.log_scale[z].exp()))

    def forward(self, yb, yc):
        with pyro.plate("days", len(yb)):
            c = self.factor("c", yc)
            b = self.factor("b", yb)
            self.factor("a", b, c)


pyro.set_rng_seed(0)
rooms = Rooms()
compare(house, rooms, *example)

# %% [markdown]
# $b$ and $c$ know of each other through $a$, which is drawn last. (Pyro's inspector does say what depends on what
# *given everything else*. As parents, in an order, they are too few, since what is drawn later must first be summed
# out.) `Faithful` takes the model and makes a guide with the parents that are needed, in an order of choice:

# %%
mended = {}
for order in ("bottom-up", "top-down", "min-fill"):
    pyro.set_rng_seed(0)
    guide = Faithful(house, *example, order=order, encoder="linear", depth=0)
    mended[order] = guide
    line(order, compare(house, guide, *example))

# %% [markdown]
# Upward, $b$ and $c$ come before $a$ and must know of each other, although they are independent given $a$: faithful,
# but not perfect. With $a$ in between or first, the guide has the posterior's independence, too.
#
# Both programs are Pyro's, so `fit` trains them, and so does `pyro.infer.SVI`:

# %%
reported = compare(house, rooms, *example).gap.elbo
fit(house, rooms, (yb, yc), steps=budget(600), batch_size=500, lr=3e-2, ema=0.99, seed=0, progress=False)
pyro.clear_param_store()
pyro.set_rng_seed(0)
svi = SVI(house, mended["bottom-up"], pyro.optim.ClippedAdam({"lr": 5e-2, "lrd": 0.995}), Trace_ELBO())
for _ in range(budget(800)):
    svi.step(yb, yc)
print(f"mean log p(y), exact             {truth:.4f}")
for name, guide in {"each room by itself": rooms, "Faithful, bottom-up": mended["bottom-up"]}.items():
    gap = lost(truth, house, guide, (yb, yc))
    print(f"ELBO, {name:<27}{truth - gap:.4f}   gap {gap:.4f}")
print(f"gap of the first, by the report  {reported:.4f}")

# %% [markdown]
# (The report's gap is a mean over all data that the model can make, the measured one over these 2000.)
#
# Globals and locals are the same matter. Groups $\theta_g$ around a common mean $\mu$, under the guide that Pyro
# makes of independent Gaussians, and under `Faithful`, which draws $\mu$ first:


# %%
def groups(y):
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    with pyro.plate("groups", len(y)):
        theta = pyro.sample("theta", dist.Normal(mu, 1.0))
        pyro.sample("y", dist.Normal(theta, 2.0), obs=y)


y = torch.tensor([2.8, 0.8, -0.3])
covariance = 25 + 5 * torch.eye(len(y))
truth = dist.MultivariateNormal(torch.zeros(len(y)), covariance).log_prob(y).item()
print(f"log p(y), exact  {truth:.4f}\n")
for make in (autoguide.AutoNormal, lambda model: Faithful(model, y, encoder="linear", depth=0)):
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    guide = make(groups)
    report = compare(groups, guide, y)
    svi = SVI(groups, guide, pyro.optim.ClippedAdam({"lr": 5e-2, "lrd": 0.998}), Trace_ELBO())
    for _ in range(budget(2000)):
        svi.step(y)
    many = Trace_ELBO(num_particles=budget(5000), vectorize_particles=True, max_plate_nesting=1)
    gap = truth + many.loss(groups, guide, y)
    print(f"{report.verdict}: {report.guide}; missing {report.missing}")
    print(f"    ELBO {truth - gap:.3f}, gap {gap:.3f}; gap by the report {report.gap.elbo:.3f}\n")

# %% [markdown]
# ## 9. What this does not tell
#
# **Faithful is necessary, not sufficient.** The families must hold the exact conditionals (section 7 has a faithful
# guide that loses), the networks must be wide enough, and the training must succeed. The other direction is firmer: an
# unfaithful guide cannot be exact but for coincidences, parameters that happen to cut an arrow.
#
# **A small gap is not a small error in structure, and checks of the weights do not see structure.** The usual
# diagnostic of a guide is $\hat k$, the tail index of the importance weights, fine below 0.7. Here it is for the
# guides trained in section 6, as the median over 50 data:


# %%
def khat(log_w):
    """The shape of a generalized Pareto density fitted to the largest of the weights (draws,)."""
    weights = (log_w - log_w.max()).exp().sort().values.double()
    tail = int(min(0.2 * len(weights), 3 * len(weights) ** 0.5))
    return fit_generalized_pareto(weights[-tail:] - weights[-tail - 1])[0]


for name in ("mean field", "z2 without x", "downward"):
    weights = log_weights(twin, trained[name], (v[:50], index[:50]), 4000)
    median = torch.tensor([khat(column) for column in weights.T]).median()
    print(f"{name:<16}gap {table[name][1]:.3f}   median k-hat {median:.2f}")

# %% [markdown]
# The guide without $x$ passes, and loses nats: a factor that does not see the data averages over them and becomes wide,
# and the weights of a wide guide have light tails. Simulation-based calibration holds ranks of chosen quantities
# against what they should be; it sees what those quantities show. Neither says which arrow is missing.
#
# **Structure is a matter of the program, and of its weights.** By default the inspector moves all parameters a little
# before it looks, so that a weight that happens to be zero hides nothing. `jitter=False` looks at the weights as they
# are: the *effective* structure. Here the arrow from $z_2$ to $z_3$ of the twin is cut, which is what posterior
# collapse amounts to:

# %%
collapsed = LinearGaussian(generator=torch.Generator().manual_seed(0)).requires_grad_(False)
collapsed.weight["z3_z2"].zero_()
guide = MeanField(collapsed, v[:3], family="full", encoder="linear", depth=0)
for jitter in (True, False):
    report = compare(collapsed, guide, v[:3], jitter=jitter)
    print(f"jitter={jitter!s:<7}{report.model}")
    print(f"             {report.verdict}, missing {report.missing}, superfluous {report.superfluous}\n")

# %% [markdown]
# $x$ has no more to say about $z_1$ and $z_2$, and mean field lacks only what the prior itself has. In a trained
# network weights are small and seldom zero, so an arrow counts as long as anything at all moves; how much goes through
# it is what "KL" in `evaluate` says.
