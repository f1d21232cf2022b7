"""Trainings and evaluations in a notebook: one live output, a time left, curves and tables, names escaped."""

import re
from math import inf, nan

import numpy as np
import pytest

from ppl_models.inference import Evaluation, Run
from ppl_models.inference.display.figures import lines
from ppl_models.inference.display.progress import Bar, Progress


def run_of(n: int, **more: float) -> Run:
    return Run([{"step": i + 1, "loss": 9.0 - i, "negative_elbo": 8.0 - i, **more} for i in range(n)], seconds=1.25)


def test_a_run_shows_its_curve_and_its_end():
    run = run_of(6, valid=7.5)
    run.notes.append("of <b>stranger</b>")
    html = run._repr_html_()
    for word in ("6 steps; 1.2 s", "training bound 3.000 nats per datum", "validation bound 7.500", ">step</text>"):
        assert word in html
    assert "negative ELBO (nats per datum)" in html and "<svg" in html and "currentColor" in html
    assert "<b>" not in html and "of &lt;b&gt;stranger&lt;/b&gt;" in html
    assert (
        "loss" in html
        and "loss"
        not in Run(
            [{"step": 1, "loss": 2.0, "negative_elbo": 2.0}, {"step": 2, "loss": 1.0, "negative_elbo": 1.0}]
        )._repr_html_()
    )
    ends = "training bound 3.000 nats per datum; validation bound 7.500 nats per datum; loss 4.000 nats per datum"
    assert repr(run) == f"Run(6 steps; 1.2 s; {ends})"
    assert repr(Run(folder="a\x1b[1m")) == "Run(0.0 s; folder a\\x1b[1m)"
    assert "<svg" not in Run()._repr_html_() and "nan" not in run_of(5, valid=nan)._repr_html_()
    assert "<svg" in run_of(5, valid=inf)._repr_html_()


def test_an_evaluation_shows_as_a_table_what_it_prints():
    found = Evaluation(-1.5, 1.25, 0.125, {"<z>": 0.5}, 0.25, 10, 3, ["a & b"])
    html = found._repr_html_()
    for name, value, unit in found.rows():
        assert all(part.replace("<", "&lt;").replace(">", "&gt;") in html for part in (name, value, unit))
    assert "a &amp; b" in html and "<z>" not in html and html.count("<tr>") == len(found.rows())


def test_pictures_of_one_page_share_no_id_and_load_nothing():
    one, two = (lines({"a": ([0, 1], [0, k]), "b": ([0, 1], [1, 2])}, "step", "nats", title="t") for k in (1, 2))
    ids = [re.findall(r' id="([^"]+)"', text) for text in (one, two)]
    assert ids[0] and not set(ids[0]) & set(ids[1]) and len(set(ids[0])) == len(ids[0])
    used = set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', one))
    assert {name for pair in used for name in pair if name} == set(ids[0])
    links = set(re.findall(r"https?://[^\"' ]+", one))
    assert links == {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}  # names, which nothing fetches
    assert "<style" not in one and "<script" not in one


def test_names_of_curves_are_text():
    text = lines({"_<z>$x$": ([0, 1], [0, 1]), "b": ([0, 1], [1, 2])}, "x", "y", title="<t>")
    assert "_&lt;z&gt;$x$" in text and "<title>&lt;t&gt;</title>" in text
    many = lines({f"kl {i}": ([0, 1], [i, i]) for i in range(30)}, "x", "y", title="many", whole=True)
    assert "kl 0<" in many and "kl 29<" in many and many.count("kl ") == 8


@pytest.fixture
def shown(monkeypatch):
    """What a notebook is shown, as (place, text, HTML)."""
    import IPython.display
    import rich.console

    found: list[tuple[int, str, str]] = []

    class Handle:
        def __init__(self, place: int) -> None:
            self.place = place

        def update(self, bundle, raw):
            assert raw
            found.append((self.place, bundle["text/plain"], bundle["text/html"]))

    def display(bundle, raw, display_id):
        handle = Handle(len({place for place, _, _ in found}))
        handle.update(bundle, raw)
        return handle

    monkeypatch.setattr(rich.console, "_is_jupyter", lambda: True)
    monkeypatch.setattr(IPython.display, "display", display)
    return found


def test_a_notebook_has_one_live_bar_without_nan(shown):
    with Progress(4, names=("loss", "<bound>")) as bar:
        bar.advance(1, 2.0, 1.0)
        bar.shown = -1.0  # a tenth of a second later
        bar.advance(2, 1.5, 0.5)
        bar.shown = -1.0
        bar.advance(4, 1.0, 0.25)
    assert {place for place, _, _ in shown} == {0} and len(shown) == 4
    texts = [text for _, text, _ in shown]
    assert texts[0] == "0/4  -:--:-- left" and texts[1].startswith("1/4  loss 2.00  <bound> 1.00")
    assert "nan" not in "".join(texts) and texts[-1].startswith("4/4  loss 1.00") and "left" not in texts[-1]
    assert all("&lt;bound&gt;" in html for _, _, html in shown[1:]) and 'value="0.5000"' in shown[2][2]


def test_work_of_which_a_part_is_done_has_a_bar_there(shown):
    with Bar("information") as bar:
        bar.advance(0.25)
        bar.advance(1.0)
    assert [text.split("  ")[0] for _, text, _ in shown] == ["information"] * 2
    with Bar("information", enabled=False) as bar:
        bar.advance(0.5)
    with Progress(3, enabled=False) as quiet:
        quiet.advance(3, 1.0, 1.0)
    assert len(shown) == 2


def test_a_terminal_shows_no_number_before_the_first():
    from rich.console import Console

    bar = Progress(3, enabled=False)
    console = Console(width=200)
    with console.capture() as capture:
        console.print(bar.bar.make_tasks_table(bar.bar.tasks))
    assert "nan" not in capture.get() and "0/3" in capture.get()


@pytest.mark.slow
def test_a_training_in_a_real_notebook():
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    source = """
import torch
from guides import MeanField
from ppl_models import VAE
from ppl_models.inference import evaluate, fit
torch.manual_seed(0)
x = torch.rand(50, 4).round()
model = VAE(4, 2, hidden=4)
guide = MeanField(model, x[:3], hidden=4)
run = fit(model, guide, x, steps=60)
"""
    book = nbformat.v4.new_notebook()
    book.cells = [nbformat.v4.new_code_cell(text) for text in (source, "run", "evaluate(model, guide, x, particles=2)")]
    nbclient.NotebookClient(book, timeout=300, kernel_name="python3").execute()
    (bar,) = [out for out in book.cells[0].outputs if out.output_type == "display_data"]
    assert bar.data["text/plain"].startswith("60/60  loss ") and "nan" not in bar.data["text/html"]
    printed = [out.text for out in book.cells[0].outputs if out.output_type == "stream"]
    assert not any("step " in text or "loss" in text for text in printed)  # tqdm, which Pyro imports, may want widgets
    assert "<svg" in book.cells[1].outputs[0].data["text/html"]
    assert "<table>" in book.cells[2].outputs[-1].data["text/html"]
    assert np.isfinite(float(book.cells[2].outputs[-1].data["text/html"].split("</td>")[0].rpartition(">")[2]))
