"""The command line as a user meets it: folders that are whole, runs that can be rebuilt, errors of one line."""

import inspect
import json
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree
from importlib.metadata import version
from pathlib import Path

import matplotlib.image
import numpy as np
import pyro
import pytest
import torch
from typer.testing import CliRunner, Result

import ppl_models.runs.backends.pyro
from ppl_models.cli import app
from ppl_models.cli.asked import shortness
from ppl_models.inference import evaluate
from ppl_models.inference.pyro.training.checkpoint import CHECKPOINT, read
from ppl_models.inference.storage.files import write_atomically
from ppl_models.runs import load_run
from ppl_models.runs.naming import names
from tests.helpers.cases import few
from tests.helpers.processes import Killed

SMALL = "train sere-vae -g self-reflective -m layers=2 -m latent=2 -m hidden=8 -g hidden=8 --steps 8 --evaluate 4 -q"
QUICK = "--steps 3 --evaluate 2 --out run -q"
FILES = {
    "config.json", "history.json", "history.jsonl", "checkpoint.safetensors", "example.safetensors", "evaluation.json",
    "samples.png", "reconstructions.png", "history.png",
}  # fmt: skip

USER = """
import pyro, torch
import pyro.distributions as dist
from torch import nn

def model(x):
    loc = pyro.param("loc", torch.zeros(64))
    scale = pyro.param("scale", torch.ones(64), constraint=dist.constraints.positive)
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(64), 1.0).to_event(1))
        pyro.sample("pixels", dist.Normal(loc + z, scale).to_event(1), obs=x)

class Model(nn.Module):
    def __init__(self, event, factor=2):
        super().__init__()
        self.net = nn.Linear(factor, event)

    def forward(self, x):
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(self.net.in_features), 1.0).to_event(1))
            pyro.sample("upper", dist.Normal(self.net(z)[:, :32], 1.0).to_event(1), obs=x[:, :32])
            pyro.sample("lower", dist.Normal(self.net(z)[:, 32:], 1.0).to_event(1), obs=x[:, 32:])

class Guide(nn.Module):
    def __init__(self, model, x, width=4):
        super().__init__()
        with pyro.poutine.block():
            size = pyro.poutine.trace(model).get_trace(x).nodes["z"]["value"].shape[-1]
        self.net = nn.Sequential(nn.Linear(x.shape[-1], width), nn.Tanh(), nn.Linear(width, size))

    def forward(self, x):
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Normal(self.net(x), 0.5).to_event(1))

def guide(x):
    weight = pyro.param("weight", torch.zeros(64))
    with pyro.plate("rows", len(x)):
        pyro.sample("z", dist.Normal(x * weight, 0.5).to_event(1))

def heavy(x):
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(64), 1.0).to_event(1))
        pyro.sample("pixels", dist.Normal(z, pyro.param("s", torch.ones(64)) * 1e-30).to_event(1), obs=x)

number = 3
class Data:
    pass
"""


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


@pytest.fixture
def package(empty_folder: Path, request: pytest.FixtureRequest) -> str:
    """A package of the user's own, of another name in every test."""
    name = "mine_" + re.sub(r"\W", "_", request.node.name)
    (empty_folder / name).mkdir()
    (empty_folder / name / "__init__.py").touch()
    (empty_folder / name / "programs.py").write_text(USER)
    return f"{name}.programs"


def call(line: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, shlex.split(line))
    assert result.exit_code == code, result.output + repr(result.exception)
    return result


def complaint(line: str) -> str:
    """The one line on stderr of a command that fails and leaves nothing behind."""
    before = set(Path().iterdir())
    result = call(line, code=1)
    (text,) = result.stderr.splitlines()
    assert text.startswith("error: ") and set(Path().iterdir()) == before
    return text


def files(folder: str) -> set[str]:
    return {path.name for path in Path(folder).iterdir()} - {"checkpoint.previous.safetensors"}


def content(path: str) -> dict:
    return json.loads(Path(path).read_text())


