"""One eager training step of the 10-layer SeRe-VAE: Pyro's ELBOs and ours against a hand-written loss.

    python -m benchmarks.step                        # 10 x 10 on 784 pixels, batch 128, one thread
    python -m benchmarks.step --batch 32 --threads 2

All variants share the same networks, the same fused AdamW and the same data; a step is loss, gradient and update. The
variants take turns in every round, so that what else the machine does hits all alike; medians over the rounds.
"""

import argparse
import json
import platform
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter

import pyro
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from guides import SelfReflective
from ppl_models import SeReVAE
from ppl_models.inference import elbo, terms


def bounded_exp(s: Tensor) -> Tensor:
    return (5.0 * torch.tanh(s / 5.0)).exp()


def hand_written(model: SeReVAE, guide: SelfReflective, x: Tensor, analytic: bool) -> Tensor:
    """The negative ELBO per datum as one would write it without Pyro, of the very same networks."""
    blocks = x.split(model.blocks, -1)
    encoder = guide.factors.encoders[0]
    features = [net(x) for net in encoder.nets]
    loss, z = 0.0, None
    for i in range(model.layers):
        above = [] if z is None else [z]
        mu, log_sigma = model.priors[i](*above).chunk(2, -1)
        sigma = bounded_exp(log_sigma)
        shift, log_scale = guide.factors.get_submodule(f"q_z{i + 1}")(features[i], *above).chunk(2, -1)
        m, s = mu + shift, sigma * bounded_exp(log_scale)
        noise = torch.randn_like(m)
        eps = m + s * noise
        if analytic:
            loss = loss + (torch.log(sigma / s) + (s**2 + (m - mu) ** 2) / (2 * sigma**2) - 0.5).sum(-1)
        else:
            log_p = -0.5 * ((eps - mu) / sigma) ** 2 - sigma.log()
            loss = loss + (-0.5 * noise**2 - s.log() - log_p).sum(-1)
        c, d, u = model.bijectors[i].net(*above).chunk(3, -1)
        z = c + (softplus(d) + 1e-3) * eps + u * (u * eps).sum(-1, keepdim=True)
        logits = model.estimates[i](z)
        if i:
            logits = logits + model.corrections[i - 1](z, blocks[i - 1])
        loss = loss + binary_cross_entropy_with_logits(logits, blocks[i], reduction="none").sum(-1)
    return loss.mean()


def variants(model: SeReVAE, guide: SelfReflective, x: Tensor) -> dict[str, Callable[[], Tensor]]:
    n = len(x)
    sampled, mean_field = Trace_ELBO(), TraceMeanField_ELBO()
    return {
        "hand-written, sampled KL": lambda: hand_written(model, guide, x, False),
        "hand-written, analytic KL": lambda: hand_written(model, guide, x, True),
        "Trace_ELBO": lambda: sampled.differentiable_loss(model, guide, x) / n,
        "TraceMeanField_ELBO": lambda: mean_field.differentiable_loss(model, guide, x) / n,
        "fit's objective, sampled KL": lambda: -elbo(terms(model, guide, (x,), analytic=False)),
        "fit's objective, analytic KL": lambda: -elbo(terms(model, guide, (x,))),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=10)
    parser.add_argument("--latent", type=int, default=10)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=3, help="steps of each variant in a round")
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    pyro.set_rng_seed(0)
    x = torch.bernoulli(torch.rand(args.batch, 784))
    model = SeReVAE(784, args.layers, args.latent)
    guide = SelfReflective(model, x[:3])
    params = [*model.parameters(), *guide.parameters()]
    optimizer = torch.optim.AdamW(params, lr=1e-4, fused=True)
    losses = variants(model, guide, x)
    with torch.no_grad(), pyro.validation_enabled(False):
        means = {name: sum(loss().item() for _ in range(20)) / 20 for name, loss in losses.items()}
    times: dict[str, list[float]] = {name: [] for name in losses}
    with pyro.validation_enabled(False):
        for step in range(args.rounds + 2):
            for name, loss in losses.items():
                start = perf_counter()
                for _ in range(args.steps):
                    optimizer.zero_grad(set_to_none=True)
                    loss().backward()
                    optimizer.step()
                if step >= 2:  # two rounds to warm up
                    times[name].append((perf_counter() - start) / args.steps)
    rows = {}
    for name in losses:
        base = "hand-written, sampled KL" if "Trace_ELBO" in name or "sampled" in name else "hand-written, analytic KL"
        ratio = median(t / b for t, b in zip(times[name], times[base], strict=True))
        rows[name] = {"ms": 1e3 * median(times[name]), "ratio": ratio, "against": base, "loss": means[name]}
        print(f"{name:<30}{rows[name]['ms']:9.1f} ms   {ratio:5.2f} x {base:<28} initial loss {means[name]:.1f}")
    if args.json:
        about = {"machine": platform.processor() or platform.machine(), "torch": torch.__version__, **vars(args)}
        args.json.write_text(json.dumps({"about": about, "rows": rows}, indent=2, default=str) + "\n")


if __name__ == "__main__":
    main()
