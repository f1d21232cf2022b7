"""The page of a run stands alone, shows what there is, says what it cannot, and fits the screen of a real browser."""

import json
import re
import shlex
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from ppl_models.cli import app
from ppl_models.runs import load_run
from ppl_models.runs.pages import draws
from ppl_models.runs.pages.html import STYLE, shown
from ppl_models.runs.pages.write import write_page
from tests.helpers.browser import CHROMIUM, measured
from tests.helpers.command_lines import RECIPE

SIZES = "-m hidden=3 -g hidden=3 --steps 6 --every 1 --batch-size 20 --no-compile --record-kl --evaluate 2 -q"
OPEN = "meta", "img", "br", "path", "use", "rect"  # without an end of their own
NAMES = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"  # which nothing fetches


def call(line: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, shlex.split(line))
    assert result.exit_code == code, result.output + repr(result.exception)
    return result


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A run of images, and rows for others."""
    home = tmp_path_factory.mktemp("runs")
    draw = np.random.default_rng(0)
    np.save(home / "images.npy", draw.random((80, 4, 4)) < 0.4)
    np.save(home / "rows.npy", draw.normal(size=(80, 5)).astype("f"))
    call(f"train dlgm -g bottom-up -m latent=(2,2) --data {home}/images.npy {SIZES} --out {home}/a --no-report")
    return home


@pytest.fixture
def runs(home, tmp_path, monkeypatch) -> Path:
    shutil.copytree(home, tmp_path / "runs")
    monkeypatch.chdir(tmp_path / "runs")
    return tmp_path / "runs"


@pytest.fixture
def strange(runs) -> Path:
    """A run of vectors, whose folder has a name that would be markup."""
    path = Path("<b>" + "long-" * 30 + "name")
    call(f"train vae -g mean-field -m latent=2 --data rows.npy {SIZES} --out '{path}' --no-report")
    return path


class Reader(HTMLParser):
    """Ids and texts of a page, whose tags end in the order in which they began."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.ids += [value for name, value in attrs if name == "id"]
        self.links += [value for name, value in attrs if name in ("src", "href", "xlink:href", "srcset", "data")]
        if tag not in OPEN:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in OPEN:
            self.open.pop()

    def handle_endtag(self, tag):
        assert tag in OPEN or self.open.pop() == tag


def alone(text: str) -> Reader:
    """The page as read, which is whole and asks for nothing outside of itself."""
    found = Reader(text)
    assert len(set(found.ids)) == len(found.ids)
    for link in found.links:
        assert link.startswith("data:image/png;base64,") or link.removeprefix("#") in found.ids, link[:80]
    assert set(re.findall(r"https?://[^\"'<\s]+", text)) <= {*NAMES}
    assert not {"script", "link", "iframe", "object", "b>"} & found.tags and "@import" not in text
    assert not re.search(r"url\((?!#)", text) and not re.search(r"\son[a-z]+=", text)
    return found


def test_the_page_of_a_run_has_all_that_there_is_and_stands_alone(runs):
    assert call("report a").stdout.strip() == "a/report.html"
    text = Path("a/report.html").read_text()
    alone(text)
    assert "Not drawn" not in text
    headings = re.findall(r"<h2>([^<]*)</h2>", text)
    assert headings[:4] == ["Learning curves", "Bounds", "Divergence of each layer", "Samples"]
    assert headings[4:] == [
        "Reconstructions",
        "Layer by layer",
        "Interpolations",
        "Traversals",
        "Structure",
        "Configuration",
    ]
    found, config = json.loads(Path("a/evaluation.json").read_text()), json.loads(Path("a/config.json").read_text())
    for number in (f"{found['elbo']:.4f}", f"{found['nll']:.4f}", *(f"{kl:.3f}" for kl in found["kl"].values())):
        assert f">{number}</td>" in text
    assert shown(config["command"]) in text and config["versions"]["torch"] in text
    for word in ("kept: z1", "z1, unit 0", "datum 1 to 5", "KL(q || p) (nats per datum)"):
        assert word in text, word
    assert text.count('<img src="data:image/png') == 1 + 2 + 4 + 4 + 4  # samples, pairs, layers, lines, units


@pytest.mark.slow
def test_vectors_are_curves_and_strange_names_are_text(strange):
    path = write_page([load_run(strange)])
    text = path.read_text()
    alone(text)
    assert write_page([load_run(strange)]).read_text() == text  # by the seed of the run
    assert "<b>long" not in text and "&lt;b&gt;long-" in text and "<img" not in text and "Not drawn" not in text
    assert "coordinate</text>" in text and "data units" in text and "-3 sd" in text


