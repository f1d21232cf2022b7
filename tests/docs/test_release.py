"""One version everywhere; workflows, issue templates and the citation are what their readers want."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
TEMPLATES = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("[!c]*.yml"))
TARGETS = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M)


def read(path: Path) -> dict:
    return yaml.safe_load(path.read_text())


def test_the_citation_is_of_this_version_and_license():
    citation = read(ROOT / "CITATION.cff")
    assert citation["version"] == PROJECT["version"] and citation["license"] == PROJECT["license"]
    assert citation.keys() >= {"cff-version", "message", "title", "authors"}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_runs_what_there_is(path):
    jobs = read(path)["jobs"]
    runs = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert all(target in TARGETS for run in runs for target in re.findall(r"^make (\w+)", run, re.M))
    extras = {extra for run in runs for each in re.findall(r"\.\[([\w,]+)\]", run) for extra in each.split(",")}
    assert extras <= {*PROJECT["optional-dependencies"]}
    assert not re.search(r"https?://", path.read_text())  # where packages come from is the machine's business


def test_tests_run_on_every_supported_python():
    matrix = read(ROOT / ".github/workflows/tests.yml")["jobs"]["newest"]["strategy"]["matrix"]
    assert matrix["python"][0] == PROJECT["requires-python"].removeprefix(">=")
    assert matrix["python"] == ["3.11", "3.12", "3.13"]


@pytest.mark.parametrize(
    "path", sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("[!c]*.yml")), ids=lambda path: path.stem
)
def test_an_issue_template_asks(path):
    template = read(path)
    assert template.keys() >= {"name", "description", "body"}
    assert all(field["attributes"]["label"] for field in template["body"])
