"""What an editor sees: names that complete, types that hold on README's blocks and a user's script, docstrings.

By ty, which the tests have; by basedpyright, whose wheel carries all that it runs, where that is installed.
"""

import importlib
import json
import os
import pydoc
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ppl_models

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import ppl_models as pm
from guides import Ladder, SelfReflective
from ppl_models import SeReVAE, data, guides
from ppl_models.factorization import compare
from ppl_models.inference import FitConfig, Linear, evaluate, fit
from ppl_models.runs import load_run

train, test = data.load("digits")
model = SeReVAE(event=64, layers=4, latent=8)
guide = SelfReflective(model, train[:3])
run = fit(model, guide, train, FitConfig(lr=3e-3), steps=200, beta=Linear(100))
report = compare(model, guide, test[:3])
print(report.verdict, report.faithful, run.history[-1]["loss"])
found = evaluate(model, guide, test, particles=100)
print(found.nll - 1.0, found.kl["z1"].real)
loaded = load_run("runs/mine")
print(loaded.config["seed"], pm.__version__.upper(), pm.inference.fit, pm.data.load, guides.Ladder, Ladder)
"""
HOVERED = {  # name in the script -> where its docstring is
    "SeReVAE": "ppl_models",
    "SelfReflective": "guides",
    "Ladder": "guides",
    "compare": "ppl_models.factorization",
    "evaluate": "ppl_models.inference",
    "fit": "ppl_models.inference",
    "FitConfig": "ppl_models.inference",
    "Linear": "ppl_models.inference",
    "load_run": "ppl_models.runs",
}
WRONG = {  # what is right in the script -> a mistake
    "steps=200": "steps='many'",
    "lr=3e-3": "lr='fast'",
    "found.nll - 1.0": "found.nnl",
    "pm.data.load": "pm.date",
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """README's blocks and the script, as files of a user's."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    first, second, third = blocks
    (tmp_path / "readme.py").write_text(f"{first}\n{second}")
    (tmp_path / "collection.py").write_text(third)
    (tmp_path / "script.py").write_text(SCRIPT)
    settings = {"typeCheckingMode": "standard", "extraPaths": [str(ROOT)]}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    return tmp_path


def errors(checker: str, folder: Path) -> list[str]:
    """What a checker finds in the files of a folder."""
    ty = [sys.executable, "-m", "ty", "check", "--extra-search-path", str(ROOT), "--output-format", "concise"]
    pyright = [sys.executable, "-m", "basedpyright", "--pythonpath", sys.executable]
    words = {"ty": [*ty, "--python", sys.executable], "basedpyright": pyright}[checker]
    ran = subprocess.run([*words, "."], cwd=folder, capture_output=True, text=True)
    assert ran.returncode in (0, 1), ran.stderr
    return [line for line in ran.stdout.splitlines() if re.search(r"\berror\b.*[:\[]|: error", line)]


CHECKERS = ["ty", pytest.param("basedpyright", marks=pytest.mark.slow)]


@pytest.mark.parametrize("checker", CHECKERS)
def test_readme_and_a_script_of_ten_names_have_no_error_and_mistakes_have(checker, project):
    pytest.importorskip(checker)
    assert errors(checker, project) == []
    text = SCRIPT
    for right, wrong in WRONG.items():
        assert right in text
        text = text.replace(right, wrong)
    (project / "script.py").write_text(text)
    found = errors(checker, project)
    assert len(found) == len(WRONG) and all("script.py" in line for line in found), found


