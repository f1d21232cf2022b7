"""The graph primitives against networkx's d-separation, on thousands of random graphs."""

import json
from functools import cache
from itertools import combinations, permutations
from math import sqrt
from random import Random

import networkx as nx
import pytest

from ppl_models.factorization import Factorization, Row, Verdict, judge
from ppl_models.factorization.graph import ORDERS
from tests.helpers.cases import few

CHAIN = Factorization({"z1": (), "z2": ("z1",), "z3": ("z2",), "x": ("z3",)}, observed=("x",))
FORK = Factorization({"a": (), "b": ("a",), "c": ("a",), "xb": ("b",), "xc": ("c",)}, observed=("xb", "xc"))
COLLIDER = Factorization({"a": (), "b": (), "x": ("a", "b")}, observed=("x",))
SQUARE = Factorization(
    {**{f"z{i}": () for i in range(4)}, **{f"x{i}": (f"z{i}", f"z{(i + 1) % 4}") for i in range(4)}},
    observed=("x0", "x1", "x2", "x3"),
)
BARREN = Factorization(
    {"a": (), "b": (), "c": ("a", "b"), "xa": ("a",), "xb": ("b",)}, observed=("xa", "xb")
)  # c is barren: a and b are independent given the data


def random_model(rng: Random, latents=(3, 6), observed=(1, 3)) -> Factorization:
    """Latents, then data that read latents only; every admissible edge with probability 0.4."""
    z = [f"z{i}" for i in range(rng.randint(*latents))]
    x = [f"x{i}" for i in range(rng.randint(*observed))]
    parents = {u: tuple(v for v in z[:i] if rng.random() < 0.4) for i, u in enumerate(z)}
    parents |= {u: tuple(v for v in z if rng.random() < 0.4) for u in x}
    return Factorization(parents, observed=tuple(x))


@cache
def models(count: int, seed: int = 0, latents=(3, 6)) -> tuple[Factorization, ...]:
    """The same random models in every test that asks for them."""
    rng = Random(seed)
    return tuple(random_model(rng, latents) for _ in range(count))


def tangled(rng: Random) -> Factorization:
    """As `random_model`, but data lie anywhere in the order, and latents may read data and covariates."""
    parents: dict[str, tuple[str, ...]] = {}
    names = [f"z{i}" for i in range(rng.randint(2, 4))] + [f"x{i}" for i in range(rng.randint(1, 3))]
    rng.shuffle(names)
    for name in names:
        parents[name] = tuple(u for u in ("c", *parents) if rng.random() < 0.4)
    return Factorization(parents, observed=tuple(n for n in names if n[0] == "x"), given=("c",))


def separated(model: Factorization, a: str, b: set[str], given: set[str]) -> bool:
    """networkx's word: a and b are independent given the rest, in every p that factorizes like the model."""
    return nx.is_d_separator(model.graph(), {a}, b, given) if b else True


def random_question(rng: Random, model: Factorization) -> tuple[str, list[str]]:
    """A latent, and some other latents that come before it in some guide."""
    site, *others = rng.sample(model.latents, len(model.latents))
    return site, others[: rng.randint(0, len(others))]


def moral_ancestors(model: Factorization, names: set[str]) -> nx.Graph:
    """The moral graph of the ancestors of `names`, written out by hand."""
    kept = set(names)
    while any(set(model.parents.get(n, ())) - kept for n in kept):
        kept |= {p for n in kept for p in model.parents.get(n, ())}
    moral = nx.Graph()
    moral.add_nodes_from(kept)
    for node in kept:
        moral.add_edges_from(combinations((node, *model.parents.get(node, ())), 2))
    return moral


def is_i_map(model: Factorization, guide: Factorization, constant: bool = False) -> bool:
    """The ordered local Markov property, row by row, by networkx."""
    before, data = set(), {*model.observed, *model.given}
    for site, have in guide.items():
        known = {*have, *data} if constant else set(have)
        if not separated(model, site, (before | data) - known, known):
            return False
        before.add(site)
    return True


def no_edge_can_go(model: Factorization, guide: Factorization) -> bool:
    """Whether the guide ceases to be an I-map whichever edge is dropped."""
    for site, have in guide.items():
        for parent in have:
            fewer = {**guide.parents, site: tuple(u for u in have if u != parent)}
            if is_i_map(model, Factorization(fewer, given=guide.given, letter="q")):
                return False
    return True


