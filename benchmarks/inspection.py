"""How long an inspection takes: `python -m benchmarks.inspection`, and with layers: `--layers 10 30 50 100`.

Seconds of one core, the median of several runs, next to the time of one pass of the pair, in which the number of runs
that an inspection makes can be read.
"""

import argparse
import statistics
import time

import torch
from rich.console import Console
from rich.table import Table

from guides import MeanField, SelfReflective
from ppl_models import VAE, SeReVAE
from ppl_models.factorization import compare


def seconds(work, rounds):
    """Median of the CPU seconds that a piece of work takes."""
    times = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return statistics.median(times)


def compared(name, pair, rounds):
    """A row of a table: how long the inspection of a pair takes, and one pass of it.

    Args:
        name: of the row.
        pair: model, guide, data and level.
        rounds: of which the median is taken.
    """
    model, guide, data, level = pair

    def once():
        with torch.no_grad():
            model(data)
            guide(data)

    whole = seconds(lambda: compare(model, guide, data, level=level), rounds)
    single = seconds(lambda: [once() for _ in range(20)], rounds) / 20
    return name, f"{whole:.2f} s", f"{1000 * single:.1f} ms", f"{whole / single:.0f}"


def main():
    """Print the table, or with --layers the growth with the layers of the SeRe-VAE."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--layers", type=int, nargs="*", default=(), help="of SeRe-VAEs, self-reflective, 784 pixels")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    x, small = torch.rand(3, 784).round(), torch.rand(3, 6).round()
    vae, tiny = VAE(784), VAE(6, latent=3, hidden=16)
    pairs = {
        "VAE, mean field": (vae, MeanField(vae, x), x, "site"),
        "VAE of 3 latents and 6 pixels, by element": (tiny, MeanField(tiny, small, hidden=16), small, "element"),
    }
    if chosen.layers:
        pairs = {}
    for layers in chosen.layers or (10,):
        model = SeReVAE(784, layers=layers, latent=10)
        pairs[f"SeRe-VAE of {layers} layers, self-reflective"] = model, SelfReflective(model, x), x, "site"
    compare(tiny, MeanField(tiny, small, hidden=16), small)  # imports, caches
    table = Table("pair", "inspection", "one pass of model and guide", "passes", box=None)
    for name, pair in pairs.items():
        table.add_row(*compared(name, pair, chosen.rounds))
    Console().print(table)


if __name__ == "__main__":
    main()
