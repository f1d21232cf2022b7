"""Tables for the README from what the benchmarks wrote: `python -m benchmarks.table step.json memory.json ...`."""

import argparse
import json
from pathlib import Path

WORDS = {
    "pyro-svi": "Pyro SVI as shipped",
    "hand-eager": "PyTorch by hand, eager",
    "hand-compiled": "PyTorch by hand, `torch.compile`",
    "hand-graphs": "PyTorch by hand, CUDA graphs",
    "numpyro-jit": "NumPyro, `jit(update)`",
    "numpyro-scan": "NumPyro, `lax.scan`",
    "ours-eager": "ours, eager",
    "ours-compiled": "ours, compiled",
    "ours-bfloat16": "ours, compiled, products in bfloat16",
    "ours-inductor": "ours, compiled by Inductor",
    "floor": "floor: products and update",
    "numpyro-port": "NumPyro, the port",
}


def table(head: list[str], rows: list[list[str]]) -> str:
    """Markdown, the columns aligned so that it reads as text, too."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join("| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in lines)


def named(about: dict) -> str:
    """The machine in one line."""
    versions = ", ".join(f"{name} {about[name]}" for name in ("torch", "pyro-ppl", "jax", "numpyro") if name in about)
    device = f", {about['device']}" if about.get("device", "cpu") != "cpu" else ""
    return f"{about['processor']}, {about['cores']} cores{device}, Python {about['python']}, {versions}"


def threads(about: dict) -> str:
    """The setting of a run."""
    count = about["threads"]
    return ("CUDA, " if about["device"] != "cpu" else "") + (f"{count} threads" if count > 1 else "1 thread")


def step_table(found: dict) -> str:
    """One row a variant, one column a workload: ms a step and the ratio to the eager step by hand; set-up below."""
    workloads = found["workloads"]
    names = [name for name in WORDS if any("ms" in rows.get(name, {}) for rows in workloads.values())]

    def row(label: str, cell) -> list[str]:
        return [label, *(cell(rows) for rows in workloads.values())]

    def timed(name: str):
        def cell(rows: dict) -> str:
            r = rows.get(name, {})
            ratio = f", {r['ratio']:.2f}" if "ratio" in r else ""
            return f"{r['ms']:.2f} ms{ratio}" if "ms" in r else r.get("note", "")

        return cell

    def best(rows: dict) -> str:
        r = rows.get("ours-compiled", {})
        return f"{r['ratio_best']:.3f} of {WORDS[r['best_rival']]}" if "ratio_best" in r else ""

    lines = [row(WORDS[name], timed(name)) for name in names]
    lines += [row("ours, compiled, to the best rival", best)] if any(best(rows) for rows in workloads.values()) else []
    for key, unit, label in (("setup_s", "s", "set-up"), ("peak_mb", "MB", "peak")):
        for name in names:
            if any(key in rows.get(name, {}) for rows in workloads.values()):

                def cell(rows: dict, name=name, key=key, unit=unit) -> str:
                    return f"{rows[name][key]:.1f} {unit}" if key in rows.get(name, {}) else ""

                lines.append(row(f"{label}: {WORDS[name]}", cell))
    return table([threads(found["about"]), *workloads], lines)


def memory_table(found: dict) -> str:
    """One row a variant: peak of the steps and of the whole run, above a process that has its imports."""
    lines = []
    for workload, rows in found["workloads"].items():
        for name, row in rows.items():
            numbers = [row["note"], ""] if "note" in row else [f"{row['step_mb']:.0f}", f"{row['all_mb']:.0f}"]
            lines.append([workload, WORDS[name], *numbers])
    return table(["workload", threads(found["about"]), "peak of the steps, MB", "with set-up, MB"], lines)


def evaluate_table(found: dict) -> str:
    """One row a workload: images a second of the loops by hand and of `evaluate`, and the ratios of their times."""
    rivals = {"hand": "ratio", "numpyro": "ratio_numpyro"}
    rows = found["workloads"]
    rivals = {name: key for name, key in rivals.items() if all(key in row for row in rows.values())}
    words = {"hand": "by hand in torch", "numpyro": "by hand in JAX"}
    head = ["workload", "importance samples", *(f"{words[n]}, images/s" for n in rivals), "`evaluate`, images/s"]
    head += [f"its time, {words[name]} = 1" for name in rivals]

    def line(name: str) -> list[str]:
        speeds = [f"{rows[name][rival]:.2f}" for rival in (*rivals, "evaluate")]
        return [name, str(found["about"]["particles"]), *speeds, *(f"{rows[name][key]:.3f}" for key in rivals.values())]

    return table(head, [line(name) for name in rows])


def scaling_table(found: dict) -> str:
    """One row a size: ms of each variant."""
    texts = []
    for family, sweeps in found["families"].items():
        for axis, sweep in sweeps.items():
            head = [f"{family}: {axis}", *(f"{WORDS[name]}, ms" for name in sweep["ms"])]
            lines = [[str(v), *(f"{ms[i]:.2f}" for ms in sweep["ms"].values())] for i, v in enumerate(sweep["sizes"])]
            texts.append(table(head, lines))
            for name, line in sweep.get("lines", {}).items():
                texts[-1] += (
                    f"\n\n{WORDS[name]}: {line['intercept']:.2f} + {line['slope']:.2f} ms a layer, "
                    f"R^2 = {line['r2']:.4f}, no point further than {100 * line['worst']:.1f} % from the line"
                )
    return "\n\n".join(texts)


def depth_table(found: dict) -> str:
    """One row a size: the set-up of a compiled step and what of it is capture and compilation, ms a step, memory."""
    head = ["program", "layers or time steps", "operations", "set-up", "capture", "compilation", "a step", "peak"]
    lines = [
        [family, size, str(row["operations"])]
        + [f"{row[key]:.1f} s" for key in ("setup", "capture", "compile")]
        + [f"{row['ms']:.0f} ms", f"{row['peak_gb']:.1f} GB"]
        for family, rows in found["families"].items()
        for size, row in rows.items()
    ]
    return table(head, lines)


def pairs_table(found: dict) -> str:
    """One row a pair: ms of Pyro's eager step, of the compiled one and of the port, with the ratios to the first."""

    def cell(row: dict) -> str:
        return f"{row['ms']:.2f} ms, {row['ratio']:.2f}" if "ms" in row else row["note"]

    lines = [
        [model, guide, *(cell(rows[name]) for name in rows)]
        for model, guides in found["pairs"].items()
        for guide, rows in guides.items()
    ]
    names = next(iter(next(iter(found["pairs"].values())).values()))
    return table(["model", f"guide, {threads(found['about'])}", *(WORDS[name] for name in names)], lines)


TABLES = {
    "step": step_table,
    "memory": memory_table,
    "evaluate": evaluate_table,
    "scaling": scaling_table,
    "pairs": pairs_table,
    "depth": depth_table,
}


def main() -> None:
    """Print the tables of the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    for file in parser.parse_args().files:
        for kind, runs in json.loads(file.read_text()).items():
            for found in runs:
                print(f"{named(found['about'])}.\n\n{TABLES[kind](found)}\n")


if __name__ == "__main__":
    main()
