"""The benchmarks compare like with like: the codes by hand and in NumPyro are the same pairs, and the commands run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import (
    by_hand,
    cifar,
    claim,
    cost,
    evaluate as images,
    floor,
    neighbours,
    pairs,
    sampling,
    scaling,
    step,
    table,
)
from benchmarks.timing import in_turns, ratio
from benchmarks.workloads import WORKLOADS, ladder, sere_vae, vae
from guides import MeanField
from ppl_models import MAF, VAE, LinearGaussian, data
from ppl_models.data.transforms import Logit
from ppl_models.factorization import compare
from ppl_models.factorization.nats.gaussian import price
from ppl_models.inference import elbo, evaluate, terms
from ppl_models.runs.recipes.recipe import HOME
from tests.helpers.cases import few
from tests.helpers.collection import PAIRED

SMALL = {
    "vae": vae(latent=3, hidden=8, batch=5, pixels=12),
    "ladder": ladder(layers=3, latent=3, hidden=8, batch=5, pixels=12),
    "sere-vae": sere_vae(layers=3, latent=3, hidden=8, batch=5, pixels=13),
}


def built(name, dtype=torch.float64):
    """(workload, model, guide, x), away from the initial weights, many of which are zero."""
    workload = SMALL[name]
    model, guide, x = workload.build()
    with torch.no_grad():
        for p in [*model.parameters(), *guide.parameters()]:
            p.add_(0.2 * torch.randn_like(p))
    return workload, model.to(dtype), guide.to(dtype), x.to(dtype)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("analytic", [True, False])
def test_the_bound_by_hand_is_ours_draw_for_draw(name, analytic):
    workload, model, guide, x = built(name)
    bound = workload.hand(model, guide)
    torch.manual_seed(1)
    ours = elbo(terms(model, guide, (x,), analytic=analytic))
    torch.manual_seed(1)
    hand = bound(x, analytic=analytic).mean()
    assert hand.item() == pytest.approx(ours.item(), rel=1e-12)
    theirs = torch.autograd.grad(ours, list(bound.parameters()))
    for mine, other in zip(torch.autograd.grad(hand, list(bound.parameters())), theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", SMALL)
def test_by_hand_trains_every_parameter_of_the_pair(name):
    workload, model, guide, _ = built(name)
    mine = {id(p) for p in workload.hand(model, guide).parameters()}
    assert mine == {id(p) for p in [*model.parameters(), *guide.parameters()]}


@pytest.mark.parametrize("name", SMALL)
def test_importance_weights_by_hand_are_those_of_evaluate(name):
    workload, model, guide, x = built(name)
    torch.manual_seed(1)
    ours = terms(model, guide, (x,), particles=7, nesting=1).log_w
    torch.manual_seed(1)
    torch.testing.assert_close(workload.hand(model, guide)(x, 7, analytic=False), ours, rtol=1e-10, atol=1e-10)


def test_the_bound_of_the_loop_is_that_of_evaluate():
    workload, model, guide, x = built("vae")
    hand = images.by_hand(workload.hand(model, guide), x, particles=20_000, rows=40_000)
    found = evaluate(model, guide, x, particles=20_000, progress=False)
    # 20 repetitions of the loop spread by 0.010 nats, so the difference of two by 0.014: four of these
    assert hand == pytest.approx(found.nll, abs=0.06)


def test_a_divergence_by_hand_is_that_of_torch():
    m, s, loc, scale = torch.rand(4, 3, 2, dtype=torch.float64).add(0.1)
    q, p = torch.distributions.Normal(m, s), torch.distributions.Normal(loc, scale)
    torch.testing.assert_close(by_hand.kl_normal(m, s, loc, scale), torch.distributions.kl_divergence(q, p).sum(-1))


@pytest.mark.parametrize("name", few(SMALL, lambda name: name == "ladder"))
@pytest.mark.parametrize("reuse", [True, False])
def test_numpyro_has_the_pair_site_by_site(name, reuse):
    pytest.importorskip("jax")
    numpyro = pytest.importorskip("numpyro")
    import jax

    from benchmarks import by_numpyro

    _, model, guide, x = built(name, torch.float32)
    options = {"reuse": reuse} if name != "vae" else {}
    fitted, state, rows = by_numpyro.svi(model, guide, x, **options)
    params = fitted.get_params(state)
    run = numpyro.handlers.seed(numpyro.handlers.substitute(fitted.guide, params), jax.random.PRNGKey(0))
    q = numpyro.handlers.trace(run).get_trace(rows)
    replayed = numpyro.handlers.replay(numpyro.handlers.substitute(fitted.model, params), q)
    p = numpyro.handlers.trace(replayed).get_trace(rows)
    latents = [site for site in q if q[site]["type"] == "sample" and site != "data"]

    # the same noise in the code by hand: both draw m + s * noise, so the noise is (value - m) / s
    noise = [(q[s]["value"] - q[s]["fn"].base_dist.loc) / q[s]["fn"].base_dist.scale for s in latents]
    queue = [torch.tensor(jax.device_get(e).tolist()) for e in noise]
    bound = SMALL[name].hand(model, guide)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(by_hand.torch, "randn", lambda *args, **kwargs: queue.pop(0))
        hand = bound(x, analytic=False)
    log_w = sum(p[s]["fn"].log_prob(p[s]["value"]) for s in p if p[s]["type"] == "sample" and s != "data")
    log_w = log_w - sum(q[s]["fn"].log_prob(q[s]["value"]) for s in latents)
    torch.testing.assert_close(hand, torch.tensor(jax.device_get(log_w).tolist()), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", few(SMALL, lambda name: name == "ladder"))
def test_numpyro_trains_what_we_train_on_the_same_scale(name):
    pytest.importorskip("jax")
    pytest.importorskip("numpyro")
    import jax
    import jax.numpy as jnp

    from benchmarks import by_numpyro

    workload, model, guide, x = built(name, torch.float32)
    fitted, state, rows = by_numpyro.svi(model, guide, x)
    params = fitted.get_params(state)
    count = sum(p.numel() for p in {*model.parameters(), *guide.parameters()})
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count
    keys = jax.random.split(jax.random.PRNGKey(0), 500)
    losses = jax.jit(jax.vmap(lambda k: fitted.loss.loss(k, params, fitted.model, fitted.guide, rows)))(keys)
    bound = workload.hand(model, guide)
    with torch.no_grad():
        draws = -bound(x, 500).mean(1)
    error = (float(jnp.var(losses)) / 500 + draws.var().item() / 500) ** 0.5
    assert float(losses.mean()) == pytest.approx(draws.mean().item(), abs=4 * error)


def test_turns_and_ratios():
    calls = []
    times = in_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=3, warm=2)
    assert {name: len(t) for name, t in times.items()} == {"a": 3, "b": 3}
    assert calls.count("a") == calls.count("b") == 5
    assert ratio([2.0, 6.0, 30.0], [1.0, 2.0, 3.0]) == 3


def test_a_line_through_costs():
    exact = scaling.line([1, 2, 4], [3.0, 5.0, 9.0])
    assert (exact["intercept"], exact["slope"], exact["r2"]) == pytest.approx((1, 2, 1))
    assert scaling.line([1, 2, 3], [1.0, 2.0, 6.0])["worst"] == pytest.approx(0.5)


@pytest.mark.slow
def test_the_command_of_a_step(tmp_path):
    file = tmp_path / "step.json"
    names = ["hand-eager", "ours-eager", "pyro-svi", "hand-graphs"]
    given = ["--workload=toy", "--threads=1", "--rounds=1", "--steps=1", f"--json={file}"]
    command = [sys.executable, "-m", "benchmarks.step", *given, *(f"--variant={name}" for name in names)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ}).stdout
    found = json.loads(file.read_text())["step"]
    rows = found[0]["workloads"]["toy"]
    assert rows["hand-eager"]["ratio"] == 1
    assert rows["ours-eager"]["ms"] > 0 and rows["pyro-svi"]["setup_s"] > 0
    assert rows["hand-graphs"] == {"note": "CUDA graphs want a CUDA device"}
    assert "ours, eager" in printed and table.step_table(found[0]) in printed


@pytest.mark.slow
def test_numpyro_in_turns():
    pytest.importorskip("jax")
    pytest.importorskip("numpyro")
    rows = step.measure(SMALL["vae"], ["hand-eager", "numpyro-jit", "numpyro-scan"], rounds=1, steps=2)
    assert rows["numpyro-jit"]["ratio"] > 0 and rows["numpyro-scan"]["ratio"] > 0


@pytest.mark.slow
def test_the_command_of_pairs(tmp_path):
    """Every pair is one of the catalogue; one of them runs, in all variants that need no C++ compiler."""
    pytest.importorskip("numpyro")
    assert {*pairs.SIZES} == {*PAIRED}
    file = tmp_path / "pairs.json"
    given = ["--model=linear-gaussian", "--guide=mean-field", "--rounds=2", "--steps=2", f"--json={file}"]
    command = [sys.executable, "-m", "benchmarks.pairs", *given]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (found,) = json.loads(file.read_text())["pairs"]
    row = found["pairs"]["linear-gaussian"]["mean-field"]
    assert row.keys() == pairs.VARIANTS.keys() and row["numpyro-port"]["ms"] > 0 and row["ours-eager"]["ratio"] == 1
    assert table.pairs_table(found) in printed


def test_drawing_images():
    found = sampling.measure(images=2, rounds=1, hidden=4, depth=2)
    assert found["ratio"] > 1 and found["kept_s"] > 0  # 784 passes, against one and a few small products a pixel
    assert min(sampling.drawn(1, rows=3, chains=2, steps=2).values()) > 0
    assert sampling.options().parse_args(["--images", "3", "--threads", "all"]).threads == ["all"]


def test_curves_of_cifar(tmp_path, monkeypatch, capsys):
    """Trained to one epoch, then on to two; the file that has the first point gets the second alone."""
    made = data.Data(torch.arange(240).reshape(40, 6).to(torch.uint8), (6,), 256, Logit(256, 0.05, seed=42), "made")
    monkeypatch.setattr(cifar.data, "load", lambda *args, **options: (made,) * 3)
    monkeypatch.setattr(cifar, "pair", lambda name, x: (MAF(x.shape[1], 1, 8), None))
    monkeypatch.setattr(cifar, "STEPS", 2)
    monkeypatch.setitem(cifar.HOW, "batch_size", 10)
    files = [tmp_path / "one.json", tmp_path / "two.json"]
    cifar.curve("maf-cifar10", [1], 30, tmp_path, files[0])
    files[1].write_text(files[0].read_text())
    cifar.curve("maf-cifar10", [1, 2], 30, tmp_path, files[1])
    (one,), two = (json.loads(file.read_text())["points"] for file in files)
    assert one == two[0] and one["elbo"] != two[1]["elbo"] and two[1]["seconds"] > one["seconds"]
    values = np.load(tmp_path / "maf-cifar10-30-2.npy")
    assert two[1]["elbo"] == pytest.approx(values.mean()) and len(values) == 40
    capsys.readouterr()
    cifar.paired(["maf-cifar10", "maf-cifar10"], [1, 2], 30, tmp_path)
    assert capsys.readouterr().out.count("0.0 +- 0.0") == 2
    few = json.loads(files[1].read_text()) | {"images": 10}
    (tmp_path / "few.json").write_text(json.dumps(few))
    for shown in (files, [files[1], tmp_path / "few.json"]):
        cifar.plot(shown, tmp_path / "plot.png")
        assert (tmp_path / "plot.png").stat().st_size > 1000
    assert cifar.stopped(few)["validation"] == max(point["validation"] for point in few["points"])


PAGE = Path(__file__).parents[2] / "docs" / "collection.md"
QUICK = "IWAE and VHP, two layers", "DLGM", "BIVA"


@pytest.mark.parametrize("system", [s for s in claim.SYSTEMS if s.name in QUICK], ids=lambda s: s.name)
def test_rows_of_the_claim(system):
    assert f"{claim.row(system)}\n" in PAGE.read_text()


@pytest.mark.slow
def test_the_table_of_the_claim():
    assert f"{claim.table()}\n" in PAGE.read_text()


def test_the_twin_of_a_model_is_priced_as_its_inspection_is():
    """A chain of one value a site with the maps and noises of a twin: the report of the program names the same nats."""
    torch.manual_seed(0)
    model = LinearGaussian(event=2, latent=(2, 2))
    x = torch.randn(3, 2)
    report = compare(model, MeanField(model, x), x)
    joint = claim.twin(report.model, ("x",))
    size, blocks = claim.SIZE, joint.blocks
    with torch.no_grad():  # conditional by conditional, from the joint
        for child, parent in (("z2", "z1"), ("x", "z2")):
            above = [*blocks][: [*blocks].index(child)]
            places = joint.places(above)
            own = joint.places([child])
            gain = joint.covariance[own][:, places] @ np.linalg.inv(joint.covariance[places][:, places])
            model.weight[f"{child}_{parent}"].copy_(torch.tensor(gain[:, -size:]))
            noise = joint.covariance[own][:, own] - gain @ joint.covariance[places][:, own]
            model.log_scale[child].copy_(torch.tensor(np.log(np.diag(noise)) / 2))
        model.log_scale["z1"].copy_(torch.tensor(np.log(np.diag(joint.covariance)[:size]) / 2))
    found = compare(model, MeanField(model, x), x)
    assert found.gap.elbo == pytest.approx(price(joint, report.guide).elbo, abs=1e-4)


def test_short_trainings_are_compared_image_by_image(monkeypatch, capsys):
    kept = "VAE", "VHP, 8 inner draws", "two layers"
    monkeypatch.setattr(neighbours, "ROWS", {name: neighbours.ROWS[name] for name in kept})
    monkeypatch.setattr(neighbours, "AHEAD", (("two layers", "VAE"), ("VAE", "VAE")))
    found = neighbours.measured([0], steps=2, particles=3)
    gap, error = found["ahead"]["two layers | VAE"][0]
    assert gap == pytest.approx(found["rows"]["VAE"][0] - found["rows"]["two layers"][0], abs=1e-4) and error > 0
    assert found["ahead"]["VAE | VAE"] == [(0.0, 0.0)]
    assert f"| two layers | VAE | {gap:.2f} ± {error:.2f} |" in neighbours.table(found)
    capsys.readouterr()


def test_the_recorded_trainings_are_those_of_the_page():
    file = PAGE.parents[1] / "benchmarks" / "results" / "neighbours.json"
    recorded = json.loads(file.read_text())
    assert recorded["rows"].keys() == neighbours.ROWS.keys()
    assert neighbours.table(recorded) in (PAGE.parents[1] / "benchmarks" / "README.md").read_text()


def test_costs_are_scaled_to_a_thousand(monkeypatch):
    def tiny(x):
        model = VAE(784, 2, 4)
        return model, MeanField(model, x, hidden=4)

    monkeypatch.setitem(cost.SYSTEMS, "iaf", cost.System("tiny", tiny, samples=2, images=1))
    monkeypatch.setattr(cost, "PARTICLES", 3)
    monkeypatch.setattr(cost, "in_turns", lambda work, rounds, **how: {name: [2.0, 1.0, 9.0] for name in work})
    row = cost.measure("iaf", rounds=1, steps=4, compile=False)
    assert (row["samples_s"], row["bound_s"], row["step_ms"]) == (1000.0, 2000.0, 500.0)
    model, guide = tiny(torch.eye(3, 784))
    assert row["model_weights"] == sum(p.numel() for p in model.parameters())
    assert row["guide_weights"] == sum(p.numel() for p in guide.parameters()) and row["notes"] == []
    assert "| iaf | tiny | " in cost.table({"iaf": row}) and "exact" not in cost.table({"iaf": row})


@pytest.mark.parametrize("name", ["images-28", "cifar10"])
def test_the_recorded_costs_are_those_of_the_page(name):
    recorded = json.loads((HOME / "costs" / f"{name}.json").read_text())
    assert recorded["systems"].keys() <= cost.SYSTEMS.keys() and recorded["about"]["clock"] == "process time"
    assert cost.table(recorded["systems"]) in (PAGE.parents[1] / "benchmarks" / "README.md").read_text()


@pytest.mark.slow
def test_images_a_second():
    found = images.measure("toy", images=4, particles=6, rows=12, rounds=1, device="cpu", show=False)
    assert min(found["hand"], found["evaluate"], found["ratio"]) > 0
    # the toy at its start: no draw is 30 nats from the mean of about 590
    assert found["nll_hand"] == pytest.approx(found["nll_evaluate"], abs=30)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_command_of_memory(tmp_path):
    file = tmp_path / "memory.json"
    command = [sys.executable, "-m", "benchmarks.memory", "--workload=vae", "--variant=hand-eager", f"--json={file}"]
    subprocess.run(command, check=True, capture_output=True)
    row = json.loads(file.read_text())["memory"][0]["workloads"]["vae"]["hand-eager"]
    # at the least its weights, their gradients and two moments, in single precision
    model, guide, _ = WORKLOADS["vae"].build()
    assert row["step_mb"] > 4 * 4 * sum(p.numel() for p in {*model.parameters(), *guide.parameters()}) / 2**20


@pytest.mark.slow
def test_the_floor_of_a_step():
    """Products: one of the data and of each weight forward, two backward, but for the data, which have no gradient."""
    model, guide, x = WORKLOADS["vae"].build()
    weights = [p for module in (model, guide) for p in module.parameters() if p.dim() == 2]
    first = [p for p in weights if p.shape[1] == x.shape[1]]
    operations = 2 * len(x) * (3 * sum(p.numel() for p in weights) - sum(p.numel() for p in first))
    found = floor.floor(WORKLOADS["vae"])
    assert found["gflop"] == pytest.approx(operations / 1e9)
    assert found["ms"] == pytest.approx(1e3 * found["gflop"] / found["gflop_s"] + found["mb"] / found["gb_s"])


def test_scaling_and_its_plot(tmp_path):
    small = {"layers": 2, "latent": 2, "hidden": 8, "batch": 2}
    sweeps = {
        axis: scaling.sweep("ladder", axis, ["hand-eager", "ours-eager"], 1, 1, sizes, **small)
        for axis, sizes in {"layers": (1, 2, 3), "latents": (2, 3), "particles": (1, 2)}.items()
    }
    assert sweeps["layers"]["lines"]["ours-eager"]["r2"] <= 1
    found = {"about": {}, "families": {"ladder": sweeps}}
    scaling.plot(found, tmp_path / "scaling.png")
    assert (tmp_path / "scaling.png").stat().st_size > 1000
    assert "ms a layer" in table.scaling_table(found)


@pytest.mark.slow
def test_the_command_of_depth(tmp_path):
    pytest.importorskip("jax")
    file = tmp_path / "depth.json"
    command = [sys.executable, "-m", "benchmarks.depth", "--family=sequence", "--size=3", "--steps=1", f"--json={file}"]
    subprocess.run(command, check=True, capture_output=True)
    found = json.loads(file.read_text())["depth"][0]
    row = found["families"]["sequence"]["3"]
    assert row["operations"] > 100 and 0 < row["compile"] < row["setup"] and not row["notes"]
    assert "| sequence" in table.depth_table(found)


def test_every_workload_has_its_size():
    _, _, x = WORKLOADS["toy"].build()
    assert x.shape == (4, 784)
    assert {name: w.batch for name, w in WORKLOADS.items()} == {
        "sere-vae": 128,
        "ladder-32": 32,
        "ladder-256": 256,
        "vae": 128,
        "toy": 4,
    }