def test_the_catalogues_hold_the_programs_alone():
    guides = {"bidirectional", "bottom-up", "faithful", "infused", "ladder", "mean-field", "merging"}
    guides |= {"recurrent", "self-reflective"}
    assert set(names.catalogue("guide")) == guides
    models = {
        "bit-vae",
        "biva",
        "dlgm",
        "draw",
        "glow",
        "hierarchical-pixel-vae",
        "hierarchical-vae",
        "infusion",
        "linear-gaussian",
        "maf",
        "matnet",
        "nsf",
        "pixel-cnn",
        "pixel-vae",
        "real-nvp",
        "semi-supervised-vae",
        "sequential-vae",
        "sere-maf",
        "sere-vae",
        "vae",
        "vamp-vae",
    }
    assert set(names.catalogue("model")) == models


@pytest.mark.parametrize("kind", ["model", "guide"])
def test_the_table_says_what_docstrings_say(kind):
    """The density is the first of the docstring's formulas, the source is named there or in the module's first line."""
    for program in names.catalogue(kind).values():
        doc, home = inspect.getdoc(program), inspect.getmodule(program).__doc__
        formula = next(line.strip() for line in doc.splitlines() if re.match(r" {4}[pq]\(", line))
        assert re.split(r",? {3,}|$", formula)[0] == program.density, program
        assert program.source in " ".join(f"{doc} {home}".split()), program


def test_list_has_a_line_for_each_and_all_of_one():
    lines = call("list").stdout.splitlines()
    for name in (*names.catalogue("model"), *names.catalogue("guide"), "geco", "digits", "static-mnist", "folder:PATH"):
        assert sum(line.startswith(f"{name} ") for line in lines) == 1
    assert "mnist" not in call("list guides").stdout
    text = call("list sere-vae").stdout
    assert "p(x, z) = p(z1) p(x1 | z1)  prod_{l=2..L}" in text and "arXiv 2007.05166" in text and "-m layers=10" in text
    guides = json.loads(call("list guides --json").stdout)["guides"]
    assert [each["name"] for each in guides] == list(names.catalogue("guide"))
    assert guides[0]["formula"].startswith("q(z | x)") and guides[0]["sizes"]["hidden"] == "256"
    assert "found 'nothing', want models, guides" in call("list nothing", code=1).stderr


def test_version():
    assert call("--version").stdout.split() == ["ppl-models", version("ppl-models")]


def test_help_imports_no_language():
    """Neither torch nor JAX nor SymPy nor Matplotlib, which take seconds, for the help of any command."""
    lines = [
        "import sys",
        "from ppl_models.cli import app",
        "sys.argv[1:] = sys.argv[1].split()",
        "try: app()",
        "except SystemExit: print('heavy:', sys.modules.keys() & {'torch', 'pyro', 'jax', 'sympy', 'matplotlib'})",
    ]
    for command in ("--help", "train --help", "evaluate --help", "recipe --help"):
        done = subprocess.run(
            [sys.executable, "-c", "\n".join(lines), command], capture_output=True, text=True, check=True
        )
        assert done.stdout.rstrip().endswith("heavy: set()"), done.stdout[-300:]


@pytest.mark.parametrize(
    "command",
    ["", *(f"{c} " for c in "list train evaluate compare-runs ablate report sample results demo".split())],
)
def test_help_shows_an_example(command):
    text = call(f"{command}--help").stdout
    assert "ppl-models" in text and (command == "" or f"Example: ppl-models {command}" in text)


def test_a_run_is_whole_and_rebuilds_to_the_same_numbers():
    call(f"{SMALL} --out run --seed 3")
    assert files("run") == FILES
    config, found = content("run/config.json"), content("run/evaluation.json")
    assert config["model"]["sizes"] == {
        "event": 64, "layers": 2, "latent": 2, "hidden": 8, "depth": 1, "likelihood": "bernoulli", "network": "mlp",
    }  # fmt: skip
    assert config["guide"]["sizes"]["image"] == [1, 8, 8] and config["guide"]["sizes"]["encoder"] == "separate"
    assert (config["seed"], config["training"]["steps"], config["training"]["warmup"]) == (3, 8, 2)
    assert set(config["versions"]) == {"python", "torch", "pyro-ppl", "ppl-models"} and found["n"] == 300
    assert content("run/history.json")["history"][-1]["step"] == 8

    text = call("evaluate run --particles 4 --seed 0 -q").stdout
    assert content("run/evaluation.json") == found and f"{found['nll']:.3f}" in text
    run = load_run("run")
    again = evaluate(run.model, run.guide, run.load_data()[-1], particles=4, progress=False)
    assert (again.elbo, again.nll) == (found["elbo"], found["nll"]) and not run.model.training

    # the recorded command makes the run again
    call(config["command"].removeprefix("ppl-models ") + " --evaluate 4 -q --out again")
    assert content("again/evaluation.json") == found


