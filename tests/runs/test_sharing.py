"""Runs that are given away: a folder of weights with a page, loaded by path or from a stand-in of the Hub."""

import json
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from typer.testing import CliRunner

from ppl_models.cli import app
from ppl_models.inference.pyro.training.checkpoint import read
from ppl_models.runs import load_run, save_pair
from ppl_models.runs.folders import card
from ppl_models.runs.folders.sharing import public

GOLDEN = Path(__file__).parents[1] / "golden"
RUN = GOLDEN / "run-pyro"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was given away, with numbers that were written beside it."""
    run = tmp_path_factory.mktemp("home") / "run"
    shutil.copytree(RUN, run)
    found = {"data": "digits test", "elbo": -21.0, "nll": 20.5, "nll_error": 0.25, "bits_per_dim": None}
    (run / "evaluation.json").write_text(json.dumps({**found, "particles": 5000, "n": 300}))
    (run / "evaluation_other.json").write_text(json.dumps({**found, "elbo": None}))  # which was not finite
    config = json.loads((run / "config.json").read_text())
    config["weights"] = "/home/me/runs/first"
    config["command"] = "ppl-models train --weights /home/me/runs/first --data /home/me/rows.npz"
    config["data"]["name"] = "/home/me/rows.npz"
    (run / "config.json").write_text(json.dumps(config))
    return save_pair(load_run(run), run.with_name("shared")).parent


def test_it_loads_as_the_run_and_holds_no_state_of_its_training(shared):
    one, other = load_run(RUN), load_run(shared)
    assert repr(other) == f"LoadedRun(vae, self-reflective, rows; pyro; {shared / 'checkpoint.safetensors'})"
    for was, now in ((one.model, other.model), (one.guide, other.guide)):
        first, second = was.state_dict(), now.state_dict()
        assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    assert other.history == one.history
    whole, part = (read(folder / "checkpoint.safetensors") for folder in (RUN, shared))
    assert whole.training and not part.training and whole.weights.keys() == part.weights.keys()
    assert (
        part.form == whole.form == "ppl-models 2"
        and "settings" not in part.about
        and part.about["step"] == whole.about["step"]
    )


def test_its_page_tells_of_pair_data_numbers_and_command(shared):
    text = (shared / "README.md").read_text()
    assert "# vae with self-reflective on rows" in text
    assert "FAITHFUL, MINIMAL, PERFECT: SelfReflective for VAE" in text and "model  p(z1) p(x | z1)" in text
    assert "| digits test | 300 | 5000 | -21.000 | 20.500 ± 0.250 |  |" in text and text.count("digits test") == 1
    assert "ppl-models train --weights first --data rows.npz" in text and "run = load_run(" in text
    assert "trust" not in text and "samples.png" not in text
    yaml = pytest.importorskip("yaml")
    head = yaml.safe_load(text.split("---")[1])
    assert head["library_name"] == "ppl-models" and {"pyro", "vae", "self-reflective"} < set(head["tags"])


def test_it_tells_no_folder_of_this_machine(shared):
    for path in shared.glob("*[!g]"):
        assert b"/home/me" not in path.read_bytes(), path.name
    assert json.loads((shared / "config.json").read_text())["data"]["name"] == "rows.npz"
    found = public({"data": {"name": "folder:/home/me/pictures"}})
    assert found == {"data": {"name": "folder:pictures"}}


@pytest.fixture
def hub(monkeypatch, tmp_path, shared):
    """A stand-in of the package, which has one repository and notes what it is asked for."""
    theirs, asked = tmp_path / "theirs", []
    shutil.copytree(shared, theirs)
    (theirs / "evil.py").write_text("raise SystemExit('run')")

    def snapshot_download(repo_id, revision, allow_patterns):
        asked.append((repo_id, revision))
        if repo_id != "owner/name":
            raise OSError(f"404: {repo_id}\nand more of it")
        fetched = tmp_path / "cache"
        fetched.mkdir(exist_ok=True)
        for path in theirs.iterdir():
            if path.name in allow_patterns:
                shutil.copyfile(path, fetched / path.name)
        return str(fetched)

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=snapshot_download))
    return SimpleNamespace(asked=asked, theirs=theirs, cache=tmp_path / "cache")


def test_it_is_fetched_from_the_hub_without_anything_else(hub, shared):
    run = load_run("hf://owner/name@v1.0")
    assert hub.asked == [("owner/name", "v1.0")] and run.folder == hub.cache
    known = {path.name for path in shared.iterdir()} - {"README.md", "evaluation.json", "evaluation_other.json"}
    assert {path.name for path in hub.cache.iterdir()} == known
    assert run.history == load_run(shared).history
    load_run("hf://owner/name")
    assert hub.asked[-1] == ("owner/name", None)


def test_the_hub_is_trusted_no_more_than_any_folder(hub):
    config = json.loads((hub.theirs / "config.json").read_text())
    config["model"]["import"] = "evil:Model"
    (hub.theirs / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="found 'evil:Model' in a file, want a program of the collection"):
        load_run("hf://owner/name")
    (hub.theirs / "config.json").write_bytes(b"\x80\x04pickle")
    with pytest.raises(ValueError, match="truncated or no JSON"):
        load_run("hf://owner/name")


@pytest.mark.parametrize(
    "address", ["hf://", "hf://name", "hf://a/b/c", "hf://a/b@", "hf://../..@/etc x", "hf://a/b?c"]
)
def test_an_address_is_that_of_a_repository(hub, address):
    with pytest.raises(
        ValueError, match=r"load_run: found 'hf://.*', want hf://owner/name, or hf://owner/name@revision"
    ):
        load_run(address)
    assert not hub.asked


def test_what_keeps_it_from_being_fetched_is_told_in_a_line(hub, monkeypatch):
    with pytest.raises(ValueError, match=r"^hf://owner/other cannot be fetched: 404: owner/other$"):
        load_run("hf://owner/other")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match=r"found no package to fetch hf://a/b with .* pip install 'ppl-models\[hub\]'"):
        load_run("hf://a/b")


def test_the_command_line_shares_and_says_what_next(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = CliRunner().invoke(app, ["share", str(RUN), "shared"])
    assert said.exit_code == 0 and "hf upload OWNER/NAME shared" in said.stdout and Path("shared/README.md").is_file()
    again = CliRunner().invoke(app, ["share", str(RUN), "shared"])
    assert again.exit_code == 1 and "shared exists already; choose another folder" in again.stderr
    resumed = CliRunner().invoke(app, ["train", "--resume", "shared", "-q"])
    assert resumed.exit_code == 1 and "try ppl-models train --weights" in resumed.stderr
    remote = CliRunner().invoke(app, ["train", "--resume", "hf://owner/name"])
    assert remote.exit_code == 1 and "hf download OWNER/NAME --local-dir FOLDER" in remote.stderr


def test_commands_take_the_address_of_a_run_in_place_of_its_folder(hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    digits = "--data", "digits"
    for words in (
        ["evaluate", "hf://owner/name", "--particles", "1", "-q", *digits],
        ["sample", "hf://owner/name", "--n", "1", "--out", "drawn.png"],
        ["share", "hf://owner/name", "mine", "-q"],
        ["train", "--weights", "hf://owner/name@v1.0", "--steps", "1", "--evaluate", "0", "-q", "--out", "on", *digits],
    ):
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, done.output
    assert {repository for repository, _ in hub.asked} == {"owner/name"} and hub.asked[-1][1] == "v1.0"
    assert (hub.cache / "evaluation_digits.json").is_file() and Path("drawn.png").is_file()
    assert load_run("on").config["weights"] == str(hub.cache) and load_run("mine").history == load_run(RUN).history
    for words in (["evaluate"], ["report"], ["sample"], ["compare-runs", str(RUN)], ["train", "--weights"]):
        refused = CliRunner().invoke(app, [*words, "hf://owner/other"])
        assert (
            refused.exit_code == 1 and refused.stderr == "error: hf://owner/other cannot be fetched: 404: owner/other\n"
        )


def test_a_page_is_no_more_than_text_whatever_names_are_in_it():
    told = card._fenced("a\n```\n<script>\n\x1b[31m", "sh")
    assert told.startswith("````sh\n") and told.endswith("\n````") and "\x1b" not in told
    assert not re.search(r"[|`<>\[\]()#\n]", card._plain("a|b`c<d>[e](f)\n#"))
    head = card.header(['x"\n---\nevil: 1'])
    assert "trust=('mine',)" in card._loading(["mine"])
    assert len(head.splitlines()) == 5 and "\nevil" not in head


@pytest.mark.slow
def test_a_numpyro_run_is_shared(tmp_path):
    pytest.importorskip("jax")
    save_pair(load_run(GOLDEN / "run-numpyro"), tmp_path / "shared")
    text = (tmp_path / "shared" / "README.md").read_text()
    assert '- "numpyro"' in text and "FAITHFUL" in text
    assert load_run(tmp_path / "shared").history == load_run(GOLDEN / "run-numpyro").history