@pytest.mark.slow
def test_two_runs_stand_side_by_side_and_what_differs_is_marked(strange):
    told = call(f"report a '{strange}' --out both.html").stdout.strip()
    text = Path(told).read_text()
    alone(text)
    assert text.count('<div class="columns">') >= 7 and "compare-runs" in text
    rows = dict(re.findall(r'<tr class="differs"><th scope="row">([^<]*)</th><td>([^<]*)</td>', text))
    assert rows["name"] and "seed" not in rows and "beside" in text.partition("</title>")[0]
    default = write_page([load_run("a")] * 2)
    assert default == Path("a/report_a.html") and ">A</th>" in default.read_text()
    with pytest.raises(ValueError, match="report: found 3 runs, want one or two"):
        write_page([load_run("a")] * 3)


def test_what_cannot_be_drawn_is_told_and_the_rest_is_there(runs, monkeypatch):
    def broken(*args, **how):
        raise RuntimeError("no <such> luck")

    run = load_run("a")
    monkeypatch.setattr(draws, "strips", broken)
    Path("a/evaluation.json").write_text("{")
    Path("a/history.json").unlink()
    Path("images.npy").unlink()
    text = write_page([run]).read_text()
    alone(text)
    assert text.count("Not drawn: ") >= 5 and "no &lt;such&gt; luck" in text and "no evaluation yet" in text
    assert "images.npy" in text and "Structure" in text and "Configuration" in text
    hurried = write_page([replace(run)], patience=-1.0).read_text()
    assert hurried.count("`ppl-models report RUN` draws all of it") == 6


@pytest.mark.parametrize("command", ["report", "sample"])
def test_a_place_that_cannot_be_written_to_is_told_before_the_work(runs, tmp_path, monkeypatch, command):
    monkeypatch.setattr("ppl_models.runs.pages.subject.Subject.attempt", lambda *a, **k: pytest.fail("it was drawn"))
    monkeypatch.setattr("ppl_models.runs.pages.pictures.picture_samples", lambda *a, **k: pytest.fail("it was drawn"))
    for place, told in ((tmp_path / "no" / "x.html", "found no folder"), (tmp_path, "found a folder, want a file")):
        outcome = CliRunner().invoke(app, [command, "a", "--out", str(place)])
        assert outcome.exit_code == 1 and told in " ".join(outcome.output.split())


@pytest.mark.slow
def test_training_writes_the_page_unless_told_not_to(runs):
    pair = "train maf --transform none --data rows.npy -m hidden=3 -m steps=1 --steps 2 --evaluate 0 -q"
    assert "page own/report.html" in call(f"{pair} --out own --report").stdout
    text = Path("own/report.html").read_text()
    alone(text)
    assert "no latents" in text and "Not drawn" not in text.replace("Not drawn: no evaluation yet", "")
    assert "Traversals" not in text and "no evaluation yet" in text
    assert "page" not in call(f"{pair} --out other --no-report").stdout and not Path("other/report.html").exists()
    Path("mine.toml").write_text(RECIPE.replace("rows.npz", "rows.npy"))
    assert "page made/a/report.html" in call("recipe mine.toml --out made -q --report").stdout
    assert "page" not in call("recipe mine.toml --out made -q --report").stdout  # which is there


def test_the_ink_of_both_schemes_can_be_read():
    """Contrast of at least 4.5 to 1 (WCAG AA)."""
    for scheme in STYLE.split("@media")[:2]:
        color = dict(re.findall(r"--(\w+): (#\w{6})", scheme))
        for ink in ("ink", "soft", "mark"):
            for paper in ("paper", "card"):
                light, dark = sorted((luminance(color[ink]), luminance(color[paper])), reverse=True)
                assert (light + 0.05) / (dark + 0.05) >= 4.5, (ink, paper)


def luminance(color: str) -> float:
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_the_page_fits_every_screen(strange, tmp_path):
    one, other = load_run("a"), load_run(strange)
    backgrounds = set()
    for pages in ([one], [other], [one, other]):
        text = write_page(pages).read_text()
        for width in (360, 1440):
            for dark in (False, True):
                screen, wide, beyond, broken, is_dark, background = measured(text, width, dark, tmp_path)
                assert (screen, wide, beyond, broken, is_dark) == (width, width, 0, 0, dark)
                backgrounds.add((dark, background))
    assert backgrounds == {(False, "rgb(255,255,255)"), (True, "rgb(21,23,28)")}


@pytest.mark.slow
def test_the_page_of_a_numpyro_run(runs):
    pytest.importorskip("jax")
    pair = f"train dlgm -g bottom-up -m latent=(2,2) --data images.npy --backend numpyro {SIZES}"
    call(f"{pair.replace('--no-compile', '')} --out own --no-report")
    text = write_page([load_run("own")]).read_text()
    alone(text)
    assert "Not drawn" not in text and text.count("<img") == 15