def test_evaluation_on_other_data_has_a_file_of_its_own(empty_folder):
    call(f"{SMALL} --out run")
    before = content("run/evaluation.json")
    np.save("other.npy", np.zeros((20, 8, 8), bool))
    call("evaluate run --particles 2 --data other.npy --transform x", code=2)
    call("evaluate run --particles 2 --data other.npy -q")
    assert content("run/evaluation.json") == before and content("run/evaluation_other.json")["n"] == 2


def test_two_runs_are_compared_datum_by_datum():
    call(f"{SMALL} --out one")
    call(f"{SMALL} --seed 1 --out other")
    text = call("compare-runs one other --particles 4 -q").stdout
    found = []
    for folder in ("one", "other"):
        run = load_run(folder)
        found.append(evaluate(run.model, run.guide, run.load_data()[-1], particles=4, progress=False))
        assert content(f"{folder}/evaluation.json")["nll"] == found[-1].nll
    assert str(found[0] - found[1]) in text
    call(f"{SMALL} --transform none --out third --evaluate 0 -m likelihood=gaussian")
    assert "found data.applied" in call("compare-runs one third -q", code=1).stderr


def test_sample_writes_the_pictures_asked_for():
    call(f"{SMALL} --out run")
    text = call("sample run --n 6 --out few.png").stdout
    call("sample run --n 6 --out same.png")
    call("sample run --n 6 --out other.png --seed 1 --draws")
    few, same, other = (matplotlib.image.imread(f"{name}.png") for name in ("few", "same", "other"))
    assert text.strip() == "few.png" and np.array_equal(few, same) and not np.array_equal(few, other)
    assert call("sample run -n 4").stdout.strip() == "run/samples.png"
    assert "want one of" in complaint("sample run --out samples.bmp")


@pytest.mark.slow
def test_demo_prices_guides_and_compares_them(monkeypatch):
    for name, count in {"TRAIN": 200, "TEST": 50, "DRAWS": 5, "PARTICLES": 3}.items():
        monkeypatch.setattr(f"ppl_models.runs.demo.{name}", count)
    text = call("demo --steps 3 --out demo").stdout
    guides = {f"{guide}-0" for guide in ("mean-field", "ladder", "self-reflective")}
    assert {path.name for path in Path("demo").iterdir()} == {"demo.json", "demo.png", "digits"}
    assert {path.name for path in Path("demo/digits").iterdir()} == guides | {"ablation.json", "ablation.png"}
    assert all(files(f"demo/digits/{guide}") == FILES | {"ablation.safetensors"} for guide in guides)
    found = content("demo/demo.json")
    prices = {name: round(row["price"], 3) for name, row in found["given"].items()}
    lacks = {name: row["missing"] for name, row in found["given"].items()}
    assert list(prices.values()) == [3.243, 0.375, 1.04, 0.0] and "3.243" in text and "z1→z2" in text
    assert [*lacks.values()] == [{"z2": ["z1"], "z3": ["z1", "z2"]}, {"z1": ["z3"]}, {"z3": ["z2"]}, {}]
    # no guide is better than its structure lets it be, trained or not
    assert all(row["measured"] > row["price"] - 3 * row["error"] for row in found["given"].values())
    assert found["learned"]["ladder"]["minus"]["mean-field"]["nll"]["n"] == 300
    assert load_run("demo/digits/ladder-0").config["seed"] == 0
    assert "exists already" in complaint("demo --steps 3 --out demo")


def test_linear_gaussian_learns_grey_levels_without_a_likelihood():
    call(f"train linear-gaussian -g bottom-up -g family=full -m latent=2,3 --transform none {QUICK}")
    config = content("run/config.json")
    assert config["model"]["sizes"]["event"] == 64 and "likelihood" not in config["model"]["sizes"]
    assert load_run("run").model.sizes == {"z1": 2, "z2": 3, "x": 64}


