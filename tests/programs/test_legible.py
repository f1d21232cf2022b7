"""Names of sites, columns and files that would steer a terminal: in warnings and in what results print."""

import ast
import warnings
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch

from guides import Faithful, MeanField
from ppl_models.data.table import Table
from ppl_models.factorization import Factorization, compare, factorization
from ppl_models.inference import evaluate
from ppl_models.inference.results import Evaluation
from ppl_models.programs.legible import legible, warn

ROOT = Path(__file__).parents[2]
STEERS, SHOWN = "\x1b[2J\u202e", "\\x1b[2J\\u202e"


def prints(text: str) -> bool:
    """Whether it can be shown as it is."""
    return text == legible(text)


def model(x):
    with pyro.plate(f"rows{STEERS}", len(x)):
        z = pyro.sample(f"z{STEERS}", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        w = pyro.sample(f"w{STEERS}", dist.Normal(z, 1.0).to_event(1))
        pyro.sample(f"x{STEERS}", dist.Normal(w, 1.0).to_event(1), obs=x)


def unclear(x):
    z = pyro.sample(f"z{STEERS}", dist.Normal(0.0, 1.0))
    w = pyro.sample(f"w{STEERS}", dist.Normal(0.0, 1.0)) if z > 0 else z
    pyro.sample(f"x{STEERS}", dist.Normal(w, 1.0), obs=x)


def test_results_print_names_legibly():
    x = torch.randn(5, 2)
    guide = MeanField(model, x, hidden=2)
    told = [factorization(model, x), compare(model, guide, x), evaluate(model, guide, x, particles=2, progress=False)]
    for text in map(str, told):
        assert SHOWN in text and prints(text), text
    assert str(Factorization({"z\ud800": (), "a": ("z\ud800",)})) == "p(z\\ud800) p(a | z\\ud800)"
    assert str(Table({f"x{STEERS}": x}, f"a{STEERS}.npz")) == f"a{SHOWN}.npz: 5 of x{SHOWN} (2,)"
    assert prints(str(Evaluation(1.0, 2.0, 0.1, {f"z{STEERS}": 1.0}, None, 1, 1, [f"site z{STEERS} has no density"])))


@pytest.mark.parametrize("call", [factorization, Faithful])
def test_warnings_tell_names_legibly(call):
    with pytest.warns(UserWarning, match="as the model has the site") as caught:
        call(unclear, torch.randn(()))
    for each in caught:
        assert prints(str(each.message)), each.message


def test_a_warning_is_legible_and_names_the_line_of_its_caller():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn(f"a{STEERS} \ud800")
    assert [str(each.message) for each in caught] == [f"a{SHOWN} \\ud800"]
    assert caught[0].filename == __file__


def test_no_other_file_warns_in_words_of_its_own():
    for path in [*(ROOT / "ppl_models").rglob("*.py"), *(ROOT / "guides").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "warnings.warn":
                own = path.name == "legible.py" or path.match("parts/checks.py")  # which is below it, and names nothing
                assert own or "DeprecationWarning" in ast.unparse(node), path
