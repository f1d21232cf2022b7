"""Series in reports: what is alike is told once, and nothing that differs is told as alike."""

import re

import pytest

from ppl_models.factorization import Factorization
from ppl_models.factorization.report import Panel, svg
from ppl_models.factorization.report.report import Report, SiteFacts, SiteRow
from ppl_models.factorization.report.series import Alike, abridged, formula, listed, stretches
from ppl_models.factorization.verdict import judge


def chain(steps: int) -> Factorization:
    """z0 -> z1 -> ..., each with data, and a global g above all of them."""
    parents: dict[str, tuple[str, ...]] = {"g": ()}
    for t in range(steps):
        parents[f"z{t}"] = ("g", f"z{t - 1}") if t else ("g",)
        parents[f"y{t}"] = ("g", f"z{t}")
    return Factorization(parents, observed=tuple(f"y{t}" for t in range(steps)))


def report(model: Factorization, guide: Factorization) -> Report:
    """What `compare` would say, of the graphs alone."""
    verdict = judge(model, guide)
    rows = tuple(SiteRow(r.site, r.have, r.need, r.missing, r.superfluous, r.unsure) for r in verdict.rows)
    plates = {"data": tuple(name for name in model.parents if name != "g")}
    edges = tuple(model.posterior_graph().edges)
    facts = {name: SiteFacts("Normal", "", (2,), ("data",) if name != "g" else ()) for name in model.parents}
    return Report("site", verdict, rows, model, guide, edges, model.observed, plates, facts=facts)


def mean_field(model: Factorization) -> Factorization:
    return Factorization({z: model.observed for z in model.latents}, given=model.observed, letter="q")


def test_names_that_count_on_are_listed_as_one():
    assert listed([f"z{i}" for i in range(1, 21)]) == "z1..z20"
    assert listed([f"z{i}" for i in range(20, 0, -1)]) == "z20..z1"
    assert listed(["z1", "z2", "z3", "z4"]) == "z1, z2, z3, z4"
    assert listed(["z1", "z2", "z3", "z4", "z6", "z7"]) == "z1, z2, z3, z4, z6, z7"
    assert listed(["z1", "w2", "z3", "w4", "z5"]) == "z1, w2, z3, w4, z5"
    assert listed([f"z{i}[data']" for i in range(5)] + ["z5"]) == "z0[data']..z4[data'], z5"
    assert listed(["z", "z01", "z02", "z03", "z04", "z05"]) == "z, z01..z05"


def test_only_what_is_the_same_or_the_same_from_its_place_is_alike():
    def found(**related):
        return stretches({name: Alike((frozenset(names.split()),)) for name, names in related.items()})

    nine = [f"z{i}" for i in range(9)]
    assert found(**dict.fromkeys(nine, "g")) == [nine]
    assert found(**{z: f"z{i - 1}" if i else "" for i, z in enumerate(nine)}) == [nine[1:]]
    later = {z: " ".join(f"x{j}" for j in range(i, 9)) for i, z in enumerate(nine)}
    assert found(**later)[0][:-1] == nine[1:8] or found(**later)[0] == nine[1:8]
    assert found(**{z: "h" if z == "z6" else "g" for z in nine}) == [nine[:6]]
    assert found(**{z: f"x{(i * i) % 9}" for i, z in enumerate(nine)}) == []
    assert found(**{z: "g" for z in nine[:4]}) == []


def test_a_long_chain_reads_as_a_short_one():
    long, short = (report(chain(t), mean_field(chain(t))) for t in (20, 4))
    text = str(long)
    assert "z1..z19 each lack g, on which z1 depends by z1 - g" in text
    assert "z1 lacks z0, ..., z19 lacks z18, by paths as z1 - z0" in text
    assert "BAD  q(z1 | y0..y19) ... q(z19 | y0..y19)" in text
    assert "model  p(g) p(z0 | g) p(y0 | g, z0) p(z1 | g, z0) ... p(z19 | g, z18) p(y19 | g, z19)" in text
    assert len(text.splitlines()) < 20 and all(len(line) < 130 for line in text.splitlines())
    assert ".." not in str(short) and str(short).count("lacks g, on which it depends by") == 4
    assert "z1..z19 each lack g" in long.to_html() and "z1..z19" in long._repr_html_()
    assert "<code>g</code>" in long.to_html() and "<code>z0..z19, y0..y19</code>" in long.to_html()