def test_convolutions_are_given_the_image():
    call(f"train vae -g mean-field -m network=conv -m hidden=16 -g encoder=conv -g hidden=8 {QUICK} --evaluate 0")
    assert content("run/config.json")["model"]["sizes"]["event"] == [1, 8, 8]
    assert load_run("run").model.event == 64 and not Path("run/evaluation.json").exists()


def test_how_steps_are_taken_is_written_down_and_repeated():
    more = "--accumulate 2 --skip 1e6 --precision bfloat16 --no-compile --patience 3 --validation"
    call(f"{SMALL} --out run {more}")
    config = content("run/config.json")
    found = {name: config["training"][name] for name in ("accumulate", "skip", "precision", "compile", "patience")}
    assert found == {"accumulate": 2, "skip": 1e6, "precision": "bfloat16", "compile": False, "patience": 3}
    assert all(word in config["command"] for word in more.replace("1e6", "1000000.0").split()), config["command"]
    call("train --resume run --evaluate 0 -q")
    assert "found patience=3 without validation data" in complaint(f"{SMALL} --out other --patience 3")
    assert "skipped" in load_run("run").history[-1]


def test_validation_data_are_recorded():
    call(f"{SMALL} --out run --validation")
    assert "valid" in load_run("run").history[-1] and content("run/config.json")["data"]["rows"]["validation"] == 297


@pytest.mark.parametrize(
    "pair", ["model -g {}:guide", "model -g {}:Guide -g width=3", "Model -m factor=3 -g mean-field -g hidden=8"]
)
def test_programs_of_the_users_own(package, pair):
    call(f"train {package}:{pair.format(package)} --transform none --steps 5 --lr 0.1 --evaluate 3 --out run -q")
    found = content("run/evaluation.json")
    assert {"samples.png", "reconstructions.png"} <= {path.name for path in Path("run").iterdir()}
    pyro.clear_param_store()  # as in a process of its own
    call("evaluate run --particles 3 -q")
    assert content("run/evaluation.json") == found


def test_a_model_without_latents_takes_no_guide():
    """Trained, evaluated, resumed, drawn from and inspected from the shell."""
    text = call("train maf -d digits --transform logit -m hidden=8 -m steps=2 --steps 4 --evaluate 3 --out run").stdout
    assert "maf on digits (1497 train, 300 test)" in text and "exact: there are no latents" in text
    assert {path.name for path in Path("run").iterdir()} == FILES - {"reconstructions.png"}
    config, found = content("run/config.json"), content("run/evaluation.json")
    assert config["guide"] is None and "-g" not in config["command"].split()
    assert found["particles"] == 1 and found["kl"] == {} and found["bits_per_dim"] > 0
    pyro.clear_param_store()
    call("train --resume run --evaluate 3 -q")
    again = content("run/evaluation.json")
    assert again["nll"] == pytest.approx(found["nll"], abs=0.5)  # other noise of the grey levels
    call("sample run --n 4 --out drawn.png")
    assert Path("drawn.png").is_file()
    text = call("inspect maf -m hidden=8 -m steps=1 --out report -q").stdout
    assert text.startswith("NO LATENTS: MAF, by site, has nothing to infer") and "guide" not in text.splitlines()[2:]
    assert "p(x)" in text and Path("report/report.svg").is_file()
    assert "no latents" in Path("report/report.html").read_text()
    shutil.rmtree("run")
    call(f"{config['command'].removeprefix('ppl-models ')} --evaluate 0 --out run -q")
    assert content("run/config.json")["model"] == config["model"]


@pytest.mark.filterwarnings("default:site 'x'")
def test_a_warning_is_one_line():
    np.save("far.npy", np.random.default_rng(0).normal(size=(50, 4), scale=100.0))
    line = "train nsf --data far.npy -m hidden=4 -m steps=1 --steps 1 --evaluate 0 -q"
    said = CliRunner().invoke(app, shlex.split(line)).output.splitlines()
    assert [text for text in said if "site 'x'" in text] == [
        "warning: site 'x': more than half of the values lie outside of [-5, 5], where splines are the identity and "
        "learn nothing; standardize the data, or take a larger bound"
    ]
    assert not any("check_inside" in text for text in said)


