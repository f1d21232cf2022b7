"""What a shell offers when Tab is pressed: what there is, without an import of it."""

import os
import subprocess
import sys

import pytest

from ppl_models import data
from ppl_models.cli import completion
from ppl_models.runs.naming import names
from ppl_models.runs.recipes.recipe import recipe_names

OFFER = "import sys; from ppl_models.cli import app; sys.argv = ['ppl-models']\ntry:\n    app(prog_name='ppl-models')\n"
OFFER += "finally:\n    print(*(name for name in ('torch', 'jax', 'pyro', 'matplotlib') if name in sys.modules))"


def offers(line: str) -> list[str]:
    """What bash is offered for the last word of a line, by a process of its own."""
    words = line.split(" ")
    asked = {"_PPL_MODELS_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    ran = subprocess.run([sys.executable, "-c", OFFER], env={**os.environ, **asked}, capture_output=True, text=True)
    *found, loaded = ran.stdout.splitlines()
    assert loaded == "", loaded
    return found


def test_programs_data_and_recipes_are_those_that_there_are():
    assert [name for name, _ in completion.models("")] == sorted(names.catalogue("model"))
    assert [name for name, _ in completion.guides("")] == sorted(names.catalogue("guide"))
    assert [name for name, _ in completion.data("")] == [*data.names(), "folder:"]
    assert [name for name, _ in completion.recipes("")] == recipe_names()
    assert [name for name, _ in completion.models("sere")] == ["sere-maf", "sere-vae"]
    assert all(len(text) <= completion.WIDE and text for _, text in completion.listed("s"))


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("ppl-models train vae -g self", ["self-reflective"]),
        pytest.param("ppl-models train sere", ["sere-maf", "sere-vae"], marks=pytest.mark.slow),
        pytest.param("ppl-models evaluate run --data dig", ["digits"], marks=pytest.mark.slow),
        pytest.param("ppl-models train vae --objective geco", ["geco"], marks=pytest.mark.slow),
        pytest.param("ppl-models inspect vae mean", ["mean-field"], marks=pytest.mark.slow),
        pytest.param("ppl-models comp", ["compare-runs"], marks=pytest.mark.slow),
    ],
)
def test_a_shell_is_answered_without_torch_or_jax(line, found):
    assert offers(line) == found