# Parent sets


@pytest.mark.parametrize("seed", range(3))
def test_needed_parents_separate_and_none_of_them_can_be_dropped(seed):
    rng = Random(seed)
    for model in models(700, seed):
        site, given = random_question(rng, model)
        need, conditioned = set(model.needed_parents(site, given)), {*given, *model.observed}
        assert need <= conditioned
        assert separated(model, site, conditioned - need, need)
        for member in need:
            assert not separated(model, site, conditioned - need | {member}, need - {member})


def test_needed_parents_are_the_only_smallest_set():
    rng = Random(5)
    for model in models(250, 5, latents=(3, 4)):
        site, given = random_question(rng, model)
        conditioned = {*given, *model.observed}
        need = set(model.needed_parents(site, given))
        for size in range(len(conditioned) + 1):
            for chosen in map(set, combinations(sorted(conditioned), size)):
                assert separated(model, site, conditioned - chosen, chosen) == (need <= chosen)


def test_needed_parents_where_latents_read_data_and_covariates():
    rng = Random(6)
    for _ in range(1000):
        model = tangled(rng)
        site, given = random_question(rng, model)
        conditioned = {*given, *model.observed, "c"}
        need = {u for u in conditioned if not separated(model, site, {u}, conditioned - {u})}
        assert set(model.needed_parents(site, given)) == need


def test_needed_parents_come_in_the_order_of_the_model_then_the_data():
    model = Factorization(
        {"a": ("w",), "b": ("a",), "c": ("a", "b"), "y": ("c", "a"), "x": ("c", "w")}, ("x", "y"), ("w",)
    )
    assert model.needed_parents("c", given=("b", "a")) == ("a", "b", "x", "y", "w")


@pytest.mark.parametrize("seed", range(2))
def test_a_witness_is_a_path_that_nothing_conditioned_on_interrupts(seed):
    rng = Random(seed)
    for model in models(700, seed):
        site, given = random_question(rng, model)
        conditioned = {*given, *model.observed}
        moral = moral_ancestors(model, conditioned | {site})
        found = model.witnesses(site, given)
        assert tuple(found) == model.needed_parents(site, given)
        for parent, path in found.items():
            assert path[0] == site and path[-1] == parent
            assert nx.is_simple_path(moral, path)
            assert not conditioned & set(path[:-1])
            free = moral.subgraph(moral.nodes - (conditioned - {parent}))
            assert len(path) - 1 == nx.shortest_path_length(free, site, parent)


# The posterior's own graph


def test_posterior_graph_has_an_edge_where_two_depend_given_the_rest():
    for model in models(500, 7):
        graph = model.posterior_graph()
        assert tuple(graph) == model.latents
        for u, v in combinations(model.latents, 2):
            rest = {*model.latents, *model.observed} - {u, v}
            assert graph.has_edge(u, v) == (not separated(model, u, {v}, rest))


def test_posterior_graph_of_some_latents_sums_out_the_others():
    rng = Random(8)
    for model in models(500, 8):
        kept = rng.sample(model.latents, rng.randint(1, len(model.latents)))
        graph = model.posterior_graph(kept)
        assert list(graph) == [z for z in model.latents if z in kept]
        for u, v in combinations(kept, 2):
            assert graph.has_edge(u, v) == (not separated(model, u, {v}, {*kept, *model.observed} - {u, v}))


def test_barren_latents_are_those_the_data_say_nothing_about():
    for model in models(500, 9):
        barren = model.barren()
        for z in model.latents:
            informed = any(not separated(model, z, {x}, set(model.parents[z])) for x in model.observed)
            assert (z in barren) == (not informed)


# Faithful inverses


@pytest.mark.parametrize("order", ORDERS)
def test_a_faithful_inverse_is_faithful_and_minimal(order):
    for model in models(350, 10):
        guide = model.faithful_inverse(order)
        verdict = judge(model, guide)
        assert verdict.faithful and verdict.minimal
        assert all(row.have == row.need and not row.missing and not row.superfluous for row in verdict.rows)
        assert is_i_map(model, guide) and no_edge_can_go(model, guide)


