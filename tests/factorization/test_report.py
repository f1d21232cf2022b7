"""What a report says: prices, pictures, pages and data, and what it tells of how programs were run."""

import json
import re
from functools import partial
from xml.etree import ElementTree

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from guides import BottomUp, Faithful, Ladder, MeanField
from ppl_models import DLGM, VAE, HierarchicalVAE, LinearGaussian
from ppl_models.factorization import Factorization, compare
from ppl_models.factorization.nats.gaussian import GaussianJoint, price


def twin(**options) -> LinearGaussian:
    return LinearGaussian(generator=torch.Generator().manual_seed(0), **options).requires_grad_(False)


def binary(rows: int = 3, columns: int = 4) -> torch.Tensor:
    return torch.rand(rows, columns, generator=torch.Generator().manual_seed(0)).round()


# Prices


def test_prices_are_those_of_the_reference():
    """Mean field on the chain of three: table 6.2, whose z3, z2, z1 are our z1, z2, z3."""
    model, x = twin(), torch.randn(3, 3)
    report = compare(model, MeanField(model, x, hidden=4), x)
    assert report.gap.per == "datum"
    assert report.gap.forward == pytest.approx(1.3314, abs=5e-5)
    assert report.gap.elbo == pytest.approx(1.2203, abs=5e-5)
    assert report.gap.elbo == pytest.approx(float(model.gap("mean-field", "full")), abs=1e-5)
    prices = {row.site: row.price for row in report.rows}
    assert prices["z1"] is None
    assert prices["z2"] == pytest.approx(1.163, abs=5e-4) and prices["z3"] == pytest.approx(0.169, abs=5e-4)
    assert report.rows[1].nats == {"z1": pytest.approx(prices["z2"])}


def test_prices_are_those_of_the_parameters_as_they_are():
    """Parameters are jittered for the structure, not for the price."""
    model, x = twin(), torch.randn(3, 3)
    guide = MeanField(model, x, hidden=4)
    priced = [compare(model, guide, x, jitter=jitter).gap.forward for jitter in (True, False)]
    assert priced[0] == pytest.approx(priced[1], abs=1e-9)


@pytest.mark.parametrize("order", ["top-down", "bottom-up", "min-fill"])
def test_faithful_structures_cost_nothing(order):
    model, x = twin(parents={"z2": ("z1",), "z3": ("z1",), "x": ("z2", "z3")}), torch.randn(3, 3)
    report = compare(model, Faithful(model, x, order=order, hidden=4), x)
    assert report.faithful and report.minimal
    assert abs(report.gap.forward) < 1e-12 and report.gap.elbo == 0


