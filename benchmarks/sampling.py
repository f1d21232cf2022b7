"""Drawing images: of a PixelVAE with what layers have computed kept, of a VAE from its prior and along a chain.

    python -m benchmarks.sampling                               # 64 images of 28 x 28, one thread and all
    python -m benchmarks.sampling --images 64 --threads all --json sampling.json

The decoder has the published sizes (12 gated layers of 32 maps). Full passes are timed, not run 784 times: a pixel
costs one pass over the image, so that all of them cost 784 times as much. `ancestral` and `markov_chain` of the
workload `vae` stand beside loops that are written by hand over the same networks, in turns.
"""

import argparse
import json
from math import prod
from pathlib import Path
from statistics import median
from time import perf_counter

import torch

from ppl_models import PixelVAE
from ppl_models.inference import ancestral, markov_chain

from .by_hand import MeanFieldVAE, bounded_exp
from .timing import cores, in_turns, machine, on_threads, ratio
from .workloads import WORKLOADS

IMAGE = (1, 28, 28)


def measure(images: int, rounds: int, hidden: int = 32, depth: int = 12) -> dict[str, float]:
    """Seconds for all images: kept, and 784 full passes; and their ratio, the median over rounds."""
    torch.manual_seed(0)
    model = PixelVAE(IMAGE, 10, hidden, depth)
    z, x = torch.randn(images, 10), torch.bernoulli(torch.full((images, *IMAGE), 0.5))
    times: dict[str, list[float]] = {"kept": [], "full": []}
    with torch.no_grad():
        for _ in range(rounds + 1):  # the first one warms up
            start = perf_counter()
            model.decoder.generate(z, lambda params: torch.bernoulli(params.sigmoid()))
            times["kept"].append(perf_counter() - start)
            start = perf_counter()
            model.decoder(x, z)
            times["full"].append((perf_counter() - start) * prod(IMAGE))
    kept, full = (values[1:] for values in times.values())
    return {"kept_s": median(kept), "full_passes_s": median(full), "ratio": ratio(full, kept), "images": images}


def by_hand(bound: MeanFieldVAE, z: torch.Tensor, steps: int) -> list[torch.Tensor]:
    """Images of codes z, and each next ones of the codes that the encoder finds in them."""
    states = [torch.bernoulli(bound.decoder(z).sigmoid())]
    for _ in range(steps):
        m, log_s = bound.head(bound.encoder(states[-1])).chunk(2, -1)
        z = m + bounded_exp(log_s) * torch.randn_like(m)
        states.append(torch.bernoulli(bound.decoder(z).sigmoid()))
    return states


def drawn(rounds: int, rows: int = 1000, chains: int = 64, steps: int = 50) -> dict[str, float]:
    """Times of `ancestral` and `markov_chain`, by hand = 1: medians over rounds of the ratios within a round."""
    model, guide, _ = WORKLOADS["vae"].build()
    bound = MeanFieldVAE(model, guide)
    x = torch.bernoulli(torch.full((rows, prod(IMAGE)), 0.5))
    work = {
        "ancestral": lambda: ancestral(model, x),
        "ancestral by hand": lambda: by_hand(bound, torch.randn(rows, model.latent), 0),
        "chain": lambda: markov_chain(model, guide, x[:chains], steps),
        "chain by hand": lambda: by_hand(bound, torch.randn(chains, model.latent), steps),
    }
    with torch.no_grad():
        times = in_turns(work, rounds)
    return {name: ratio(times[name], times[f"{name} by hand"]) for name in ("ancestral", "chain")}


def options() -> argparse.ArgumentParser:
    """What the command takes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", action="append", help="a number, or all; repeatable; 1 and all by default")
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)  # this process is confined to so many cores
    return parser


def main() -> None:
    """Measure in a process confined to its cores, for each setting of threads."""
    args = options().parse_args()
    if args.worker is None:
        for threads in args.threads or ["1", "all"]:
            words = [f"--images={args.images}", f"--rounds={args.rounds}"]
            words += [f"--json={args.json.absolute()}"] if args.json else []
            count = cores() if threads == "all" else int(threads)
            on_threads(count, "benchmarks.sampling", [*words, f"--worker={count}"], {})
        return
    torch.set_num_threads(args.worker)
    found = {
        **measure(args.images, args.rounds),
        **drawn(3 * args.rounds),
        "threads": args.worker,
        "rounds": args.rounds,
        "about": machine(),
    }
    print(
        f"{args.images} images, {args.worker} threads: {found['kept_s']:.2f} s; a full pass a pixel "
        f"{found['full_passes_s']:.0f} s, {found['ratio']:.0f} times as long; by hand = 1: `ancestral` of a VAE "
        f"{found['ancestral']:.2f}, `markov_chain` {found['chain']:.2f}",
        flush=True,
    )
    if args.json:
        before = json.loads(args.json.read_text()) if args.json.is_file() else []
        args.json.write_text(json.dumps([*before, found], indent=1) + "\n")


if __name__ == "__main__":
    main()
