"""The shape of the tree: who imports whom, what an import loads, how long files are, what is unpickled."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOTS = ("guides", "ppl_models")
LIBRARY = sorted(path for package in ROOTS for path in (ROOT / package).rglob("*.py"))
TOOLS = ("data", "factorization", "inference", "parts", "views")
LONGEST = 300
MOST = 12
CATALOGUES = {"ppl_models", "ppl_models.cli", "ppl_models.numpyro", "ppl_models.inference.pyro.engine.xla.aten"}
HEAVY_FOR_DATA = ("sklearn", "scipy", "PIL", "pooch", "requests", "matplotlib")
HEAVY = ("arviz", "jax", "matplotlib", "numpyro", "pooch", "sklearn")
PICKLES = ("cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve")
READERS = ROOT / "ppl_models" / "data" / "readers.py"  # one data format is a pickle: a restricted Unpickler


def name(path: Path) -> str:
    """The dotted name of a module of the library."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def is_port(path: Path) -> bool:
    """Whether a file belongs to the NumPyro half, which needs JAX."""
    return "numpyro" in path.parts or path.stem.startswith(("numpyro", "jax"))


MODULES = [name(path) for path in LIBRARY if path.stem != "__main__" and not is_port(path)]


def run(code: str) -> subprocess.CompletedProcess[str]:
    """Run a line of Python in a process of its own, from the root of the checkout."""
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)


# Who imports whom


def test_import_contracts_are_kept():
    linted = run("from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))")
    assert linted.returncode == 0, linted.stdout + linted.stderr


def test_contracts_list_exactly_the_models_there_are():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (whole,) = (contract for contract in contracts if contract.get("containers") == ["ppl_models"])
    (row,) = (row for row in whole["layers"] if "|" in row)
    strangers = {stranger.strip(" ()") for stranger in row.split("|")}
    models = {path.stem for path in (ROOT / "ppl_models").glob("*.py")} - {"__init__", "__main__"}
    assert strangers - {*TOOLS, "numpyro"} == models


@pytest.mark.parametrize("module", MODULES)
def test_module_imports(module: str):
    importlib.import_module(module)  # the doctest run would only skip a module that fails to import


EVERYTHING = "from ppl_models import *; from guides import *"


def test_import_is_light_and_leaves_the_checks_of_distributions_on():
    data = f"import sys, ppl_models.data; print(*(heavy for heavy in {HEAVY_FOR_DATA} if heavy in sys.modules))"
    heavy = f"print(*(heavy for heavy in {HEAVY} if heavy in sys.modules))"
    checks = "import pyro.distributions as d; print(d.is_validation_enabled(), d.Normal._validate_args)"
    tools = "from ppl_models.cli import *; from ppl_models.inference import *"
    imported = run(f"{data}; {EVERYTHING}; {heavy}; {tools}; {checks}")
    assert imported.returncode == 0, imported.stderr
    assert imported.stdout.splitlines() == ["", "", "True True"]


# The ports


PORTS = ("guides.numpyro", "ppl_models.numpyro", "ppl_models.inference.numpyro", "ppl_models.numpyro.parts")
WITHOUT_JAX = "import sys; sys.modules.update(jax=None, numpyro=None, equinox=None, optax=None)"


DRAWS = """
import warnings
import numpyro, numpyro.distributions as d
from ppl_models.views import to_arviz
warnings.simplefilter("ignore")
m = lambda x: numpyro.sample("x", d.Normal(numpyro.sample("z", d.Normal(0., 1.)), 1.), obs=x)
to_arviz(m, lambda x: numpyro.sample("z", d.Normal(0., 1.)), 1.0, draws=5)
"""


def test_ports_are_imported_and_drawn_from_without_torch():
    loaded = "import sys; print('torch' in sys.modules, 'jax' in sys.modules)"
    everything = "\n".join([*(f"from {package} import *" for package in PORTS), loaded])
    imported = run(f"{everything}\n{DRAWS}\n{loaded}")
    assert imported.stdout.split() == ["False", "True"] * 2, imported.stderr


WITHOUT = f"""
{WITHOUT_JAX}
for package in ("guides.numpyro", "ppl_models.numpyro"):
    try:
        __import__(package)
    except ImportError as error:
        print(error)
{EVERYTHING}
from ppl_models.inference import *
import ppl_models.cli, ppl_models.views, ppl_models.runs
print(VAE.__name__, Ladder.__name__, fit.__name__)
"""


def test_without_the_extra_one_line_says_how_to_get_it_and_all_else_is_there():
    imported = run(WITHOUT)
    assert imported.returncode == 0, imported.stderr
    *told, names = imported.stdout.splitlines()
    advice = "which is not installed; try: pip install 'ppl-models[numpyro]'"
    assert len(told) == 2 and all(line.endswith(advice) for line in told) and names == "VAE Ladder fit"


