"""Cases of `pairs` written again in NumPyro, by the same names: their verdicts are to be the same."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro import deterministic, handlers, param, plate, sample


def data(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape or (3, 3)).astype(np.float32)


def normal(size=2):
    return dist.Normal(jnp.zeros(size), 1.0).to_event(1)


def net(name, out, *inputs):
    """A tanh layer of 4 units, drawn once."""
    inputs = jnp.concatenate(inputs, -1)
    first = param(f"{name}.first", lambda key: jax.random.normal(key, (inputs.shape[-1], 4)))
    second = param(f"{name}.second", lambda key: jax.random.normal(key, (4, out)))
    return jnp.tanh(inputs @ first) @ second


def head(name, out, *inputs):
    return dist.Normal(net(name, out, *inputs), 0.5).to_event(1)


def chain(x, layers=3, skip=False):
    with plate("data", len(x)):
        z, above = sample(f"z{layers}", normal()), ()
        for i in range(layers - 1, 0, -1):
            above = (z,)
            z = sample(f"z{i}", head(f"p{i}", 2, z))
        sample("x", dist.Bernoulli(logits=net("px", 3, z, *(above if skip else ()))).to_event(1), obs=x)


def drawn(x, **reads):
    """Each site in turn, from a network of what it reads."""
    values = {"x": x}
    with plate("data", len(x)):
        for z, names in reads.items():
            values[z] = sample(z, head(f"q{z}", 2, *(values[u] for u in names.split())))


def vae(x, mix=lambda z: z):
    with plate("data", len(x)):
        z = sample("z", normal())
        sample("x", head("px", 3, mix(z)), obs=x)


def encoder(x, mix=lambda x: x):
    with plate("data", len(x)):
        sample("z", head("qz", 2, mix(x)))


def state_space(x):
    z = sample("z0", normal())
    for t in range(len(x)):
        z = z if t == 0 else sample(f"z{t}", head("p", 2, z))
        sample(f"x{t}", head("px", 3, z), obs=x[t])


def in_time(x, reads):
    z = jnp.zeros(2)
    for t in range(len(x)):
        z = sample(f"z{t}", head("q", 2, reads(x, t).sum(0), z))


def shared(x):
    theta = sample("theta", normal())
    with plate("data", len(x)):
        z = sample("z", head("pz", 2, jnp.broadcast_to(theta, (len(x), 2))))
        sample("x", head("px", 3, z), obs=x)


def shared_guide(x, given):
    theta = sample("theta", head("qtheta", 2, jnp.tanh(x).sum(0)))
    with plate("data", len(x)):
        sample("z", head("qz", 2, x, *([jnp.broadcast_to(theta, (len(x), 2))] if given else [])))


def reflective(x, skip=False):
    values, blocks = [], jnp.split(x, 3, -1)
    with plate("data", len(x)):
        for i in range(3):
            values.append(push(i, sample(f"e{i + 1}", normal()), values))
            before = [blocks[i - 1]] if i else []
            before += [values[0]] if skip and i == 2 else []
            sample(f"x{i + 1}", head(f"px{i}", 3, values[-1], *before), obs=blocks[i])


def push(i, e, values):
    above = values[-1] if values else jnp.zeros_like(e)
    return deterministic(f"z{i + 1}", net(f"loc{i}", 2, above) + jnp.exp(jnp.tanh(net(f"scale{i}", 2, above))) * e)


def reflecting(x, reads):
    es, values = [], []
    with plate("data", len(x)):
        for i in range(3):
            above = {"z": values[-1:], "nothing": [], "e": es}[reads]
            es.append(sample(f"e{i + 1}", head(f"qe{i}", 2, x, *above)))
            values.append(push(i, es[-1], values))


def scalars(x, likelihood):
    likelihood(sample("a", normal(1)), sample("b", normal(1)), x)


def two(x, given):
    a = sample("a", head("qa", 1, x))
    sample("b", head("qb", 1, x, *([a] if given else [])))


def branch(a, b, x):
    sample("x", dist.Normal(b if a > 0 else -2 * b, 1.0).to_event(1), obs=x)


def item(a, b, x):
    sample("x", dist.Normal(b * a.item() + np.asarray(a).tolist()[0], 1.0).to_event(1), obs=x)


def masked(a, b, x):
    with handlers.mask(mask=a[0] > 0):
        sample("x", dist.Normal(b, 1.0).to_event(1), obs=x)


def scaled(a, b, x):
    with handlers.scale(scale=1 + a[0] ** 2):
        sample("x", dist.Normal(b, 1.0).to_event(1), obs=x)


def factored(x):
    with plate("data", len(x)):
        a, b = sample("a", normal()), sample("b", normal())
        numpyro.factor("f", -((a - b) ** 2).sum(-1))
        sample("x", dist.Normal(jnp.concatenate([a, a[..., :1]], -1), 1.0).to_event(1), obs=x)


def mixture(x, **options):
    with plate("data", len(x)):
        k = sample("k", dist.Categorical(jnp.ones(3) / 3), **options)
        z = sample("z", head("pz", 2, jax.nn.one_hot(k, 3)))
        sample("x", head("px", 3, z), obs=x)


def mixing(x, k_reads):
    with plate("data", len(x)):
        z = sample("z", head("qz", 2, x))
        if k_reads:
            sample("k", dist.Categorical(logits=net("qk", 3, z if k_reads == "z" else x)))


def nested(x):
    with plate("groups", x.shape[0], dim=-2):
        u = sample("u", normal())
        with plate("data", x.shape[1], dim=-1):
            z = sample("z", head("pz", 2, jnp.broadcast_to(u, (*x.shape[:2], 2))))
            sample("x", head("px", 3, z), obs=x)


def nested_guide(x, given):
    with plate("groups", x.shape[0], dim=-2):
        u = sample("u", head("qu", 2, jnp.tanh(x).sum(1, keepdims=True)))
        with plate("data", x.shape[1], dim=-1):
            sample("z", head("qz", 2, x, *([jnp.broadcast_to(u, (*x.shape[:2], 2))] if given else [])))


def crossed(x):
    rows, columns = plate("rows", x.shape[0], dim=-2), plate("columns", x.shape[1], dim=-1)
    with rows:
        a = sample("a", dist.Normal(0.0, 1.0))
    with columns:
        b = sample("b", dist.Normal(0.0, 1.0))
    with rows, columns:
        sample("x", dist.Normal(a + b, 1.0), obs=x)


def crossed_guide(x, given):
    with plate("rows", x.shape[0], dim=-2):
        a = sample("a", dist.Normal(param("a_loc", data(x.shape[0], 1)), 0.5))
    with plate("columns", x.shape[1], dim=-1):
        shift = -a.mean(-2, keepdims=True) if given else 0.0
        sample("b", dist.Normal(param("b_loc", data(x.shape[1])) + shift, 0.5))


def subsampled(x):
    with plate("data", len(x), subsample_size=3):
        batch = numpyro.subsample(x, event_dim=1)
        z = sample("z", normal())
        sample("x", head("px", 3, z), obs=batch)


def subsampled_guide(x):
    with plate("data", len(x), subsample_size=3) as rows:
        sample("z", head("qz", 2, x[rows]))


def own_numbers(x, per_datum):
    with plate("data", len(x)):
        shape = (len(x), 2) if per_datum else (2,)
        sample("z", dist.Normal(param("loc", jnp.zeros(shape), event_dim=1), 1.0).to_event(1))


# What JAX allows in between


def written(a, b):
    return jnp.zeros(2).at[0].set(a[0]).at[1].set(b[0])


def mapped(a, b):
    return jax.vmap(lambda u, v: u * v)(a, b)


def chosen(a, b):
    return jax.lax.cond(a[0] > 0, lambda u: u, lambda u: -2 * u, b)


def compiled(a, b):
    return jax.jit(lambda u, v: u * v)(a, b)


def looped(a, b):
    return jax.lax.fori_loop(0, 3, lambda i, u: u * b, a)


MEANS = (written, mapped, chosen, compiled, looped)


def shifted(x):
    with plate("data", len(x)):
        z = sample("z", normal())
        s = sample("s", dist.Gamma(2.0, 1.0))
        sample("x", dist.Normal(jnp.concatenate([z, z[:, :1]], -1), s[:, None]).to_event(1), obs=x)


UP = partial(drawn, z1="x", z2="z1", z3="z2")
X, LONG, ONE = data(), data(4, 3), data(1)
BITS = (X > 0).astype(np.float32)
SKIP = partial(chain, skip=True)
SERE, BLOCKS = {s: partial(reflective, skip=s) for s in (False, True)}, data(3, 9)
TWINS = {
    "vae": (vae, encoder, X),
    "hierarchy, mean field": (chain, partial(drawn, z1="x", z2="x", z3="x"), BITS),
    "hierarchy, bottom-up": (chain, UP, BITS),
    "hierarchy, bottom-up reading x": (chain, partial(drawn, z1="x", z2="z1 x", z3="z2"), BITS),
    "hierarchy, ladder": (chain, partial(drawn, z3="x", z2="z3 x", z1="z2 x"), BITS),
    "hierarchy, all above": (chain, partial(drawn, z3="x", z2="z3 x", z1="z2 z3 x"), BITS),
    "hierarchy, x missing": (chain, partial(drawn, z3="x", z2="z3", z1="z2 x"), BITS),
    "skip, bottom-up": (SKIP, UP, BITS),
    "skip, bottom-up reading x": (SKIP, partial(drawn, z1="x", z2="z1 x", z3="z2"), BITS),
    "state space, filtering": (state_space, partial(in_time, reads=lambda x, t: x[: t + 1]), LONG),
    "state space, smoothing": (state_space, partial(in_time, reads=lambda x, t: x[t:]), LONG),
    "state space, bidirectional": (state_space, partial(in_time, reads=lambda x, t: x), LONG),
    "globals, amortized mean field": (shared, partial(shared_guide, given=False), X),
    "globals, first": (shared, partial(shared_guide, given=True), X),
    "self-reflective, G+": (SERE[False], partial(reflecting, reads="z"), BLOCKS),
    "self-reflective, skip, G+": (SERE[True], partial(reflecting, reads="z"), BLOCKS),
    "self-reflective, mean field, G+": (SERE[False], partial(reflecting, reads="nothing"), BLOCKS),
    "self-reflective, by noise, G+": (SERE[False], partial(reflecting, reads="e"), BLOCKS),
    "factor, mean field": (factored, partial(drawn, a="x", b="x"), X),
    "factor, one given the other": (factored, partial(drawn, a="x", b="a"), X),
    "mixture": (mixture, partial(mixing, k_reads="z"), X),
    "mixture, mean field": (mixture, partial(mixing, k_reads="x"), X),
    "enumerated": (partial(mixture, infer={"enumerate": "parallel"}), partial(mixing, k_reads=""), X),
    "nested plates": (nested, partial(nested_guide, given=True), data(2, 3, 3)),
    "nested plates, mean field": (nested, partial(nested_guide, given=False), data(2, 3, 3)),
    "crossed plates": (crossed, partial(crossed_guide, given=True), data(2, 3)),
    "crossed plates, mean field": (crossed, partial(crossed_guide, given=False), data(2, 3)),
    "subsampled": (subsampled, subsampled_guide, data(6, 3)),
    "leak, mean": (partial(vae, mix=lambda z: z - z.mean(0)), encoder, X),
    "leak, in the guide": (vae, partial(encoder, mix=lambda x: x - 0.5 * x.mean(0)), X),
    "locals without data": (vae, partial(own_numbers, per_datum=False), X),
    "a set of parameters per datum": (vae, partial(own_numbers, per_datum=True), X),
    **{
        f"{name}, {text}": (partial(scalars, likelihood=likelihood), partial(two, given=given), ONE)
        for name, likelihood in (("branch", branch), ("item", item), ("mask", masked), ("scale", scaled))
        for text, given in (("mean field", False), ("one given the other", True))
    },
}
