"""The workloads written in NumPyro, with the weights of the Pyro pairs, to be trained by `numpyro.infer.SVI`.

Written to be fast: the networks are plain functions of arrays, weights lie as (inputs, outputs), validation is off,
sites are in the coordinates in which divergences have a closed form, and what the guide has computed of a prior the
model takes over instead of computing it (and its gradient) once more. `jit(update)` gives its state away, so that XLA
may update it in place.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import lax, random
from jax.nn import silu, softplus
from jax.scipy.special import logsumexp
from numpyro.handlers import replay, scale, seed, substitute, trace
from numpyro.infer import SVI, TraceMeanField_ELBO
from torch import nn

from ppl_models.parts.nets import Block, Net


def weights(module: nn.Module):
    """The parameters of a network of the collection, as a tree of arrays that `net` reads."""

    def array(p):
        # a copy: the buffers are given away to the updates, and torch goes on writing to its own
        return jnp.array(p.detach().cpu().numpy(), copy=True)

    if isinstance(module, nn.Linear):
        weight = {"w": array(module.weight.T.contiguous())}
        return weight if module.bias is None else {**weight, "b": array(module.bias)}
    if isinstance(module, nn.LayerNorm):
        return {"w": array(module.weight), "b": array(module.bias)}
    if isinstance(module, Block):
        return {name: weights(getattr(module, name)) for name in ("norm", "inner", "outer")}
    if isinstance(module, Net):
        if module.constant is not None:
            return {"constant": array(module.constant)}
        blocks = [m for m in module.blocks if isinstance(m, Block)]
        tree = {"first": [weights(m) for m in module.first], "blocks": [weights(m) for m in blocks]}
        if len(blocks) < len(module.blocks):
            tree["norm"] = weights(module.blocks[-1])
        return {**tree, "last": weights(module.last)}
    raise TypeError(f"by_numpyro: found a {type(module).__name__}, want a Net of at least one block or a part of it")


def linear(p, x):
    y = x @ p["w"]
    return y + p["b"] if "b" in p else y


def normed(p, h):
    centered = h - h.mean(-1, keepdims=True)
    return centered * lax.rsqrt(jnp.square(centered).mean(-1, keepdims=True) + 1e-5) * p["w"] + p["b"]


def net(p, *inputs):
    """`ppl_models.parts.nets.Net` of depth at least 1."""
    if "constant" in p:
        return p["constant"]
    h = sum(linear(first, x) for first, x in zip(p["first"], inputs, strict=True))
    for block in p["blocks"]:
        h = h + linear(block["outer"], silu(linear(block["inner"], normed(block["norm"], h))))
    return linear(p["last"], normed(p["norm"], h) if "norm" in p else h)


def bounded_exp(s):
    return jnp.exp(5.0 * jnp.tanh(s / 5.0))


def halves(raw):
    return jnp.split(raw, 2, -1)


def normal(loc, scale):
    return dist.Normal(loc, scale).to_event(1)


def bernoulli(logits):
    return dist.Bernoulli(logits=logits).to_event(1)


def mean_field_vae(model, guide):
    """(model, guide) of the pair of one latent layer."""
    start = {"decoder": weights(model.decoder), "encoder": weights(guide.factors.encoders[0].nets[0][0])}
    start["head"] = weights(guide.factors.q_z1)

    def generate(x):
        decoder = numpyro.param("decoder", start["decoder"])
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z1", normal(jnp.zeros(model.latent), jnp.ones(model.latent)))
            numpyro.sample("x", bernoulli(net(decoder, z)), obs=x)

    def infer(x):
        encoder, head = (numpyro.param(name, start[name]) for name in ("encoder", "head"))
        m, log_s = halves(net(head, silu(net(encoder, x))))
        with numpyro.plate("data", len(x)):
            numpyro.sample("z1", normal(m, bounded_exp(log_s)))

    return generate, infer


def ladder_vae(model, guide, reuse=True):
    """(model, guide) of the ladder pair; with `reuse` the model takes the priors that the guide has computed."""
    encoder, names = guide.factors.encoders[0], list(guide.order)
    start = {
        "priors": [weights(m) for m in model.priors],
        "decoder": weights(model.decoder),
        "up": [weights(m) for m in encoder.nets],
        "norms": [weights(m[0]) for m in encoder.norms],
        "heads": [weights(guide.factors.get_submodule(f"q_{name}")) for name in names],
    }
    first = jnp.zeros(model.latent[0]), jnp.ones(model.latent[0])
    known: dict[str, tuple] = {}

    def prior(priors, i, z):
        if not i:
            return first
        loc, log_scale = halves(net(priors[i - 1], z))
        return loc, bounded_exp(log_scale)

    def generate(x):
        priors, decoder = (numpyro.param(name, start[name]) for name in ("priors", "decoder"))
        with numpyro.plate("data", len(x)):
            z = None
            for i, name in enumerate(names):
                z = numpyro.sample(name, normal(*(known.pop(name, None) or prior(priors, i, z))))
            numpyro.sample("x", bernoulli(net(decoder, z)), obs=x)

    def infer(x):
        priors, up, norms, heads = (numpyro.param(name, start[name]) for name in ("priors", "up", "norms", "heads"))
        d, read, features = 0.0, x, []
        for level, norm in zip(up, norms, strict=True):
            d = d + net(level, read)
            read = silu(normed(norm, d))
            features.append(read)
        with numpyro.plate("data", len(x)):
            above = []
            for i, name in enumerate(names):
                shift, spread = halves(net(heads[i], features[-1 - i], *above))
                loc, scale = prior(priors, i, *(above or [None]))
                if reuse:
                    known[name] = loc, scale
                # the top is the estimate
                tau, weight = 1 / (softplus(spread) + 1e-5), 1 / jnp.square(scale) if i else 1e-6
                precision = tau + weight
                above = [numpyro.sample(name, normal(shift + loc * weight / precision, lax.rsqrt(precision)))]

    return generate, infer


def self_reflective_vae(model, guide, reuse=True):
    """(model, guide) of the self-reflective pair; the sites are the bases eps_l, whose divergences are those of z_l."""
    layers = range(model.layers)
    cuts = [sum(model.blocks[: i + 1]) for i in layers[:-1]]
    start = {
        "priors": [weights(m) for m in model.priors],
        "bijectors": [weights(m.net) for m in model.bijectors],
        "estimates": [weights(m) for m in model.estimates],
        "corrections": [weights(m) for m in model.corrections],
        "encoders": [weights(m[0]) for m in guide.factors.encoders[0].nets],
        "heads": [weights(guide.factors.get_submodule(f"q_z{i + 1}")) for i in layers],
    }
    bases = [guide.factors.get_submodule(f"base_q_z{i + 1}") for i in layers]
    bases = [(base.loc.numpy(), base.spread.numpy()) for base in bases]
    known: dict[int, tuple] = {}

    def prior(priors, i, above):
        loc, log_scale = halves(net(priors[i], *above))
        return loc, bounded_exp(log_scale)

    def pushed(bijectors, i, above, eps):
        c, d, u = jnp.split(net(bijectors[i], *above), 3, -1)
        return c + (softplus(d) + 1e-3) * eps + u * (u * eps).sum(-1, keepdims=True)

    def generate(x):
        priors, bijectors, estimates, corrections = (
            numpyro.param(name, start[name]) for name in ("priors", "bijectors", "estimates", "corrections")
        )
        blocks = jnp.split(x, cuts, -1)
        with numpyro.plate("data", len(x)):
            above = []
            for i in layers:
                found = known.pop(i, None)
                eps = numpyro.sample(f"eps{i + 1}", normal(*(found[0] if found else prior(priors, i, above))))
                z = found[1] if found else pushed(bijectors, i, above, eps)
                logits = net(estimates[i], z)
                if i:
                    logits = logits + net(corrections[i - 1], z, blocks[i - 1])
                numpyro.sample(f"x{i + 1}", bernoulli(logits), obs=blocks[i])
                above = [z]

    def infer(x):
        priors, bijectors, encoders, heads = (
            numpyro.param(name, start[name]) for name in ("priors", "bijectors", "encoders", "heads")
        )
        with numpyro.plate("data", len(x)):
            above = []
            for i in layers:
                loc, spread = bases[i]
                shift, log_s = halves(net(heads[i], silu(net(encoders[i], x)), *above))
                eps = numpyro.sample(f"eps{i + 1}", normal(loc + shift, spread * bounded_exp(log_s)))
                z = pushed(bijectors, i, above, eps)
                if reuse:
                    known[i] = prior(priors, i, above), z
                above = [z]

    return generate, infer


PAIRS = {"MeanField": mean_field_vae, "Ladder": ladder_vae, "SelfReflective": self_reflective_vae}


def svi(model, guide, x, lr=1e-3, optimizer=None, **options) -> tuple[SVI, object, jax.Array]:
    """(SVI, its first state, x) for a pair of the collection, with Adam; the loss is a mean over the rows."""
    numpyro.enable_validation(False)
    generate, infer = PAIRS[type(guide).__name__](model, guide, **options)
    x = jnp.asarray(x.cpu().numpy())
    programs = [scale(program, 1 / len(x)) for program in (generate, infer)]
    fitted = SVI(*programs, optimizer or numpyro.optim.Adam(lr), TraceMeanField_ELBO())
    return fitted, fitted.init(random.PRNGKey(0), x), x


def jitted(model, guide, x, **options) -> Callable[[int], None]:
    """A function that runs so many steps by `jit(update)`, one call a step, and waits for the last."""
    fitted, state, x = svi(model, guide, x, **options)
    update = jax.jit(fitted.update, donate_argnums=0)

    def run(steps):
        nonlocal state
        for _ in range(steps):
            state, loss = update(state, x)
        jax.block_until_ready((state, loss))

    return run


def scanned(model, guide, x, **options) -> Callable[[int], None]:
    """A function that runs so many steps by one `lax.scan`, compiled for each number of steps."""
    fitted, state, x = svi(model, guide, x, **options)

    def steps_of(state, x, steps):
        return lax.scan(lambda s, _: fitted.update(s, x), state, None, length=steps)

    many = jax.jit(steps_of, static_argnums=2, donate_argnums=0)

    def run(steps):
        nonlocal state
        state, losses = many(state, x, steps)
        jax.block_until_ready((state, losses))

    return run


def evaluated(model, guide, x, particles: int, rows: int) -> float:
    """The negative bound by importance samples in nats per datum, jitted and vectorized over (particle, datum) rows."""
    numpyro.enable_validation(False)
    generate, infer = PAIRS[type(guide).__name__](model, guide)
    x = jnp.asarray(x.cpu().numpy())
    size = max(rows // particles, 1)

    def traced(program, free, given):
        found = trace(substitute(program, data=free)).get_trace(given)
        return found, sum(s["fn"].log_prob(s["value"]) for s in found.values() if s["type"] == "sample")

    def log_w(free, key, images):
        given = jnp.tile(images, (particles, 1))
        drawn, log_q = traced(seed(infer, key), free, given)
        _, log_p = traced(replay(generate, drawn), free, given)
        return (jnp.log(particles) - logsumexp((log_p - log_q).reshape(particles, -1), 0)).sum()

    def parameters(program):
        found = trace(seed(program, 0)).get_trace(x[:1])
        return {name: s["value"] for name, s in found.items() if s["type"] == "param"}

    free, run, total = parameters(infer) | parameters(generate), jax.jit(log_w), 0.0
    for i in range(0, len(x), size):
        total += float(run(free, random.PRNGKey(i), x[i : i + size]))
    return total / len(x)