class Editor:
    """The language server of basedpyright, asked for what stands under the pointer."""

    def __init__(self, folder: Path) -> None:
        words = [sys.executable, "-c", "from basedpyright.langserver import main; main()", "--stdio"]
        self.folder, self.count = folder, 0
        self.process = subprocess.Popen(words, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        about = {"uri": folder.as_uri(), "name": "mine"}
        self.ask("initialize", processId=os.getpid(), rootUri=about["uri"], workspaceFolders=[about], capabilities={})
        self.tell("initialized")

    def tell(self, method: str, **params: object) -> None:
        self._write({"jsonrpc": "2.0", "method": method, "params": params})

    def ask(self, method: str, **params: object) -> object:
        self.count += 1
        number = self.count
        self._write({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        while True:
            found = self._read()
            if "method" in found and "id" in found:  # it asks for settings, of which there are none
                items = found.get("params", {}).get("items", [None])
                self._write({"jsonrpc": "2.0", "id": found["id"], "result": [None] * len(items)})
            elif found.get("id") == number:
                return found.get("result")

    def hover(self, file: Path, name: str) -> str:
        """What is shown of a name, or of the beginning of a line, where it first is."""
        text = file.read_text()
        place = re.search(rf"\b{re.escape(name)}", text).start()
        line = text.count("\n", 0, place)
        at = {"line": line, "character": place - text.rfind("\n", 0, place) - 1}
        found = self.ask("textDocument/hover", textDocument={"uri": file.as_uri()}, position=at)
        return str(found and found["contents"]["value"])

    def open(self, file: Path) -> None:
        about = {"uri": file.as_uri(), "languageId": "python", "version": 1, "text": file.read_text()}
        self.tell("textDocument/didOpen", textDocument=about)

    def close(self) -> None:
        """Let it end, with the process of node behind it."""
        self.ask("shutdown")
        self.tell("exit")
        self.process.communicate(timeout=60)

    def _write(self, message: dict) -> None:
        body = json.dumps(message).encode()
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        self.process.stdin.flush()

    def _read(self) -> dict:
        size = 0
        while line := self.process.stdout.readline().strip():
            if line.lower().startswith(b"content-length:"):
                size = int(line.partition(b":")[2])
        return json.loads(self.process.stdout.read(size))


@pytest.mark.slow
def test_a_pointer_shows_docstrings(project):
    pytest.importorskip("basedpyright")
    editor = Editor(project)
    try:
        editor.open(project / "script.py")
        for name, room in HOVERED.items():
            text = editor.hover(project / "script.py", name)
            documented = pydoc.getdoc(getattr(importlib.import_module(room), name)).partition("\n")[0]
            assert documented in text.replace("\n", " "), f"{name}: {text[:900]}"
        for call in ("SeReVAE(event", "SelfReflective(model"):  # which are torch's modules, and say what that says
            assert "are told by the class" in editor.hover(project / "script.py", call)
    finally:
        editor.close()


def test_help_and_dir_list_what_there_is():
    rooms = {"data", "factorization", "guides", "inference", "parts", "runs", "views", "__version__"}
    assert rooms < set(dir(ppl_models)) and "VAE" in dir(ppl_models)
    text = pydoc.render_doc(ppl_models, renderer=pydoc.plaintext)
    assert all(f"ppl_models.{room}" in text for room in rooms - {"__version__"})
    assert "class VAE(" in text and "class SeReVAE(" in text and ppl_models.__version__ in text
    assert all(getattr(ppl_models, name) is not None for name in dir(ppl_models))


WITHOUT_JAX = """
import sys
sys.modules.update(jax=None, numpyro=None, equinox=None, optax=None)
import pydoc, ppl_models
assert "numpyro" not in dir(ppl_models)
print("class VAE(" in pydoc.render_doc(ppl_models, renderer=pydoc.plaintext))
"""


@pytest.mark.slow
def test_help_needs_no_jax():
    ran = subprocess.run([sys.executable, "-c", WITHOUT_JAX], cwd=ROOT, capture_output=True, text=True)
    assert ran.stdout.split() == ["True"], ran.stderr


OWN = """
import guides
from ppl_models import VAE, guides as theirs
from ppl_models.runs import load_run, names
import torch
model = VAE(event=4, latent=2, hidden=4)
print(guides.mine, type(theirs.MeanField(model, torch.eye(4), hidden=4)).__name__, len(names.catalogue("guide")))
run = load_run(RUN)
print(type(run.guide) is theirs.SelfReflective)
"""


@pytest.mark.slow
def test_guides_are_found_beside_a_file_of_that_name(tmp_path):
    """A user's own guides.py hides the package from `import guides`, and from nothing else."""
    (tmp_path / "guides.py").write_text("mine = 'mine'\n")
    (tmp_path / "script.py").write_text(OWN.replace("RUN", repr(str(ROOT / "tests" / "golden" / "run-pyro"))))
    settings = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, env=settings, capture_output=True, text=True)
    assert ran.stdout.split() == ["mine", "MeanField", "9", "True"], ran.stderr


def test_guides_are_one_package_where_nothing_hides_them():
    import guides

    assert ppl_models.guides is guides