def test_data_that_are_no_images_are_said_so():
    np.save("rows.npy", np.random.default_rng(0).normal(size=(50, 6)))
    text = call(f"train vae -g mean-field -m hidden=8 -m latent=2 -g hidden=8 --data rows.npy {QUICK}").stdout
    assert "no pictures of the data" in text and not Path("run/samples.png").exists()
    config = content("run/config.json")
    assert config["model"]["sizes"]["likelihood"] == "gaussian" and Path(config["data"]["name"]).is_absolute()
    assert "no pictures" in complaint("sample run")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train sere-va -g ladder", "model 'sere-va' is unknown; did you mean 'sere-vae'?"),
        ("train SeReVAE -g ladder", "did you mean 'sere-vae'?"),
        ("train vae -g lader", "guide 'lader' is unknown; did you mean 'ladder'?"),
        ("train vae -g hidden=3", "found no name of a guide"),
        ("train vae -g ladder -g mean-field", "found 2 names (ladder, mean-field)"),
        ("train vae -g ladder -m hiden=3", "vae' has no size 'hiden'; did you mean 'hidden'? It takes event=784"),
        ("train vae -g ladder -g layers=3", "guide 'ladder' has no size 'layers'. It takes family='diagonal'"),
        ("train vae -g ladder -m ladder", "-m 'ladder': want key=value"),
        ("train vae -g ladder -m =3", "-m '=3': want key=value"),
        ("train vae -g ladder --data minst", "did you mean 'mnist'?"),
        ("train vae -g ladder --data none.npy", "none.npy: found no such file, want a .npy or .npz file; try"),
        ("train vae -g ladder --data folder:none", "none: found no such folder, want a folder of images; try"),
        ("train vae -g conditionals", "guide 'conditionals' is unknown"),
        ("train vae -g ladder --transform sepia", "found transform='sepia'"),
        ("train vae -g ladder --device tpu", "found device='tpu', want the name of a device"),
        ("train vae -g ladder --epochs 1 --steps 1", "found epochs=1.0 and steps=1, want one of them"),
        ("train vae -g ladder -g family=round", "found family 'round'"),
        ("train vae -g ladder -m hidden=wide", "VAE: found hidden='wide', want an integer of at least 1"),
        ("train vae -g ladder -m latent=x", "VAE: found latent='x', want an integer of at least 1"),
        ("train dlgm -g ladder -m latent=x", "DLGM: found latent='x', want an integer of at least 1, or several"),
        ("train vae -g ladder -g hidden=2.5", "guide Ladder: found hidden=2.5, want an integer of at least 1"),
        ("train sere-vae -g ladder -m layers=65", "found 65 layers"),
        ("train linear-gaussian -g ladder -m weight=x", "LinearGaussian: found weight='x', want a number"),
        ("train vae -g ladder --transform none -m likelihood=bernoulli", "Bernoulli likelihood wants 0 or 1"),
        ("train linear-gaussian -g ladder -m generator=3", "error: LinearGaussian: found generator=3, want a Gen"),
        ('train vae -g bottom-up -g "parents={\'z1\': 3}"', "error: guide BottomUp: found parents['z1'] = 3, want a"),
        ('train vae -g bottom-up -g "parents={1: 2}"', "guide BottomUp: parents names the site 1, want one of"),
        ("train nowhere.models:Mine -g ladder", "there is no module 'nowhere'"),
        ("train {}:Modle -g ladder", "has no 'Modle'; did you mean 'Model'?"),
        ("train {}:number -g ladder", "found a int, want a class or a Pyro program"),
        ("train {}:Data -g ladder", "objects of the class Data cannot be called"),
        ("train {}:model -m width=3 -g ladder", "is no class, so it takes no sizes; found width"),
        ("train {}:heavy -g {}:guide --transform none --lr 1e30", "the loss is"),
        ("train vae -g {}:Guide -g width=3", "'z'"),
        ("train", "found no MODEL, no --resume RUN and no --weights RUN, want one of them"),
        ("train vae", "the guide has no factor for the site 'z1' of the model (the guide samples: nothing)"),
        ("train maf", "site 'x': found 2 different values among"),
        ("train maf -g mean-field --transform logit", "guide MeanField: the model has no latent site to infer"),
        ("train --resume nowhere -q", "there is no run folder nowhere"),
        ("train --resume . -q", "is no run folder: it has no config.json"),
        ("train vae -g ladder --lr 0.1 --resume run", "--resume: found MODEL, -g, --lr too, but run says it"),
        ("evaluate nowhere", "there is no run folder nowhere"),
        ("sample .", "is no run folder: it has no config.json"),
    ],
)  # fmt: skip
def test_mistakes_are_told_in_one_line_and_leave_nothing(package, line, message):
    short = " --steps 4 -q" if line.startswith("train") and not {"--steps", "--resume"} & set(line.split()) else ""
    assert message in complaint(line.replace("{}", package) + short)


