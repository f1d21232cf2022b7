"""How long an inspection takes: `python -m benchmarks.inspection`.

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


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    torch.manual_seed(0)
    x = torch.rand(3, 784).round()
    small = torch.rand(3, 6).round()
    vae, deep, tiny = VAE(784), SeReVAE(784, layers=10, latent=10), VAE(6, latent=3, hidden=16)
    pairs = {
        "VAE, mean field": (vae, MeanField(vae, x), x, "site"),
        "SeRe-VAE of 10 layers, self-reflective": (deep, SelfReflective(deep, x), x, "site"),
        "VAE of 3 latents and 6 pixels, by element": (tiny, MeanField(tiny, small, hidden=16), small, "element"),
    }
    table = Table("pair", "inspection", "one pass of model and guide", "passes", box=None)
    for name, (model, guide, data, level) in pairs.items():

        def once(model=model, guide=guide, data=data):
            with torch.no_grad():
                model(data)
                guide(data)

        compare(model, guide, data, level=level)  # imports, caches
        whole = seconds(lambda m=model, g=guide, d=data, level=level: compare(m, g, d, level=level), rounds)
        single = seconds(lambda once=once: [once() for _ in range(20)], rounds) / 20
        table.add_row(name, f"{whole:.2f} s", f"{1000 * single:.1f} ms", f"{whole / single:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