def test_a_faithful_inverse_of_any_order_is_faithful_and_minimal():
    rng = Random(11)
    for model in models(350, 11):
        guide = model.faithful_inverse(order := rng.sample(model.latents, len(model.latents)))
        assert list(guide.parents) == order
        verdict = judge(model, guide)
        assert verdict.faithful and verdict.minimal
        assert is_i_map(model, guide) and no_edge_can_go(model, guide)


def test_a_faithful_inverse_where_latents_read_data_and_covariates():
    rng = Random(12)
    for _ in range(250):
        model = tangled(rng)
        for order in ORDERS:
            guide = model.faithful_inverse(order)
            assert judge(model, guide).minimal
            assert is_i_map(model, guide) and no_edge_can_go(model, guide)


def test_barren_latents_come_last_with_their_prior():
    seen = 0
    for model in models(500, 13):
        barren = model.barren()
        seen += bool(barren)
        for order in ORDERS:
            guide = model.faithful_inverse(order)
            assert tuple(guide.parents)[len(guide.parents) - len(barren) :] == barren
            assert all(set(guide.parents[z]) == set(model.parents[z]) for z in barren)
    assert seen > 100


def test_the_orders_of_a_faithful_inverse():
    assert str(CHAIN.faithful_inverse()) == "q(z1 | x) q(z2 | z1, x) q(z3 | z2, x)"
    assert str(CHAIN.faithful_inverse("bottom-up")) == "q(z3 | x) q(z2 | z3) q(z1 | z2)"
    assert str(FORK.faithful_inverse("bottom-up")) == "q(c | xb, xc) q(b | c, xb) q(a | b, c)"
    assert str(CHAIN.faithful_inverse(("z2", "z3", "z1"))) == "q(z2 | x) q(z3 | z2, x) q(z1 | z2)"
    for model in models(200, 14):
        informed = [z for z in model.latents if z not in model.barren()]
        assert list(model.faithful_inverse("top-down").parents)[: len(informed)] == informed
        assert list(model.faithful_inverse("bottom-up").parents)[: len(informed)] == informed[::-1]


def without_barren(seed: int) -> list[Factorization]:
    """Random models of 3 to 5 latents, all informed by the data; the non-chordal ones are sought out."""
    informed = [m for m in models(3000, seed, latents=(3, 5)) if not m.barren()]
    square = [m for m in informed if not nx.is_chordal(m.posterior_graph())]
    assert len(square) > 5
    return [SQUARE, *square[:6], *informed[:100]]


def test_some_order_is_perfect_just_when_the_posterior_graph_is_chordal():
    for model in without_barren(15):
        orders = permutations(model.latents)
        perfect = any(judge(model, model.faithful_inverse(order)).perfect for order in orders)
        assert perfect == nx.is_chordal(model.posterior_graph())


def test_min_fill_finds_a_perfect_order_wherever_there_is_one():
    for model in [*without_barren(16), *(m for m in models(800, 17) if not m.barren())]:
        verdict = judge(model, model.faithful_inverse("min-fill"))
        assert verdict.perfect == nx.is_chordal(model.posterior_graph())


def asserts_every_independence(model: Factorization, guide: Factorization) -> bool:
    """Whether the guide asserts all that the posterior has, given the data: every pair, given any set of latents."""
    data, dag = set(model.observed), guide.graph()
    for u, v in combinations(guide.parents, 2):
        rest = [z for z in guide.parents if z not in (u, v)]
        for size in range(len(rest) + 1):
            for given in map(set, combinations(rest, size)):
                if separated(model, u, {v}, given | data) and not nx.is_d_separator(dag, {u}, {v}, given | data):
                    return False
    return True


@pytest.mark.parametrize("pruned", [True, False], ids=["informed", "with barren latents"])
def test_perfect_means_that_every_independence_is_asserted(pruned):
    rng, seen = Random(18), {True: 0, False: 0}
    for model in models(800, 18, latents=(3, 4)):
        if pruned and model.barren():
            continue
        guide = model.faithful_inverse(rng.sample(model.latents, len(model.latents)))
        perfect = asserts_every_independence(model, guide)
        assert judge(model, guide).perfect == perfect, (str(model), str(guide))
        seen[perfect] += 1
    assert min(seen.values()) > 10


