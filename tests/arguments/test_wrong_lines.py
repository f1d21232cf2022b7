"""Command lines of which one word is wrong: one line of ours, or a meaning that is declared; nothing is left half."""

import random
import shutil
import warnings
from pathlib import Path

import pytest

from ppl_models.parts.arguments.checked import declared
from ppl_models.parts.arguments.kinds import WRONG
from ppl_models.runs.naming import names
from tests.helpers.command_lines import call, fault, held, lines, prepare

QUICK = 10  # lines that every run of the tests looks at
# words that an option takes: names of folders and modules, which may be any; numbers that have a meaning there
ANY = "--out", "--trust"
TAKEN = {
    "evaluate --information": {"zero"},
    "evaluate --probe": {"zero"},
    "train --evaluate": {"zero"},
    "train --clip": {"zero", "huge"},
    "train --ema": {"zero"},
    "train --skip": {"inf", "huge", "too large for a float", "digits without end"},
    "train --lr": {"huge"},
    "train --weight-decay": {"zero", "huge"},
    "train --warmup": {"zero"},
    "train --beta": {"zero"},
    "train --workers": {"zero"},
}
TAKEN |= {where.replace("train", "ablate"): words for where, words in TAKEN.items() if "--evaluate" not in where}
KEPT = {("ablate --lr", "huge"), ("ablate --weight-decay", "huge")}  # trained, to numbers that no evaluation bounds


def is_meant(where: str, what: str, line: list[str]) -> bool:
    """Whether a word is one that belongs there after all, as its declaration says."""
    kind, _, option = where.rpartition(" ")
    if option in ANY or what in TAKEN.get(where, ()) or (option == "--seed" and what == "zero"):
        return True
    kind, _, name = kind.partition(" ")
    if kind not in ("model", "guide") or option not in (known := declared(names.catalogue(kind)[name])):
        return False
    return known[option].read(names.tuples(names.value_of(line[-1].partition("=")[2]))) is not WRONG


def looked_at(folder: Path, chosen: list[tuple[str, str, list[str]]]) -> list[str]:
    """What is wrong with the ends of command lines."""
    faults = []
    prepare(folder)
    before = held(folder)
    for where, what, line in chosen:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            result = call(line)
        told = fault(result)
        if not told and result.exit_code == 0 and not is_meant(where, what, line):
            told = "it is accepted"
        if held(folder) != before:
            told = told or ("it leaves something" if result.exit_code and (where, what) not in KEPT else "")
            for path in folder.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            prepare(folder)
            before = held(folder)
        faults += [f"{where}, {what}: {told}"] if told else []
    return faults


def test_a_wrong_word_on_a_command_line_is_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = looked_at(tmp_path, random.Random(0).sample([*lines()], QUICK))
    assert not found, f"{len(found)} faults\n" + "\n".join(found)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(6))
def test_every_wrong_word_on_every_command_line_is_refused_in_one_line(part, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = looked_at(tmp_path, [*lines()][part::6])
    assert not found, f"{len(found)} faults\n" + "\n".join(found)