def test_a_fork_has_the_price_of_its_fill_in():
    """The fork of table 6.2 as a plain program: c given xc, b given xb, a given b and c loses 0.0185 nats."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    weight, scale = {}, {}
    for site, parents in {"a": "", "b": "a", "c": "a", "xb": "b", "xc": "c"}.items():
        if parents:
            weight[site] = 0.9 * torch.randn((), generator=generator, dtype=torch.double)
        scale[site] = (0.3 + torch.rand((), generator=generator, dtype=torch.double)).sqrt()

    def model(xb, xc):
        with pyro.plate("data", len(xb)):
            a = pyro.sample("a", dist.Normal(torch.zeros(()).double(), scale["a"]))
            b = pyro.sample("b", dist.Normal(weight["b"] * a, scale["b"]))
            c = pyro.sample("c", dist.Normal(weight["c"] * a, scale["c"]))
            pyro.sample("xb", dist.Normal(weight["xb"] * b, scale["xb"]), obs=xb)
            pyro.sample("xc", dist.Normal(weight["xc"] * c, scale["xc"]), obs=xc)

    def guide(xb, xc):
        with pyro.plate("data", len(xb)):
            c = pyro.sample("c", dist.Normal(xc, 1.0))
            b = pyro.sample("b", dist.Normal(xb, 1.0))
            pyro.sample("a", dist.Normal(b - c, 1.0))

    report = compare(model, guide, torch.randn(3), torch.randn(3))
    assert report.missing == {"b": ("c",)} or "c" in report.missing["b"]
    assert report.gap.forward == pytest.approx(0.0185, abs=5e-5)
    assert report.gap.elbo == pytest.approx(0.0185, abs=5e-5)


def test_other_models_have_no_price():
    model, x = HierarchicalVAE(event=4, latent=(2, 2), hidden=8, likelihood="gaussian:0.5"), torch.randn(3, 4)
    report = compare(model, MeanField(model, x, hidden=8), x)
    assert report.gap is None and all(row.price is None and not row.nats for row in report.rows)


def test_a_batch_is_priced_where_copies_touch():
    def model(x):
        theta = pyro.sample("theta", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(theta, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        pyro.sample("theta", dist.Normal(x.mean(), 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 1.0))

    report = compare(model, guide, torch.randn(3))
    assert report.missing == {"z": ("theta",)} and report.gap.per == "batch of 3"
    # precision of (theta, z1, z2, z3) given x; theta keeps its exact marginal, and each z its conditional given its own
    # x alone, whose variance is 2/3
    posterior = torch.eye(4) * 2
    posterior[0, 0], posterior[0, 1:], posterior[1:, 0] = 4.0, -1.0, -1.0
    joint = torch.linalg.inv(posterior)
    forward = 0.5 * (torch.log(joint[0, 0]) + 3 * torch.log(torch.tensor(2 / 3)) - torch.logdet(joint))
    assert report.gap.forward == pytest.approx(float(forward), abs=1e-5)


def emissions(x, apart):
    """z1 -> z2, x1 around z1, x2 around z2 and x1; as two sites, or one that is made step by step."""
    with pyro.plate("data", len(x)):
        z1 = pyro.sample("z1", dist.Normal(0.0, 1.0))
        z2 = pyro.sample("z2", dist.Normal(0.7 * z1, 0.6))
        loc = torch.stack([0.8 * z1, 0.9 * z2 + 0.6 * x[:, 0]], -1)
        if apart:
            pyro.sample("x1", dist.Normal(loc[..., 0], 0.5), obs=x[:, 0])
            pyro.sample("x2", dist.Normal(loc[..., 1], 0.4), obs=x[:, 1])
        else:
            pyro.sample("x", dist.Normal(loc, torch.tensor([0.5, 0.4])).to_event(1), obs=x)


def reading(x, read):
    with pyro.plate("data", len(x)):
        pyro.sample("z1", dist.Normal(read(x), 1.0)), pyro.sample("z2", dist.Normal(x.sum(-1), 1.0))


def priced_by_hand(have):
    """What a guide loses of the model of `emissions`, from its covariance."""
    weights = np.array([[0, 0, 0, 0], [0.7, 0, 0, 0], [0.8, 0, 0, 0], [0, 0.9, 0.6, 0]])
    root = np.linalg.inv(np.eye(4) - weights) @ np.diag([1.0, 0.6, 0.5, 0.4])
    blocks = {name: slice(i, i + 1) for i, name in enumerate(("z1", "z2", "x1", "x2"))}
    guide = Factorization({"z1": have, "z2": ("x1", "x2")}, given=("x1", "x2"), letter="q")
    return price(GaussianJoint(root @ root.T, blocks, ("x1", "x2")), guide)


def test_models_in_which_data_depend_on_data_are_priced():
    x = torch.randn(3, 2)
    for read, have in ((lambda x: x.sum(-1), ("x1", "x2")), (lambda x: x[:, 0], ("x1",))):
        report = compare(partial(emissions, apart=True), partial(reading, read=read), x)
        assert report.gap.forward == pytest.approx(priced_by_hand(have).forward, abs=1e-8)
        assert report.gap.elbo == pytest.approx(priced_by_hand(have).elbo, abs=1e-6)
    whole = compare(partial(emissions, apart=False), partial(reading, read=lambda x: x.sum(-1)), x)
    assert whole.gap.forward == pytest.approx(priced_by_hand(("x1", "x2")).forward, abs=1e-8)


def test_data_that_are_computed_and_read_again_have_no_price_and_a_word_on_it():
    guide = partial(reading, read=lambda x: x.sum(-1))
    report = compare(lambda x: emissions(2 * x, True), guide, torch.randn(3, 2))
    assert report.gap is None and any("no price in nats: data depend on data" in note for note in report.notes)


# Pictures, pages, data


def reports():
    model, x = DLGM(event=4, latent=(2, 2), hidden=8), binary()
    yield compare(model, MeanField(model, x, hidden=8), x)
    model = HierarchicalVAE(event=4, latent=(2, 2), hidden=8)
    yield compare(model, BottomUp(model, x, hidden=8, parents="all"), x)
    yield compare(model, Ladder(model, x, hidden=8), x, level="element")


@pytest.mark.parametrize("report", [*reports()], ids=lambda report: f"{report.verdict}, {report.level}")
def test_all_forms_say_the_same(report):
    data = json.loads(report.to_json())
    assert data["verdict"] == report.verdict and [row["site"] for row in data["rows"]] == [r.site for r in report.rows]
    assert Factorization.from_dict(data["model"]) == report.model
    assert Factorization.from_dict(data["guide"]) == report.guide
    root = ElementTree.fromstring(report.svg())
    edges = [e.attrib for e in root.iter() if e.get("data-style") and e.get("data-from")]
    for style, found in (("missing", report.missing), ("superfluous", report.superfluous)):
        drawn = {(e["data-from"], e["data-to"]) for e in edges if e["data-style"] == style}
        assert drawn == {(u, site) for site, names in found.items() for u in names}
    page = report.to_html()
    assert page.startswith("<!doctype html>") and report.svg().split("<title>")[0][:40] in page
    assert "http" not in re.sub(r'xmlns="[^"]*"', "", page)
    shown = report._repr_html_()
    assert "<svg" in shown and all(f"q({row.site}" in shown for row in report.rows)
    assert report.to_dot().count("subgraph") >= 3
    assert repr(report) == f"<Report: {report.verdict}>"


def test_missing_edges_are_red_and_dashed_and_plates_boxed():
    model, x = HierarchicalVAE(event=4, latent=(2, 2), hidden=8), binary()
    root = ElementTree.fromstring(compare(model, MeanField(model, x, hidden=8), x).svg())
    (missing,) = [e for e in root.iter() if e.get("data-style") == "missing"]
    inside = [e.attrib for e in missing.iter()]
    assert any("stroke-dasharray" in a for a in inside) and any("#c8141f" in a.get("stroke", "") for a in inside)
    assert [e.get("data-plate") for e in root.iter() if e.get("data-plate")].count("data") >= 3


# How the programs were run


def test_weights_that_are_zero_hide_an_edge_only_when_asked():
    """A decoder that ignores its code: what posterior collapse leaves of the structure."""
    model, x = VAE(event=4, latent=2, hidden=8), binary()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    guide = MeanField(model, x, hidden=8)
    assert compare(model, guide, x).minimal
    report = compare(model, guide, x, jitter=False)
    assert str(report.model) == "p(z1) p(x)" and report.superfluous == {"z1": ("x",)}
    assert any("inert" in note for note in report.notes)


def test_single_precision_where_double_fails():
    class Table:  # what it holds cannot be seen from outside
        __slots__ = ("weight",)

    table = Table()
    table.weight = torch.randn(2, 3)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ table.weight, 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x @ table.weight.mT, 1.0).to_event(1))

    report = compare(model, guide, torch.randn(3, 3))
    assert report.verdict == "faithful, minimal, perfect"
    assert any("single precision" in note for note in report.notes)
    assert table.weight.dtype == torch.float32


def test_batch_norm_in_training_mode_is_told():
    class Guide(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))

        def forward(self, x):
            with pyro.plate("data", len(x)):
                pyro.sample("z1", dist.Normal(self.net(x), 1.0).to_event(1))

    guide, model, x = Guide(), VAE(event=4, latent=2, hidden=8), binary()
    report = compare(model, guide, x)
    assert report.faithful and any("BatchNorm1d is in training mode" in note for note in report.notes)
    assert guide.training and int(guide.net[1].num_batches_tracked) == 0
    assert not any("training mode" in note for note in compare(model, guide.eval(), x).notes)


def test_one_row_leaves_plates_unchecked():
    model, x = VAE(event=4, latent=2, hidden=8), binary(1)
    report = compare(model, MeanField(model, x, hidden=8), x)
    assert report.faithful and any("one copy" in note for note in report.notes)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_programs_on_a_gpu():
    model, x = HierarchicalVAE(event=4, latent=(2, 2), hidden=8).cuda(), binary().cuda()
    state = torch.cuda.get_rng_state()
    report = compare(model, MeanField(model, x, hidden=8), x)
    assert report.missing == {"z2": ("z1",)}
    assert torch.equal(torch.cuda.get_rng_state(), state) and next(model.parameters()).is_cuda