def test_an_edge_between_latents_that_can_go_is_an_independence_not_asserted():
    guide = Factorization({"a": ("xa",), "b": ("a", "xb"), "c": ("a", "b")}, given=("xa", "xb"), letter="q")
    verdict = judge(BARREN, guide)
    assert (verdict.faithful, verdict.minimal, verdict.perfect) == (True, False, False)
    assert verdict.rows[1].superfluous == ("a",)


# Rules that are in use


def moral_edges(model: Factorization) -> set[frozenset[str]]:
    return {frozenset(pair) for site, parents in model.items() for pair in combinations((site, *parents), 2)}


def pyro_rule(model: Factorization) -> Factorization:
    """`posterior_dependencies` of pyro.infer.inspect: moral edges, against the order of the model, no fill-in."""
    z, edges = model.latents, moral_edges(model)
    parents = {u: tuple(v for v in z[i + 1 :] if {u, v} in edges) for i, u in reversed([*enumerate(z)])}
    return Factorization(parents, given=model.observed, letter="q")


def pyro_rule_with_data(model: Factorization) -> Factorization:
    """The same with its data edges taken at their word: each latent reads the data that are its children."""
    parents = {u: (*p, *(x for x in model.observed if u in model.parents[x])) for u, p in pyro_rule(model).items()}
    return Factorization(parents, given=model.observed, letter="q")


def autostructured_rule(model: Factorization) -> Factorization:
    """AutoStructured by default: the moral edges in the order of the model."""
    z, edges = model.latents, moral_edges(model)
    parents = {u: tuple(v for v in z[:i] if {u, v} in edges) for i, u in enumerate(z)}
    return Factorization(parents, given=model.observed, letter="q")


def asvi_rule(model: Factorization) -> Factorization:
    """ASVI: the edges of the prior."""
    return Factorization({z: model.parents[z] for z in model.latents}, given=model.observed, letter="q")


@pytest.mark.parametrize(
    ("rule", "constant", "hits", "tries"),
    [
        (pyro_rule, True, 1086, 2000),
        (pyro_rule_with_data, False, 430, 2000),
        (autostructured_rule, True, 1546, 2000),
        (asvi_rule, True, 887, 3000),
    ],
)
@pytest.mark.parametrize("count", few([300, 1500], lambda count: count == 300))
def test_how_often_rules_in_use_are_faithful(rule, constant, hits, tries, count):
    # shared/reference/factorization.md, its own graphs: two samples of n and m graphs, 4 standard errors apart at most
    # (a share of p has the standard error sqrt(p (1 - p) / n): 0.011 at p = 0.54, n = 2000)
    sample = models(count, 20)
    found = 0
    for model in sample:
        guide = rule(model)
        fixed = dict.fromkeys(model.latents, model.observed) if constant else None
        faithful = judge(model, guide, fixed).faithful
        assert faithful == is_i_map(model, guide, constant)
        found += faithful
    p = hits / tries
    error = sqrt(p * (1 - p) * (1 / tries + 1 / len(sample)))
    assert abs(found / len(sample) - p) < 4 * error


def test_asvi_is_faithful_where_no_parents_are_unmarried():
    for model in models(1000, 21):
        informed = set().union(*(nx.ancestors(model.graph(), x) for x in model.observed)) | {*model.observed}
        married = all(
            u in model.parents[v] or v in model.parents[u]
            for site in informed
            for u, v in combinations(model.parents[site], 2)
        )
        fixed = dict.fromkeys(model.latents, model.observed)
        assert judge(model, asvi_rule(model), fixed).faithful == married


def test_asking_pyro_gives_the_rule_of_pyro():
    pyro = pytest.importorskip("pyro")
    from pyro.infer.inspect import get_dependencies

    for model in models(40, 22, latents=(3, 4)):

        def program(model=model):
            values = {}
            for site, parents in model.items():
                obs = pyro.distributions.torch.Normal(0.0, 1.0).sample() if site in model.observed else None
                loc = sum((values[u] for u in parents), 0.0)
                values[site] = pyro.sample(site, pyro.distributions.Normal(loc, 1.0), obs=obs)

        found = get_dependencies(program)["posterior_dependencies"]
        rule = pyro_rule_with_data(model)
        assert {u: set(found[u]) - {u} for u in found} == {u: set(p) for u, p in rule.items()}


# Verdicts


