"""Long texts where a word is wanted: messages show their ends."""

import pytest

from ppl_models import data
from ppl_models.runs import Training
from ppl_models.runs.naming import names, trust
from ppl_models.runs.naming.objectives import objective_of
from ppl_models.runs.recipes.recipe import read_recipe

LONG = "x" * 10_000
CALLS = {
    "a data set": lambda: data.load(LONG),
    "a data set, described": lambda: data.describe(LONG),
    "a file": lambda: data.load(f"{LONG}.npy", size=3),
    "beta": lambda: Training(steps=1, beta=LONG),
    "an objective": lambda: Training(steps=1, objective=f"free bits, {LONG}"),
    "its option": lambda: objective_of(f"free-bits:{LONG}=1"),
    "what is none": lambda: objective_of(f"free-bits:{LONG}"),
    "a kernel": lambda: objective_of(f"info-vae:alpha=1,lambda=1,kernel={LONG}"),
    "a model": lambda: names.resolve("model", LONG),
    "a size": lambda: names.parse([f"{LONG}*=1"], "-m"),
    "trust": lambda: trust.allow([f"{LONG} "]),
    "a recipe": lambda: read_recipe(LONG),
}


@pytest.mark.parametrize("what", CALLS)
def test_a_message_shows_the_ends_of_a_long_text(what):
    with pytest.raises(ValueError, match=r"x \.\.\. x") as error:
        CALLS[what]()
    assert len(str(error.value)) < 700