@pytest.mark.parametrize("package", [*ROOTS, *PORTS, "ppl_models.inference", "ppl_models.parts"])
def test_no_public_name_is_that_of_a_submodule(package: str):
    """A name that is given when it is asked for would be hidden by the submodule once something imports that."""
    folder = ROOT.joinpath(*package.split("."))
    submodules = {path.stem for path in folder.iterdir() if path.suffix == ".py" or path.is_dir()}
    if any(is_port(path) for path in folder.glob("*.py")):
        pytest.importorskip("jax")
    assert not submodules & set(importlib.import_module(package).__all__)


# How a file looks


def test_no_file_is_too_long():
    files = LIBRARY + list(ROOT.glob("*.py"))
    files += (ROOT / "benchmarks").rglob("*.py")  # a notebook is prose for its better half
    lines = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in files}
    assert {path: count for path, count in lines.items() if count > LONGEST} == {}


RIDDLE = re.compile(r"(What|Whether|Which|Where|How|Why|Does)\b")


def test_no_room_has_too_many_files():
    """But the catalogues: models and their ports, commands, operations of torch."""
    rooms = Counter(name(path.parent) for path in LIBRARY if path.name != "__init__.py")
    assert {room for room, files in rooms.items() if files > MOST} == CATALOGUES


def test_modules_name_the_thing_first():
    """A stranger searches for nouns: a first line says what the file defines, then what for."""
    first = {name(path): ast.get_docstring(ast.parse(path.read_text())) or "" for path in LIBRARY}
    assert [module for module, text in first.items() if not text or RIDDLE.match(text)] == []


def exports(package: ModuleType) -> dict[str, object]:
    """The public classes and functions of a package that are its own."""
    public = {export: getattr(package, export) for export in dir(package) if not export.startswith("_")}
    return {
        export: value
        for export, value in public.items()
        if (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__.partition(".")[0] in ROOTS
    }


def is_documented(value: object) -> bool:
    """Whether a class or function has a docstring of its own, not the signature a dataclass puts there."""
    text = vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__
    return bool(text and text.strip()) and not text.startswith(f"{value.__name__}(")


@pytest.mark.parametrize("package", [*ROOTS, *(f"ppl_models.{tool}" for tool in TOOLS)])
def test_exports_are_documented(package: str):
    exported = exports(importlib.import_module(package))
    assert exported or package not in ROOTS, f"{package} exports nothing"
    assert [export for export, value in exported.items() if not is_documented(value)] == []


# What may be unpickled


def unsafe_loads(source: str, unpickler: bool = False) -> list[str]:
    """What in a source text could run code hidden in a file it loads, subclasses of Unpickler apart."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            unsafe = any(alias.name.partition(".")[0] in PICKLES for alias in node.names)
            unsafe = unsafe and not (unpickler and ast.unparse(node) == "import pickle")
        elif isinstance(node, ast.ImportFrom):
            names = {alias.name for alias in node.names}
            unsafe = (node.module or "").partition(".")[0] in PICKLES and not node.level
            unsafe = unsafe and not (unpickler and names <= {"Unpickler", "UnpicklingError"})
            unsafe = unsafe or (node.module == "torch" and "load" in names)
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            unsafe = called in ("Unpickler", "pickle.Unpickler", "pickle.load", "pickle.loads")
            unsafe = unsafe or called.endswith("read_pickle")
            unsafe = unsafe or (called == "torch.load" and options.get("weights_only") != "True")
            unsafe = unsafe or options.get("allow_pickle", "False") != "False"
        else:
            continue
        if unsafe:
            found.append(f"line {node.lineno}: {ast.unparse(node)}")
    return found


def test_library_unpickles_nothing():
    found = {name(path): unsafe_loads(path.read_text(), path == READERS) for path in LIBRARY}
    assert {module: lines for module, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle as p",
        "from pickle import load",
        "from torch import load",
        "import joblib.externals",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "pd.read_pickle(path)",
        "pickle.load(file)",
        "pickle.Unpickler(file).load()",
    ],
)
def test_unsafe_loads_are_found(source: str):
    assert unsafe_loads(source, unpickler=True)


@pytest.mark.parametrize(
    "source",
    [
        "import pickle\nclass Arrays(pickle.Unpickler): ...\nArrays(file).load()",
        "from pickle import Unpickler",
        "torch.load(path, weights_only=True)",
        "np.load(path, allow_pickle=False)",
        "np.load(path)",
        "from .pickle import load",
    ],
)
def test_safe_loads_are_left_alone(source: str):
    assert not unsafe_loads(source, unpickler=True)