def random_guide(rng: Random, model: Factorization) -> Factorization:
    """Any order, any edges: a reader of data and of latents before it."""
    order = rng.sample(model.latents, len(model.latents))
    parents = {z: tuple(u for u in (*order[:i], *model.observed) if rng.random() < 0.6) for i, z in enumerate(order)}
    return Factorization(parents, given=model.observed, letter="q")


@pytest.mark.parametrize("count", few([300, 1000], lambda count: count == 300))
def test_missing_and_superfluous_are_those_of_brute_force(count):
    rng, seen = Random(23), {True: 0, False: 0}
    for model in models(count, 23):
        guide = random_guide(rng, model)
        verdict = judge(model, guide)
        before: set[str] = set()
        for row in verdict.rows:
            known = before | set(model.observed)
            need = {u for u in known if not separated(model, row.site, {u}, known - {u})}
            assert set(row.need) == need and row.have == guide.parents[row.site]
            assert set(row.missing) == need - set(row.have)
            for u, path in row.missing.items():
                assert path[0] == row.site and path[-1] == u and not known & set(path[:-1])
            others = {u: set(row.have) - {u} for u in row.have}
            assert set(row.superfluous) == {u for u in row.have if separated(model, row.site, {u}, others[u])}
            if not row.missing:
                assert set(row.superfluous) == set(row.have) - need
            before.add(row.site)
        assert verdict.faithful == is_i_map(model, guide)
        assert verdict.minimal == (verdict.faithful and not any(row.superfluous for row in verdict.rows))
        assert verdict.faithful or not verdict.perfect
        seen[verdict.faithful] += 1
    assert min(seen.values()) > 10


def test_data_that_are_constants_are_neither_missing_nor_needed():
    rng = Random(24)
    for model in models(700, 24):
        guide = random_guide(rng, model)
        fixed = dict.fromkeys(rng.sample(model.latents, 2), model.observed)
        verdict = judge(model, guide, fixed)
        for row, plain in zip(verdict.rows, judge(model, guide).rows, strict=True):
            constant = set(fixed.get(row.site, ()))
            assert set(row.missing) == set(plain.missing) - constant
            assert set(row.need) == {u for u in plain.need if u not in constant or u in row.have}
            for u in row.have:
                alone = separated(model, row.site, {u}, ({*row.have} | constant) - {u})
                assert (u in row.superfluous) == alone


def test_what_is_missing_is_needed():
    model = Factorization({"z": ("c",), "x": ("z",)}, observed=("x",), given=("c",))
    (row,) = judge(model, Factorization({"z": ("x",)}, given=("x", "c"), letter="q")).rows
    assert set(row.missing) == set(row.need) - set(row.have)
    rng = Random(25)
    for _ in range(500):
        model = tangled(rng)
        data = (*model.observed, "c")
        parents = {z: tuple(u for u in data if rng.random() < 0.5) for z in model.latents}
        for row in judge(model, Factorization(parents, given=data, letter="q")).rows:
            assert set(row.missing) == set(row.need) - set(row.have)


def test_latents_that_the_guide_lacks_are_summed_out():
    rng = Random(26)
    for model in models(700, 26):
        kept = rng.sample(model.latents, rng.randint(1, len(model.latents) - 1))
        guide = Factorization({z: model.observed for z in kept}, given=model.observed, letter="q")
        verdict = judge(model, guide)
        assert verdict.faithful == (not model.posterior_graph(kept).edges)
        assert all(set(row.need) <= {*kept, *model.observed} for row in verdict.rows)
        assert verdict.faithful == is_i_map(model, guide)


G_PLUS = Factorization(
    {
        **{"e1": (), "z1": ("e1",), "e2": (), "z2": ("e2", "z1"), "e3": (), "z3": ("e3", "z2")},
        **{"x1": ("z1",), "x2": ("z2", "x1"), "x3": ("z3", "x2")},
    },
    observed=("x1", "x2", "x3"),
)
DETERMINED = {"z1": ("e1",), "z2": ("e2",), "z3": ("e3",)}
DATA = ("x1", "x2", "x3")


def with_states(reads: dict[str, tuple[str, ...]]) -> Factorization:
    """A guide of e1..e3 that also has the deterministic z1..z3 as nodes."""
    parents: dict[str, tuple[str, ...]] = {}
    for layer in (1, 2, 3):
        parents[f"e{layer}"] = reads[f"e{layer}"]
        parents[f"z{layer}"] = G_PLUS.parents[f"z{layer}"]
    return Factorization(parents, given=DATA, letter="q")