def test_an_existing_folder_is_left_alone():
    Path("run").mkdir()
    Path("run/notes.txt").write_text("mine")
    assert "run exists already" in complaint(f"{SMALL} --out run")
    assert Path("run/notes.txt").read_text() == "mine"
    assert "run/notes.txt exists already" in complaint(f"{SMALL} --out run/notes.txt")
    Path("run/checkpoint.safetensors").write_text("of another run")
    result = call(f"{SMALL} --out run", code=1)
    assert "run exists already" in result.stderr and "kept" not in result.stdout
    # an empty one is used, and is there still if nothing comes of it
    Path("empty").mkdir()
    assert "the loss is" in complaint("train vae -g ladder --lr 1e30 --clip 0 --steps 9 -q --out empty")
    assert not any(Path("empty").iterdir())


def test_what_others_put_into_a_run_stays(monkeypatch):
    def noted(*args, folder, **kwargs):
        assert {path.name for path in folder.iterdir()} == {"config.json", "example.safetensors"}
        (folder / "notes.txt").write_text("mine")
        raise KeyboardInterrupt

    monkeypatch.setattr(ppl_models.runs.backends.pyro, "fit", noted)
    call(f"{SMALL} --out run", code=130)
    assert [path.name for path in Path("run").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("saved", [False, True])
def test_an_interrupted_training_keeps_its_last_checkpoint(monkeypatch, saved):
    def interrupted(*args, **kwargs):
        if saved:
            fit(*args, **kwargs)
        raise KeyboardInterrupt

    fit = ppl_models.runs.backends.pyro.fit
    monkeypatch.setattr(ppl_models.runs.backends.pyro, "fit", interrupted)
    result = call(f"{SMALL} --out deep/run", code=130)
    assert "interrupted" in result.stderr
    if saved:
        assert "kept in deep/run" in result.stdout and load_run("deep/run").history[-1]["step"] == 8
        assert "ppl-models train --resume deep/run" in result.stdout
    else:
        assert not Path("deep").exists()


def assert_same_runs(one: str, two: str) -> None:
    """Weights, state of the training, history and evaluation, bit for bit."""
    first, second = (read(Path(folder, CHECKPOINT)) for folder in (one, two))
    for part in ("weights", "training"):
        a, b = getattr(first, part), getattr(second, part)
        assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
    assert content(f"{one}/evaluation.json") == content(f"{two}/evaluation.json")
    first, second = ([{**row, "seconds": 0} for row in load_run(folder).history] for folder in (one, two))
    assert first == second


SHORTER = "train vae -g mean-field -m latent=2 -m hidden=8 -g hidden=8 --epochs 4 --evaluate 4 -q"
LONGER = "train sere-vae -g self-reflective -m layers=2 -m latent=2 -m hidden=8 -g hidden=8 --epochs 4 --evaluate 4 -q"


@pytest.mark.parametrize(
    "moment", few(["before the first", "in the second", "after the third"], lambda moment: moment == "in the second")
)
def test_a_killed_run_goes_on_to_the_same_end(monkeypatch, moment):
    line = SHORTER if moment == "in the second" else LONGER
    call(f"{line} --validation --transform binarize --out whole")
    number = {"before the first": 1, "in the second": 2, "after the third": 3}[moment]
    real, count = write_atomically, [0]

    def killing(path, write, previous=None):
        if Path(path).name != CHECKPOINT:
            return real(path, write, previous)
        count[0] += 1
        if count[0] != number or moment.startswith("after"):
            real(path, write, previous)
        if count[0] == number:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("ppl_models.inference.pyro.training.checkpoint.write_atomically", killing)
        if number == 1:  # a killed process does not remove what it has started
            patch.setattr("ppl_models.runs.folders.folder._remove_started", lambda *args: None)
        with pytest.raises(Killed):
            CliRunner().invoke(app, shlex.split(f"{line} --validation --transform binarize --out run"))
    if number == 1:
        assert "run has no checkpoint yet (killed before the first)" in complaint("sample run")
    torch.rand(7), pyro.clear_param_store()  # another process has another state
    call("train --resume run --evaluate 4 -q")
    assert_same_runs("whole", "run")
    assert len(load_run("run").history) == 4
    # at its end there is nothing left to do, and that is what resuming does
    call("train --resume run --evaluate 4 -q")
    assert content("whole/evaluation.json") == content("run/evaluation.json")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_processes_killed_at_any_moment_come_to_the_same_end():
    """SIGKILL after SIGKILL, at moments drawn at random from the first checkpoint on, until the run is through."""
    python, line = [sys.executable, "-m", "ppl_models"], f"{LONGER} --threads 1".replace("--epochs 4", "--epochs 60")
    subprocess.run([*python, *shlex.split(f"{line} --out whole")], check=True)
    moments, words, steps, checkpoint = random.Random(0), shlex.split(f"{line} --out run"), [], Path("run", CHECKPOINT)
    for _ in range(8):
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else None
        process = subprocess.Popen([*python, *words])
        while process.poll() is None and before == (checkpoint.stat().st_mtime_ns if checkpoint.exists() else None):
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.5))
        process.kill()
        process.wait()
        steps.append(read(checkpoint).about["step"] if checkpoint.exists() else 0)
        words = shlex.split("train --resume run --evaluate 4 -q --threads 1")
    assert steps == sorted(steps) and len(set(steps)) > 3, steps
    subprocess.run([*python, *words], check=True)
    assert_same_runs("whole", "run")
    assert files("run") == files("whole")


