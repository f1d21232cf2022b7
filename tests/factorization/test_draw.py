"""The pictures: nothing is lost, nothing overlaps, and what is wrong is red."""

import random
import re
from itertools import combinations
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings, strategies as st

from ppl_models.factorization.report import Panel, dot, graphviz, page, svg
from ppl_models.factorization.report.layout import around, place, plate_boxes
from ppl_models.factorization.report.marks import COLORS
from ppl_models.factorization.report.panel import Witness, node_width, text_width
from ppl_models.factorization.report.ways import from_node, meet, points, ways

NS = "{http://www.w3.org/2000/svg}"
NASTY = ('a<b&"c"', "日本語", "θ̂", "layers[0].weight", "back\\", "]]>", "nul\0", "new\nline", "'", "-->", "")


def legal(text):
    """A text without the characters that XML cannot hold, and with one kind of blank, as attributes are read."""
    return re.sub(r"\s", " ", re.sub("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text))


def panel(*edges, nodes=None, **more):
    edges = tuple((*e, "plain") if len(e) == 2 else e for e in edges)
    nodes = tuple(dict.fromkeys(n for e in edges for n in e[:2])) if nodes is None else nodes
    return Panel("model", "p(z) p(x | z)", nodes, edges, **more)


def chain(words):
    names = words.split()
    return list(zip(names, names[1:], strict=False))


def read(text):
    """For each panel of an SVG its groups: node names, edges, plate names."""
    root = ElementTree.fromstring(text)
    found = []
    for group in root.iter(f"{NS}g"):
        if group.get("class") == "ppl-panel":
            marks = [g for g in group.iter(f"{NS}g") if g.get("class") != "ppl-panel"]
            nodes = [g.get("data-node") for g in marks if g.get("class") == "ppl-node"]
            edges = [(g.get("data-from"), g.get("data-to"), g) for g in marks if g.get("class") == "ppl-edge"]
            plates = [g.get("data-plate") for g in marks if g.get("class") == "ppl-plate"]
            found.append((nodes, edges, plates))
    return found


def contains(outer, inner):
    return outer[0] < inner[0] and outer[1] < inner[1] and outer[2] > inner[2] and outer[3] > inner[3]


SERE = chain(" ".join(f"z{i}" for i in range(1, 11))) + chain(" ".join(f"x{i}" for i in range(1, 11)))
SERE += [(f"z{i}", f"x{i}") for i in range(1, 11)]
PICTURES = {
    "vae": panel(("z", "x"), observed=frozenset("x"), plates={"data": ("z", "x")}),
    "alone": panel(nodes=("z",)),
    "chain with skips": panel(
        *chain("z1 z2 z3 x"), ("z1", "x"), ("z1", "z3"), plates={"data": ("z1", "z2", "z3", "x")}
    ),
    "global": panel(("theta", "z"), ("z", "x"), ("theta", "x"), plates={"observations": ("z", "x")}),
    "nested": panel(
        *chain("doc_topics word_topic word"),
        ("topic_words", "word"),
        plates={
            "docs": ("doc_topics", "word_topic", "word"),
            "words": ("word_topic", "word"),
            "t": ("topic_words",),
        },
    ),
    "same members": panel(("z", "x"), plates={"outer": ("z", "x"), "inner": ("z", "x")}),
    "overlapping": panel(("u", "r"), ("i", "r"), ("b", "r"), plates={"users": ("u", "r"), "items": ("i", "r")}),
    "state space": panel(
        *chain("z1 z2 z3 z4"), *((f"z{t}", f"x{t}") for t in range(1, 5)), observed=frozenset(("x1", "x2", "x3", "x4"))
    ),
    "fork": panel(("a", "b"), ("a", "c"), ("b", "xb"), ("c", "xc"), observed=frozenset(("xb", "xc"))),
    "two plates": panel(
        ("w", "a"), ("w", "b"), ("a", "x"), ("b", "y"), ("v", "y"), plates={"left": ("a", "x"), "right": ("b", "y")}
    ),
    "sere": panel(*SERE, observed=frozenset(f"x{i}" for i in range(1, 11)), plates={"data": tuple(dict(SERE))}),
}


@pytest.mark.parametrize("picture", PICTURES)
def test_every_node_and_edge_is_there_once(picture):
    drawn = PICTURES[picture]
    ((nodes, edges, plates),) = read(svg([drawn]))
    assert nodes == [*drawn.nodes]
    assert sorted(e[:2] for e in edges) == sorted(e[:2] for e in drawn.edges)
    assert sorted(plates) == sorted(drawn.plates)


def check(drawn, places):
    """No two nodes overlap; plates hold their nodes alone; edges end at their nodes and pass all others."""
    at = places.at
    for u, v in combinations(drawn.nodes, 2):
        assert not meet(around(u, at[u]), around(v, at[v])), (u, v)
    held = {plate: set() for plate in drawn.held()}
    for plate, box in plate_boxes(drawn, places):
        for node in drawn.nodes:
            if contains(box, around(node, at[node])):
                held[plate].add(node)
            else:
                assert not meet(box, around(node, at[node])), (plate, node)
    assert held == {plate: set(members) for plate, members in drawn.held().items()}
    curves = ways(drawn.edges, {n: at[n] for n in drawn.nodes})
    assert {*curves} == {*drawn.edges}
    for (u, v, style), curve in curves.items():
        along = points(curve, 16)
        for end, node in ((along[0], u), (along[-1], v)):
            assert abs(from_node(end, at[node], node_width(node))) < 0.5, (u, v, style)
        for node in set(drawn.nodes) - {u, v}:
            assert all(from_node(p, at[node], node_width(node)) > 1 for p in along), (u, v, style, node)


@pytest.mark.parametrize("picture", PICTURES)
def test_nothing_overlaps_and_every_edge_passes_the_nodes_in_between(picture):
    check(PICTURES[picture], place([PICTURES[picture]]))


def random_panel(seed):
    """Up to a dozen nodes, named as sites are, with up to three plates that may nest or overlap."""
    draw = random.Random(seed)
    stems = ("z", "x", "w", "theta", "layers.0.weight", "u")
    names = tuple(f"{draw.choice(stems)}{i}" for i in range(draw.randint(2, 12)))
    share, styles = draw.choice((0.15, 0.3, 0.5)), ("plain", "plain", "missing", "superfluous")
    pairs = [(u, v) for i, v in enumerate(names) for u in names[:i] if draw.random() < share]
    edges = [(u, v, draw.choice(styles)) for u, v in pairs]
    edges += [(names[0], names[0], "missing")] if draw.random() < 0.3 else []
    plates = {f"{draw.choice(('data', 'words', 'documents of all years'))} {k}": tuple(
        n for n in names if draw.random() < 0.5) or names[:1] for k in range(draw.randint(0, 3))}  # fmt: skip
    labels = {e[:2]: draw.choice(("0.82 nats", "data'", "data', 12.07 nats")) for e in edges if draw.random() < 0.4}
    filled = frozenset(n for n in names if draw.random() < 0.3)
    return Panel("model", "", names, tuple(edges), True, filled, plates, labels)


def boxes_of_texts(text):
    """The nodes, the labels and the names of plates of the one panel of an SVG, in its own coordinates."""
    root, nodes, labels, names = ElementTree.fromstring(text), [], [], []
    for group in root.iter(f"{NS}g"):
        if group.get("class") == "ppl-node":
            x, y, w, h = (float(group.find(f"{NS}rect").get(key)) for key in ("x", "y", "width", "height"))
            nodes.append((x, y, x + w, y + h))
        if group.get("class") == "ppl-plate":
            name = group.find(f"{NS}text")
            x, y, width = float(name.get("x")), float(name.get("y")), text_width(name.text, 10)
            left = x - width if name.get("text-anchor") == "end" else x
            names.append((left, y - 8, left + width, y + 2))
    for label in root.iter(f"{NS}text"):
        if "ppl-label" in label.get("class", ""):
            x, y, half = float(label.get("x")), float(label.get("y")), text_width(label.text, 9.5) / 2
            labels.append((x - half, y - 8, x + half, y + 2))
    return nodes, labels, names


def over_random_graphs(seeds):
    labels = 0
    for seed in seeds:
        drawn = random_panel(seed)
        check(drawn, place([drawn]))
        nodes, found, names = boxes_of_texts(svg([drawn]))
        labels += len(found)
        texts = [*found, *names]
        assert not any(meet(text, other) for text in texts for other in nodes), seed
        assert not any(meet(a, b) for a, b in combinations(texts, 2)), seed
    return labels


def test_thirty_random_graphs():
    assert over_random_graphs(range(30)) > 80


@pytest.mark.slow
def test_two_hundred_random_graphs():
    assert over_random_graphs(range(200)) > 600


def test_edges_that_cannot_all_be_led_around_nodes_are_counted(monkeypatch):
    """On a chain a - ... - e, six edges would run through nodes."""
    monkeypatch.setattr("ppl_models.factorization.report.ways.MOST", 2)
    every = panel(*((u, v, "missing" if u + v == "ae" else "plain") for u, v in combinations("abcde", 2)))
    text = svg([panel(*chain("a b c d e")), every])
    found = [e[:2] for e in read(text)[1][1]]
    assert len(found) == 4 + 2 and ("a", "e") in found and "4 more edges are not drawn" in text


def test_a_nested_plate_lies_in_the_outer_one():
    drawn = PICTURES["nested"]
    boxes = dict(plate_boxes(drawn, place([drawn])))
    assert contains(boxes["docs"], boxes["words"])
    drawn = PICTURES["same members"]
    boxes = dict(plate_boxes(drawn, place([drawn])))
    assert contains(boxes["outer"], boxes["inner"])


def test_the_model_flows_down_and_a_state_space_is_a_ladder():
    at = place([PICTURES["fork"]]).at
    assert at["a"][1] < at["b"][1] == at["c"][1] < at["xb"][1] == at["xc"][1]
    assert at["b"][0] == at["xb"][0]
    at = place([PICTURES["state space"]]).at
    assert all(at[f"z{t}"][1] == at[f"x{t}"][1] and at[f"z{t}"][0] == at["z1"][0] < at[f"x{t}"][0] for t in range(1, 5))


def test_elements_lie_in_the_rows_of_their_sites():
    model = panel(("z1", "z2"), ("z2", "x"))
    guide = panel(("z1.0", "z1.1", "missing"), ("z2.0", "z2.1", "missing"), ("x.0", "z1.0"), ("x.0", "z2.0"))
    at = place([model, guide]).at
    assert at["z1.0"][1] == at["z1.1"][1] < at["z2.0"][1] == at["z2.1"][1]


def test_without_the_program_of_graphviz_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr(graphviz, "files", lambda name: [])
    monkeypatch.setattr(graphviz.shutil, "which", lambda name, path=None: None)
    monkeypatch.setattr(graphviz, "_program", graphviz._program.__wrapped__)
    with pytest.raises(RuntimeError, match="pip install graphviz-pure"):
        svg([panel(("z", "x"))])


def test_what_graphviz_says_of_its_failure_is_told():
    with pytest.raises(RuntimeError, match="graphviz-pure failed on 1 lines of DOT"):
        graphviz.arrange(["a ->"], "dot")


def test_panels_share_their_places():
    model = PICTURES["state space"]
    guide = panel(*((v, u, s) for u, v, s in model.edges), nodes=model.nodes[::-1], observed=model.observed)
    posterior = panel(*chain("z1 z2 z3 z4"), directed=False)
    assert place([model, posterior, guide]).at == place([model]).at
    found = read(svg([model, posterior, guide]))
    assert [len(nodes) for nodes, _, _ in found] == [8, 4, 8]


def test_kinds_of_edges_are_told_apart_by_dash_and_head_and_the_legend_says_so():
    drawn = panel(("a", "b", "missing"), ("a", "c", "superfluous"), ("b", "c"), labels={("a", "b"): "0.19 nats"})
    text = svg([drawn], title="a & b")
    ((_, edges, _),) = read(text)
    dashes = {e[:2]: e[2].find(f"{NS}path").get("stroke-dasharray") for e in edges}
    assert dashes == {("a", "b"): "6 3", ("a", "c"): "1.2 3.2", ("b", "c"): None}
    heads = {e[:2]: e[2].find(f"{NS}polygon").get("fill") for e in edges}
    hollow = {COLORS["paper"][0]}
    assert {ends for ends, fill in heads.items() if fill in hollow} == {("a", "c")}
    assert "0.19 nats" in text and "missing: " in text and "superfluous: " in text
    plain = svg([panel(("a", "b"))])
    assert "missing:" not in plain and "superfluous:" not in plain and "ppl-legend" not in plain


def luminance(color):
    """Of the sRGB color, WCAG 2.2."""
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a, b):
    dim, bright = sorted((luminance(a), luminance(b)))
    return (bright + 0.05) / (dim + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_contrast_is_that_of_wcag_aa(scheme):
    colors = {role: found[scheme] for role, found in COLORS.items()}
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    for role in ("ink", "soft", "missing", "superfluous"):  # texts
        assert contrast(colors[role], colors["paper"]) >= 4.5, role
    assert contrast(colors["ink"], colors["data"]) >= 4.5
    assert contrast(colors["border"], colors["paper"]) >= 3  # what is more than an ornament
    if scheme:
        assert contrast(colors["glow"], colors["paper"]) >= 3


def test_a_picture_answers_without_scripts_and_styles_nothing_but_itself():
    why = {("a", "b"): Witness(("b", "x", "a"), "b lacks a, on which it depends by b - x - a")}
    model = panel(("a", "x"), ("b", "x"), observed=frozenset("x"), about={"a": "Normal, shape (2,), in data"})
    guide = panel(("a", "b", "missing"), nodes=("a", "b", "x"), why=why, about={"a": "Normal & <more>"})
    text = svg([model, guide])
    root = ElementTree.fromstring(text)
    touched = [g for g in root.iter(f"{NS}g") if g.get("class") == "ppl-touch"]
    (edge,) = [g for g in touched if g.find(f"{NS}title").text == "missing: a \u2192 b"]
    assert edge.get("tabindex") == "0" and edge.find(f"{NS}desc").text == why["a", "b"].text
    shown = next(g for g in edge if g.get("class") == "ppl-shown")
    assert shown.get("visibility") == "hidden" and why["a", "b"].text in "".join(shown.itertext())
    lights = [e for e in shown.iter() if "ppl-s-glow" in e.get("class", "")]
    # Here a, b and their edge; in the model all of the path, which runs through the child of both.
    assert sorted(e.tag.removeprefix(NS) for e in lights) == ["path"] * 3 + ["rect"] * 5
    nodes = {g.find(f"{NS}title").text: g for g in touched if g is not edge}
    assert nodes["a"].find(f"{NS}desc").text == "Normal & <more>" and "x (observed)" in nodes
    assert nodes["x (observed)"].get("tabindex") is None
    assert not re.search(r"<script|\son[a-z]+=|javascript:|href|url\(|@import", text)
    (rules,) = [e.text for e in root.iter(f"{NS}style")]
    selectors = re.findall(r"[^{}]+(?=\{[^{}]*\})", rules)
    assert selectors and all(part.startswith(".ppl-") for s in selectors for part in s.split(","))
    assert set(re.findall(r"\bppl-[fs]-\w+", text)) <= {f"ppl-{k}-{role}" for k in "fs" for role in COLORS}


def test_undirected_edges_have_no_heads_and_take_labels_either_way():
    text = svg([panel(("a", "b"), directed=False, labels={("b", "a"): "note"})])
    assert "<polygon" not in text and "note" in text
    assert svg([panel(("a", "b"))]).count("<polygon") == 1


def test_a_loop_is_drawn():
    drawn = panel(("z", "x"), ("z", "z", "missing"), plates={"data": ("z", "x")}, labels={("z", "z"): "data'"})
    ((_, edges, _),) = read(svg([drawn]))
    assert ("z", "z") in [e[:2] for e in edges] and "data'" in svg([drawn])


def test_nasty_names_survive():
    names = tuple(NASTY)
    drawn = Panel('<"&', "p(]]>)", names, tuple((u, v, "plain") for u, v in zip(names, names[1:], strict=False)),
                  plates={'pl<a>"te': names[:3]}, labels={names[:2]: "<&>"})  # fmt: skip
    text = svg([drawn], title="<&")
    ((nodes, edges, plates),) = read(text)
    wanted = [name.replace("\0", "\ufffd") for name in names]
    assert nodes == wanted and len(edges) == len(names) - 1 and plates == ['pl<a>"te']
    assert all(e[0] in wanted and e[1] in wanted for e in edges)


def test_names_are_written_out_whole():
    long = "decoder.blocks.3.attention.output_projection.weight"
    root = ElementTree.fromstring(svg([panel(("z10", long))]))
    groups = {g.get("data-node"): g for g in root.iter(f"{NS}g") if g.get("class") == "ppl-node"}
    assert [*groups] == ["z10", long]
    assert all("".join(group.find(f"{NS}text").itertext()) == name for name, group in groups.items())
    assert [g.find(f"{NS}title").text for g in root.iter(f"{NS}g") if g.get("class") == "ppl-touch"] == ["z10", long]


def test_the_same_input_gives_the_same_string_and_no_ids():
    text = svg([PICTURES["nested"], PICTURES["sere"]])
    assert text == svg([PICTURES["nested"], PICTURES["sere"]])
    assert " id=" not in text and "http" not in text.replace(NS[1:-1], "")


def test_nothing_to_draw_is_no_error():
    assert read(svg([])) == []
    assert read(svg([Panel("empty", "", (), ())])) == [([], [], [])]
    assert dot([]).startswith("digraph")


def test_what_no_picture_can_show_is_refused():
    with pytest.raises(ValueError, match="'w'"):
        Panel("model", "", ("z",), (("z", "w", "plain"),))
    with pytest.raises(ValueError, match="'dotted'"):
        Panel("model", "", ("z",), (("z", "z", "dotted"),))
    with pytest.raises(ValueError, match="twice"):
        Panel("model", "", ("z", "z"), ())


def tokens(text):
    """DOT text as its quoted strings and its braces; fails where a quote is left open."""
    strings = re.findall(r'"((?:\\.|[^"\\])*)"', text, flags=re.DOTALL)
    rest = re.sub(r'"(?:\\.|[^"\\])*"', "", text, flags=re.DOTALL)
    assert '"' not in rest and rest.count("{") == rest.count("}") and rest.count("[") == rest.count("]")
    return strings


def test_dot_is_quoted_and_balanced():
    names = tuple(NASTY)
    edges = tuple((u, v, "missing") for u, v in zip(names, names[1:], strict=False))
    drawn = Panel('"', "{", names, edges, plates={"a": names[:3], "b": names[2:4], "a{": names[:2]})
    strings = tokens(dot([drawn, PICTURES["nested"]]))
    assert all(f"1/{node}" in strings and node in strings for node in PICTURES["nested"].nodes)
    assert '0/a<b&\\"c\\"' in strings and "0/back\\\\" in strings
    assert dot([drawn]).count('" -> "') == len(edges)
    assert [dot([panel(("a", "b"), directed=False)]).count(s) for s in ("dir=none", "cluster_0")] == [1, 1]


def test_the_page_stands_alone():
    text = page("<a & b>", svg([PICTURES["vae"]]), "<table><tr><td>q</td></tr></table>", "z < 1")
    assert text.startswith("<!doctype html>") and "&lt;a &amp; b&gt;" in text and "z &lt; 1" in text
    assert not re.search(r"<(script|link|img)|src=|href=|url\(", text)


@st.composite
def panels(draw):
    names = tuple(draw(st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=8, unique=True)))
    pairs = st.sampled_from([(u, v) for i, v in enumerate(names) for u in names[: i + 1]])
    styles = st.sampled_from(("plain", "plain", "missing", "superfluous"))
    edges = draw(st.dictionaries(pairs, styles, max_size=12))
    members = st.lists(st.sampled_from(names), min_size=1, unique=True).map(tuple)
    plates = draw(st.dictionaries(st.text(max_size=8), members, max_size=3))
    observed = draw(st.frozensets(st.sampled_from(names)))
    return Panel("model", "", names, tuple((*e, s) for e, s in edges.items()), draw(st.booleans()), observed, plates)


@settings(max_examples=15, deadline=None)
@given(panels())
def test_any_graph_with_any_plates(drawn):
    check(drawn, place([drawn]))
    text = svg([drawn, drawn])
    for nodes, edges, plates in read(text):
        assert (
            len(nodes) == len(drawn.nodes)
            and len(edges) == len(drawn.edges)
            and len({*plates}) == len({legal(p) for p in drawn.held()})
        )
    assert text == svg([drawn, drawn])
    tokens(dot([drawn]))