def test_deterministic_sites_are_nodes_but_have_no_row():
    verdict = judge(G_PLUS, with_states({"e1": DATA, "e2": ("z1", *DATA), "e3": ("z2", *DATA)}), None, DETERMINED)
    assert [row.site for row in verdict.rows] == ["e1", "e2", "e3"]
    assert verdict.faithful and not verdict.minimal
    assert verdict.rows[2].superfluous == ("x1",)


def test_deterministic_sites_do_not_hide_what_is_missing():
    skip = Factorization({**G_PLUS.parents, "x3": ("z3", "x2", "z1")}, observed=DATA)
    reflective = with_states({"e1": DATA, "e2": ("z1", *DATA), "e3": ("z2", *DATA)})
    verdict = judge(skip, reflective, None, DETERMINED)
    assert {row.site: row.missing for row in verdict.rows if row.missing} == {"e3": {"z1": ("e3", "z3", "z1")}}
    mean_field = judge(G_PLUS, with_states(dict.fromkeys(("e1", "e2", "e3"), DATA)), None, DETERMINED)
    assert {row.site: set(row.missing) for row in mean_field.rows if row.missing} == {"e2": {"z1"}, "e3": {"z2"}}


def test_what_is_determined_by_what_is_read_is_not_missing():
    composed = with_states({"e1": DATA, "e2": ("e1", *DATA), "e3": ("e1", "e2", *DATA)})
    assert judge(G_PLUS, composed, None, DETERMINED).faithful
    # w reads e, which z and u give away if z is bijective in e; without that, e is missing
    model = Factorization({"u": (), "e": (), "z": ("e", "u"), "v": ("e",), "x": ("z", "v", "u")}, observed=("x",))
    parents = {"u": ("x",), "e": ("u", "x"), "z": ("e", "u"), "v": ("z", "u", "x")}
    guide = Factorization(parents, given=("x",), letter="q")
    assert judge(model, guide, None, {"z": ("e",)}).faithful
    assert set(judge(model, guide, None, {"z": ()}).rows[-1].missing) == {"e"}


def test_verdicts_on_small_models():
    bottom_up = CHAIN.faithful_inverse("bottom-up")
    assert judge(CHAIN, bottom_up).perfect
    mean_field = Factorization({z: ("x",) for z in CHAIN.latents}, given=("x",), letter="q")
    rows = {row.site: row for row in judge(CHAIN, mean_field).rows}
    assert {s: row.missing for s, row in rows.items() if row.missing} == {
        "z2": {"z1": ("z2", "z1")},
        "z3": {"z2": ("z3", "z2")},
    }
    assert not any(row.superfluous for row in rows.values())  # x stands in for what is missing
    crossed = Factorization({"a": ("x",), "b": ("x",)}, given=("x",), letter="q")
    assert judge(COLLIDER, crossed).rows[1] == Row("b", ("x",), ("a", "x"), {"a": ("b", "a")}, ())
    loose = Factorization({"c": ("xc",), "b": ("xb",), "a": ("b", "c")}, given=("xb", "xc"), letter="q")
    verdict = judge(FORK, loose)
    assert (verdict.faithful, verdict.minimal, verdict.perfect) == (False, False, False)
    assert {row.site: set(row.missing) for row in verdict.rows} == {"c": {"xb"}, "b": {"c"}, "a": set()}
    assert judge(FORK, FORK.faithful_inverse("top-down")).perfect
    assert isinstance(verdict, Verdict)


# The object itself


def test_printing():
    assert str(CHAIN) == "p(z1) p(z2 | z1) p(z3 | z2) p(x | z3)"
    assert str(Factorization({"z1": ("x",), "z2": ("z1", "x")}, given=("x",), letter="q")) == "q(z1 | x) q(z2 | z1, x)"
    assert str(Factorization({})) == ""