def test_a_row_that_differs_is_told_by_itself():
    model = chain(20)
    parents = {z: model.observed for z in model.latents}
    guide = Factorization(parents | {"z9": ("g", "z8", *model.observed)}, given=model.observed, letter="q")
    text = str(report(model, guide))
    assert "z1..z8 each lack g" in text and "z10..z19 each lack g" in text
    assert re.search(r"more +q\(z9 \| g, z8, y0..y19\) +superfluous: y0..y8\n", text)


def test_formulas_leave_out_only_what_is_alike():
    assert formula(chain(4)) == str(chain(4))
    parents = {f"z{i}": (f"z{i - 1}",) if i else () for i in range(20)}
    assert formula(Factorization(parents)) == "p(z0) p(z1 | z0) ... p(z19 | z18)"
    odd = Factorization(parents | {"z10": ("z9", "z3")})
    assert formula(odd) == "p(z0) p(z1 | z0) ... p(z9 | z8) p(z10 | z9, z3) p(z11 | z10) ... p(z19 | z18)"


@pytest.mark.parametrize("steps", [3, 10, 20])
def test_pictures_of_chains_with_a_global_are_narrow(steps):
    text = report(chain(steps), mean_field(chain(steps))).svg()
    width, height = map(float, re.search(r'viewBox="0 0 (\S+) (\S+)"', text).groups())
    assert width < 1000 and height < 500
    drawn = re.findall(r'data-node="([^"]*)"', text)
    assert ("z1 \u2026 z18" in drawn) == (steps == 20) and ("z1 \u2026 z8" in drawn) == (steps == 10)


def test_a_node_for_many_has_the_edges_of_each():
    model, guide = chain(20), mean_field(chain(20))
    first, posterior, third = abridged(report(model, guide).panels())
    many, data = "z1 \u2026 z18", "y1 \u2026 y18"
    assert first.nodes == ("g", "z0", "y0", many, data, "z19", "y19") and posterior.nodes == ("g", "z0", many, "z19")
    latents = [("g", z, "plain") for z in ("z0", many, "z19")] + [("z0", many, "plain"), (many, "z19", "plain")]
    emitted = [(u, y, "plain") for z, y in (("z0", "y0"), (many, data), ("z19", "y19")) for u in ("g", z)]
    assert {*first.edges} == {*latents, *emitted}
    missing = {edge[:2] for edge in third.edges if edge[2] == "missing"}
    assert missing == {("g", "z0"), ("g", many), ("g", "z19"), ("z0", many), (many, "z19")}
    assert third.why["g", many].path == (many, "g") and third.why["g", many].text.endswith("; and so on")
    assert first.plates["data"] == first.nodes[1:] and data in first.observed


def test_what_is_not_alike_stays_apart():
    nodes = tuple(f"z{i}" for i in range(12))
    edges = tuple((nodes[i * i % i + (i - 1) // 2], nodes[i], "plain") for i in range(1, 12))  # a binary tree
    tree = Panel("model", "", nodes, edges)
    assert abridged([tree]) == (tree,)
    inner = Panel("model", "", nodes, tuple((u, v, "plain") for u, v in zip(nodes, nodes[1:], strict=False)))
    held = Panel("guide", "", nodes, inner.edges, plates={"odd": nodes[1::2]})
    assert [len(p.nodes) for p in abridged([inner])] == [3] and abridged([inner, held]) == (inner, held)
    assert svg(abridged([inner])).count('class="ppl-node"') == 3


def test_prices_of_many_are_a_range():
    nodes = ("g", *(f"z{i}" for i in range(8)))
    edges = tuple(("g", z, "missing") for z in nodes[1:])
    labels = {("g", z): f"0.{i}2 nats" for i, z in enumerate(nodes[1:])}
    (one,) = abridged([Panel("guide", "", nodes, edges, labels=labels)])
    assert one.nodes == ("g", "z0 \u2026 z7") and one.labels == {("g", "z0 \u2026 z7"): "0.02 to 0.72 nats"}
