"""The README is run, not trusted."""

import inspect
import re
from pathlib import Path

import guides
import ppl_models
from ppl_models.parts import Program

README = Path(__file__).parents[1] / "README.md"


def test_quick_start_runs_and_ranks_the_guides(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
    exec(compile(code, "README.md", "exec"), {})
    printed = dict(line.split() for line in capsys.readouterr().out.splitlines())
    nll = {name: float(value) for name, value in printed.items()}
    assert list(nll) == ["MeanField", "BottomUp", "Ladder", "SelfReflective"]
    # the latents are dependent given the data, so the structured guides bound the evidence more tightly
    assert max(nll["BottomUp"], nll["Ladder"], nll["SelfReflective"]) < nll["MeanField"]


def test_tables_name_every_model_and_guide():
    text = README.read_text()
    for package in (ppl_models, guides):
        for name, value in vars(package).items():
            if isinstance(value, type) and issubclass(value, Program) and not inspect.isabstract(value):
                assert name in ("OrderedGuide",) or f"| `{name}` |" in text, f"README has no row for {name}"


def test_files_named_exist():
    root = README.parent
    for path in re.findall(r"`((?:notebooks|benchmarks)/[\w./]+)`|\]\((docs/[\w./]+)\)", README.read_text()):
        assert (root / (path[0] or path[1])).is_file(), path