def test_resuming_what_cannot_be_resumed(trained):
    path, config = trained / CHECKPOINT, trained / "config.json"
    tensors, text = path.read_bytes(), config.read_text()
    path.write_bytes(tensors[:-1])
    assert "run/checkpoint.safetensors is truncated" in complaint("train --resume run -q")
    path.rename(trained / "checkpoint.previous.safetensors")
    assert "rename that one to go on from it" in complaint("train --resume run -q")
    whole = json.loads(text)
    del whole["training"]
    config.write_text(json.dumps(whole))
    assert "config.json is damaged: it lacks 'training'" in complaint("train --resume run -q")


def test_debug_shows_where():
    result = CliRunner().invoke(app, shlex.split("evaluate nowhere --debug"))
    assert isinstance(result.exception, ValueError)


@pytest.fixture
def trained() -> Path:
    call(f"{SMALL} --out run --evaluate 0")
    return Path("run")


def test_damaged_folders_are_named(trained):
    config, checkpoint = trained / "config.json", trained / "checkpoint.safetensors"
    text, tensors = config.read_text(), checkpoint.read_bytes()
    whole = json.loads(text)

    def damaged(words: str = "", **changes: dict) -> str:
        config.write_text(json.dumps({**whole, **changes}))
        message = complaint(f"evaluate run --particles 2 {words}")
        config.write_text(text)
        return message

    config.write_text(text[:100])
    assert "config.json is truncated or no JSON" in complaint("evaluate run --particles 2")
    assert "found format 'x'" in damaged(format="x")
    assert "config.json is damaged: it lacks 'import'" in damaged(model={"name": "sere-vae", "sizes": {}})
    wide = {**whole["model"], "sizes": {**whole["model"]["sizes"], "hidden": 16}}
    assert "is (2, 2), want (4, 2); rebuild model and guide with the sizes" in damaged(model=wide)
    other = {**wide, "import": "datetime:date"}
    assert "found 'datetime:date' in a file, want a program of the collection" in damaged(model=other)
    assert "objects of the class date cannot be called" in damaged("--trust datetime", model=other)
    checkpoint.write_bytes(tensors[: len(tensors) // 2])
    assert "checkpoint.safetensors is truncated" in complaint("sample run")
    checkpoint.write_bytes(b"\x80\x04pickle")
    assert "no safetensors file" in complaint("sample run")
    checkpoint.unlink()
    missing = "run has no checkpoint yet (killed before the first); resume it with ppl-models train --resume run"
    assert missing in complaint("sample run")
    previous = trained / "checkpoint.previous.safetensors"
    for damaged_bytes in (None, tensors[:-1], tensors[:-1] + b"?"):
        previous.write_bytes(tensors)
        if damaged_bytes is not None:
            checkpoint.write_bytes(damaged_bytes)
        message = complaint("sample run")
        assert "run/checkpoint.safetensors" in message and "the previous checkpoint, run/" in message
        assert "is whole: load that one, or rename it to checkpoint.safetensors" in message
        run = load_run("run", checkpoint=previous.name)
        assert run.history[-1]["step"] == 8
        previous.rename(checkpoint)
        call("sample run --n 2")
    (trained / "example.safetensors").write_bytes(tensors)
    assert "example.safetensors lacks the tensor 'example.rows'" in complaint("sample run")
    (trained / "example.safetensors").unlink()
    assert "run is no whole run: no checkpoint at run/example.safetensors" in complaint("sample run")


def test_a_run_loads_without_its_data(trained, monkeypatch):
    monkeypatch.setattr("ppl_models.data.load", lambda *args, **kwargs: pytest.fail("no data are needed"))
    run = load_run(str(trained))
    assert run.model(n=2).shape == (2, 64) and len(run.example) == 3


# inspect


def test_inspect_prints_the_report_and_writes_it():
    said = call("inspect hierarchical-vae mean-field -m latent=2,2 -m hidden=8 -g hidden=8").stdout
    assert said.startswith("UNFAITHFUL: MeanField for HierarchicalVAE, by site")
    assert "lacks z1, on which it depends by z2 - z1" in said
    folder = Path("inspection_hierarchical-vae_mean-field")
    assert {path.name for path in folder.iterdir()} == {f"report.{e}" for e in ("txt", "json", "svg", "html")}
    written = content(folder / "report.json")
    assert written["faithful"] is False and written["rows"][1]["missing"] == {"z1": ["z2", "z1"]}
    svg = (folder / "report.svg").read_text()
    assert xml.etree.ElementTree.fromstring(svg).tag.endswith("svg")
    assert "<table>" in (folder / "report.html").read_text()


def test_inspect_takes_programs_of_the_users_and_pyros(package):
    said = call(f"inspect {package}:Model {package}:Guide --out here").stdout
    assert said.startswith("FAITHFUL, MINIMAL, PERFECT: Guide for Model")
    assert call(f"inspect {package}:model pyro.infer.autoguide:AutoNormal -q").stdout.startswith("FAITHFUL")
    by_element = call("inspect linear-gaussian ladder -m latent=2 -g hidden=4 --level element -q").stdout
    assert by_element.startswith("UNFAITHFUL") and "q(z1.1 | x" in by_element


@pytest.mark.slow
def test_inspect_gives_a_density_of_real_numbers_such():
    """The digits are binarized by default, which a flow refuses."""
    said = call("inspect sere-maf self-reflective -m latent=2 -m layers=2 -m hidden=8 -m code_hidden=4 -g hidden=4 -q")
    assert said.stdout.startswith("FAITHFUL")


def test_inspect_strict_exits_with_2():
    call("inspect hierarchical-vae mean-field -m latent=2,2 -m hidden=8 -g hidden=8 --strict -q", code=2)
    call("inspect hierarchical-vae ladder -m latent=2,2 -m hidden=8 -g hidden=8 --strict -q", code=0)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("inspect vae mean-feild", "did you mean 'mean-field'"),
        ("inspect vae mean-field -g ladder", "-g 'ladder': want key=value"),
        ("inspect vae mean-field -m latnet=2", "did you mean 'latent'"),
        ("inspect vae self-reflective -g parents=all -g family=flat", "family 'flat'"),
    ],
)
def test_inspect_complains(line, says):
    assert says in complaint(line)


def test_few_data_make_a_short_training_which_is_told():
    few, many, chosen = (
        {"training": {"epochs": epochs, "steps": steps}, "data": {"rows": {"train": rows}}}
        for epochs, steps, rows in ((25, None, 180), (25, None, 1497), (None, 50, 180))
    )
    assert shortness([], few) == "25 passes over so few data are 50 steps; --steps 2000 trains for longer"
    assert not any((shortness(["epochs"], few), shortness([], many), shortness([], chosen)))