def test_equality_is_of_content_not_of_order():
    a = Factorization({"a": (), "b": (), "x": ("a", "b")}, ("x",))
    b = Factorization({"b": [], "a": [], "x": ["b", "a", "b"]}, ["x", "x"])
    assert a == b and hash(a) == hash(b) and len({a, b}) == 1
    assert b.parents["x"] == ("b", "a") and b.observed == ("x",)
    others = [
        Factorization({"a": (), "b": ("a",), "x": ("a", "b")}, ("x",)),
        Factorization({"a": (), "b": (), "x": ("a", "b")}),
        Factorization({"a": (), "b": (), "x": ("a", "b")}, ("x",), ("c",)),
        Factorization({"a": (), "b": (), "x": ("a", "b")}, ("x",), letter="q"),
        "p(a) p(b) p(x | a, b)",
    ]
    assert all(a != other for other in others)


def test_dicts_and_json_give_the_same_back():
    for model in models(50, 27):
        for f in (model, model.faithful_inverse("min-fill")):
            again = Factorization.from_dict(json.loads(json.dumps(f.to_dict())))
            assert again == f and hash(again) == hash(f) and str(again) == str(f)
            assert again.latents == f.latents and again.observed == f.observed and again.given == f.given
    assert Factorization.from_dict({"parents": {"z": []}}) == Factorization({"z": ()})


def test_the_graph_has_parents_to_children_and_what_is_given_as_roots():
    f = Factorization({"z": ("c",), "x": ("z",)}, ("x",), ("c", "d"))
    assert set(f.graph().edges) == {("c", "z"), ("z", "x")} and set(f.graph()) == {"c", "d", "z", "x"}
    assert f.latents == ("z",) and dict(f.items()) == f.parents


def test_nothing_given_is_changed():
    parents, observed = {"a": ["c"], "x": ["a"]}, ["x"]
    f = Factorization(parents, observed, ["c"])
    f.faithful_inverse("min-fill"), f.posterior_graph(), f.needed_parents("a", ())
    assert parents == {"a": ["c"], "x": ["a"]} and observed == ["x"]
    parents["b"] = []
    assert list(f.parents) == ["a", "x"]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Factorization({"a": (), "z1": "a"}), ("parents of 'z1'", "'a'", "tuple")),
        (lambda: Factorization({"x": ()}, observed="x"), ("observed", "'x'", "('x',)")),
        (lambda: Factorization({"z": ()}, given="x"), ("given", "'x'", "('x',)")),
        (lambda: Factorization({"z": ("y",)}), ("'z'", "'y'", "not drawn before")),
        (lambda: Factorization({"z": ("z",)}), ("'z'", "not drawn before")),
        (lambda: Factorization({"a": ("b",), "b": ()}), ("'a'", "'b'", "not drawn before")),
        (lambda: Factorization({"z": (), "x": ()}, given=("x",)), ("'x'", "given and drawn")),
        (lambda: Factorization({"z": ()}, observed=("x",)), ("'x'", "'z'")),
        (lambda: Factorization.from_dict({"observed": []}), ("'observed'", "want", "parents")),
        (lambda: Factorization.from_dict({"parents": {}, "edges": []}), ("'edges'", "want", "parents")),
        (lambda: Factorization.from_dict([("z", ())]), ("want", "parents")),
        (lambda: CHAIN.posterior_graph(("z1", "x")), ("'x'", "no latent", "z1, z2, z3")),
        (lambda: CHAIN.needed_parents("z9", ()), ("'z9'", "no site")),
        (lambda: CHAIN.needed_parents("z1", ("y",)), ("'y'", "no site")),
        (lambda: CHAIN.witnesses("z1", ("y",)), ("'y'", "no site")),
        (lambda: CHAIN.faithful_inverse("sideways"), ("'sideways'", *ORDERS)),
        (lambda: CHAIN.faithful_inverse(("z1", "z2")), ("['z1', 'z2']", "z1, z2, z3")),
        (lambda: CHAIN.faithful_inverse(("z1", "z2", "z2", "z3")), ("each latent once",)),
        (lambda: CHAIN.faithful_inverse(("z1", "z2", "x")), ("each latent once",)),
        (lambda: judge(CHAIN, Factorization({"w": ()}, letter="q")), ("'w'", "lacks", "z1, z2, z3")),
        (lambda: judge(CHAIN, Factorization({"z1": ("y",)}, given=("y",))), ("'y'", "lacks")),
    ],
)
def test_errors_name_what_was_found(make, words):
    with pytest.raises(ValueError) as error:
        make()
    for word in words:
        assert word in str(error.value)
