"""Modules behind functions, handlers and methods: found, trained, kept and put in modes as modules themselves are."""

from collections.abc import Callable
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import config_enumerate
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule, PyroParam
from torch import Tensor, nn

from guides import BottomUp, MeanField
from ppl_models import VAE
from ppl_models.inference import contents, evaluate, fit, load, save, terms, training_step
from ppl_models.inference.pyro.training.checkpoint import read
from ppl_models.inference.storage import checkpoint_file
from ppl_models.programs.state.torch import modules_of


def rows(n: int = 12) -> Tensor:
    return (torch.rand(n, 4, generator=torch.Generator().manual_seed(1)) < 0.5).float()


class Plain(nn.Module):
    """A module of torch's, with a parameter of its own, dropout and running statistics, that no Pyro store knows."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.drop, self.net = nn.BatchNorm1d(2), nn.Dropout(0.5), nn.Linear(2, 4)
        self.shift = nn.Parameter(torch.zeros(4))
        self.modes: set[bool] = set()

    def forward(self, x: Tensor) -> None:
        self.modes.add(self.training)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            logits = self.net(self.drop(self.norm(z))) + self.shift
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)

    def other(self, x: Tensor) -> None:
        """The same by another method."""
        self.forward(x)


class Stored(PyroModule):
    def __init__(self) -> None:
        super().__init__()
        self.net, self.scale = PyroModule[nn.Linear](2, 4), PyroParam(torch.ones(()), dist.constraints.positive)

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), self.scale).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.net(z)).to_event(1), obs=x)


class Caller:
    """What calls a module and is none."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, x: Tensor) -> None:
        self.module(x)


def named(module: nn.Module):
    def program(x: Tensor) -> None:
        return module.forward(x)

    return program


MODULES = {"collection": lambda: VAE(event=4, latent=2, hidden=3), "plain": Plain, "PyroModule": Stored}
WRAPPERS = {
    "lambda": lambda m: lambda x: m(x),
    "function": named,
    "partial": partial,
    "method": lambda m: m.forward,
    "object": Caller,
    "scale": lambda m: poutine.scale(m, scale=1.0),
    "mask": lambda m: poutine.mask(m, mask=True),
    "enumerate": config_enumerate,
    "twice": lambda m: partial(poutine.scale(named(m), scale=1.0)),
}


def trained(kind: str, wrap, **how) -> tuple[nn.Module, nn.Module, object, list]:
    pyro.clear_param_store()
    torch.manual_seed(0)
    module, x = MODULES[kind](), rows()
    program = wrap(module)
    guide = MeanField(program, x, hidden=3)
    run = fit(program, guide, x, steps=3, batch_size=6, lr=1e-2, compile=False, seed=0, progress=False, **how)
    return module, guide, program, [run.history[-1]["loss"], run.notes]


@pytest.mark.parametrize("kind", MODULES)
def test_a_wrapped_module_is_trained_as_the_module_itself(kind):
    want, of_guide, _, told = trained(kind, lambda m: m)
    for wrap in WRAPPERS.values():
        found, guide, program, heard = trained(kind, wrap)
        assert heard == told
        for one, other in ((want, found), (of_guide, guide)):
            for (name, a), b in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
                torch.testing.assert_close(a, b, msg=name, rtol=0, atol=0)
        assert all(m.training for m in modules_of(program))


@pytest.mark.parametrize("kind", MODULES)
def test_checkpoints_of_wrapped_modules_hold_them_under_the_names_of_the_unwrapped(kind, tmp_path):
    module, guide, _, _ = trained(kind, lambda m: m, folder=tmp_path / "itself")
    for i, wrap in enumerate((WRAPPERS["lambda"], WRAPPERS["method"])):
        folder = tmp_path / f"wrapped{i}"
        other, other_guide, program, _ = trained(kind, wrap, folder=folder)
        files = [read(path / "checkpoint.safetensors") for path in (folder, tmp_path / "itself")]
        assert files[0].weights.keys() == files[1].weights.keys()
        assert files[0].training.keys() == files[1].training.keys()
        with torch.no_grad():
            for p in (*other.parameters(), *other_guide.parameters()):
                p.zero_()
        load(tmp_path / "itself" / "checkpoint.safetensors", contents(program, other_guide, (rows(),)))
        for one, again in ((module, other), (guide, other_guide)):
            for a, b in zip(one.state_dict().values(), again.state_dict().values(), strict=True):
                assert torch.equal(a, b)


def as_before_format_3(path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a checkpoint the names that a wrapped `Stored` had then, those of Pyro's store."""
    found = read(path)

    def renamed(tensors):
        return {
            name.replace("model.", "params.").replace("_unconstrained", ""): value for name, value in tensors.items()
        }

    named: dict[str, dict[str, Tensor]] = {}
    for name, value in renamed(found.weights).items():
        label, _, rest = name.partition(".")
        named.setdefault(label, {})[rest] = value
    path.unlink()
    with monkeypatch.context() as then:
        then.setattr(checkpoint_file, "FORMAT", checkpoint_file.EARLIER)
        save(path, named, renamed(found.training), found.about)


def test_a_wrapped_training_of_before_format_3_goes_on(tmp_path, monkeypatch):
    """A PyroModule behind a function was kept under the names of Pyro's store; the end is that of one run."""

    def run(steps: int, folder, resume: bool = False):
        pyro.clear_param_store()
        torch.manual_seed(0)
        module = Stored()
        program = WRAPPERS["lambda"](module)
        guide = MeanField(program, rows(), hidden=3)
        how = {"batch_size": 6, "every": 1, "seed": 0, "progress": False, "compile": False, "schedule": "constant"}
        fit(program, guide, rows(), steps=steps, folder=folder, resume=resume, **how)
        return module

    run(2, tmp_path / "old")
    as_before_format_3(tmp_path / "old" / "checkpoint.safetensors", monkeypatch)
    assert "params.scale" in read(tmp_path / "old" / "checkpoint.safetensors").weights
    resumed, whole = run(4, tmp_path / "old", resume=True), run(4, tmp_path / "whole")
    for one, other in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_wrapped_module_that_was_not_kept_before_format_3_is_said(tmp_path, monkeypatch):
    program = WRAPPERS["lambda"](Plain())
    guide = MeanField(program, rows(), hidden=3)
    monkeypatch.setattr(checkpoint_file, "FORMAT", checkpoint_file.EARLIER)
    save(tmp_path / "old", {"guide": guide})
    monkeypatch.undo()
    with pytest.raises(ValueError, match="before format 3 .*, when a module behind another function was not kept; tr"):
        load(tmp_path / "old", contents(program, guide, (rows(),)))


def test_a_wrapped_training_is_resumed(tmp_path):
    def run(steps: int, folder, resume: bool):
        torch.manual_seed(0)
        module = Plain()
        program = poutine.scale(module, scale=1.0)
        guide = MeanField(program, rows(), hidden=3)
        how = {"batch_size": 6, "every": 1, "seed": 0, "progress": False, "compile": False, "schedule": "constant"}
        fit(program, guide, rows(), steps=steps, folder=folder, resume=resume, **how)
        return [*module.state_dict().values(), *guide.state_dict().values()]

    want = run(4, tmp_path / "whole", False)
    run(2, tmp_path / "half", False)
    assert all(torch.equal(a, b) for a, b in zip(want, run(4, tmp_path / "half", True), strict=True))


def test_modes_reach_wrapped_modules():
    module = Plain()
    program = poutine.mask(named(module), mask=True)
    guide = MeanField(program, rows(), hidden=3)
    module.modes.clear()
    before = {name: b.clone() for name, b in module.named_buffers()}
    found = [evaluate(program, guide, rows(), particles=2, progress=False).nll for _ in range(2)]
    assert module.modes == {False} and module.training and module.drop.training
    assert all(torch.equal(b, before[name]) for name, b in module.named_buffers()) and found[0] == found[1]
    seen: list[set[bool]] = []

    def watch(run) -> None:
        seen.append(set(module.modes))
        module.modes.clear()

    module.modes.clear()
    module.eval()
    fit(
        program,
        guide,
        rows(),
        steps=2,
        every=1,
        batch_size=6,
        validation=rows(),
        callbacks=watch,
        progress=False,
        compile=False,
    )
    assert seen == [{False, True}] * 2 and not module.training
    assert not torch.equal(module.norm.running_mean, before["norm.running_mean"])


@pytest.mark.slow
def test_a_captured_step_trains_what_the_eager_one_does():
    def weights(compile: bool) -> list[Tensor]:
        torch.manual_seed(0)
        module = VAE(event=4, latent=2, hidden=3)
        program = partial(module)
        guide = MeanField(program, rows(), hidden=3)
        pyro.set_rng_seed(0)
        step = training_step(program, guide, (rows(),), lr=1e-2, compile=compile)
        for _ in range(3):
            step(rows())
        assert step.notes == []
        step.close()
        return [p.detach().clone() for p in module.parameters()]

    for a, b in zip(weights(False), weights(True), strict=True):
        torch.testing.assert_close(a, b)


def test_guides_behind_functions_and_two_modules_behind_one():
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> None:
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(self.net(x), 1.0).to_event(1))

    class Prior(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.loc = nn.Parameter(torch.zeros(2))

        def forward(self) -> Tensor:
            return pyro.sample("z", dist.Normal(self.loc, 1.0).to_event(1))

    class Likelihood(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(2, 4)

        def forward(self, z: Tensor, x: Tensor) -> None:
            pyro.sample("x", dist.Bernoulli(logits=self.net(z)).to_event(1), obs=x)

    prior, likelihood, encoder = Prior(), Likelihood(), Encoder()

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            likelihood(prior(), x)

    found = contents(model, encoder.forward, (rows(),))
    assert found == {"model": prior, "model.inner1": likelihood, "guide": encoder}
    before = [p.clone() for m in found.values() for p in m.parameters()]
    run = fit(model, lambda x: encoder(x), rows(), steps=2, lr=0.1, compile=False, progress=False)
    after = [p for m in found.values() for p in m.parameters()]
    assert run.notes == [] and not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_guides_behind_handlers_are_trained_as_the_guides_themselves():
    def run(wrap) -> list[Tensor]:
        torch.manual_seed(0)
        model = VAE(event=4, latent=2, hidden=3)
        guide = MeanField(model, rows(), hidden=3)
        program = wrap(guide)
        run = fit(model, program, rows(), steps=2, batch_size=6, lr=0.1, seed=0, compile=False, progress=False)
        found = evaluate(model, program, rows(), particles=2, progress=False)
        return [*guide.state_dict().values(), torch.tensor([run.history[-1]["loss"], found.nll])]

    want = run(lambda guide: guide)
    for wrap in (lambda guide: poutine.scale(guide, scale=1.0), lambda guide: poutine.mask(guide, mask=True)):
        assert all(torch.equal(a, b) for a, b in zip(want, run(wrap), strict=True))


def test_networks_of_functions_are_those_that_pyro_is_told_of():
    """As for SVI: `pyro.module` hands them over; what it does not name is kept as it is, and a note says so."""
    known, unknown = nn.Linear(2, 4), nn.Linear(4, 4)

    def model(x: Tensor) -> None:
        pyro.module("known", known)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=unknown(known(z))).to_event(1), obs=x)

    pyro.clear_param_store()
    guide = BottomUp(model, rows(), hidden=3)
    assert set(contents(model, guide, (rows(),))["params"]) == {"known$$$weight", "known$$$bias"}
    kept, moved = unknown.weight.clone(), known.weight.clone()
    quiet = {"steps": 2, "lr": 0.1, "compile": False, "progress": False}
    run = fit(model, guide, rows(), **quiet)
    assert torch.equal(unknown.weight, kept) and not torch.equal(known.weight, moved)
    (note,) = run.notes
    assert "called, but not trained: Linear" in note and "pyro.module" in note
    unknown.requires_grad_(False)
    assert fit(model, guide, rows(), **quiet).notes == []


class Classic(nn.Module):
    """The form of Pyro's own VAE: two methods that each hand over their part."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder, self.encoder = nn.Linear(2, 4), nn.Linear(4, 2)

    def model(self, x: Tensor) -> None:
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(z)).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.encoder(x), 1.0).to_event(1))


def test_methods_that_hand_over_their_parts_have_these_in_their_checkpoints():
    pyro.clear_param_store()
    vae = Classic()
    found = contents(vae.model, vae.guide, (rows(),))
    assert set(found) == {"params"} and len(found["params"]) == 4
    module = Plain()  # another method, and nothing handed over: all of it
    assert contents(module.other, AutoNormal(module.other), (rows(),))["model"] is module


class HandsItselfOver(nn.Module):
    """As Pyro's tutorials write a model: one name for every object of the class."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(2, 4)

    def forward(self, x: Tensor) -> None:
        pyro.module("hands", self)
        drawn(self.net, x)


class Registers(PyroModule):
    """A `PyroModule`, which registers its parameters by its own attributes' names."""

    def __init__(self) -> None:
        super().__init__()
        self.net = PyroModule[nn.Linear](2, 4)

    def forward(self, x: Tensor) -> None:
        drawn(self.net, x)


def closing_over() -> Callable:
    """A function that hands over the network that it calls."""
    net = nn.Linear(2, 4)

    def model(x: Tensor) -> None:
        pyro.module("net", net)
        drawn(net, x)

    return model


def drawn(net: nn.Module, x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Bernoulli(logits=net(z)).to_event(1), obs=x)


@pytest.mark.parametrize("make", [HandsItselfOver, Registers, closing_over])
def test_a_second_pair_of_the_same_names_is_trained_and_kept_as_the_first(make, tmp_path):
    """Pyro's store keeps the tensors of the first under these names, which the second does not read."""
    pyro.clear_param_store()
    x, quiet = rows(), {"steps": 2, "compile": False, "progress": False}
    pairs = [(model := make(), MeanField(model, x, hidden=3)) for _ in range(3)]
    first, second, third = (contents(*pair, (x,)) for pair in pairs)
    kept = [{f"{a}.{b}": v for a, part in each.items() for b, v in _state(part)} for each in (first, second, third)]
    assert kept[0].keys() == kept[1].keys() and not {v.data_ptr() for v in kept[0].values()} & {
        v.data_ptr() for v in kept[1].values()
    }
    before = {name: value.clone() for name, value in kept[1].items()}
    fit(*pairs[1], x, **quiet)
    assert not any(torch.equal(before[name], kept[1][name]) for name in kept[1] if "net" in name)
    save(tmp_path / "second.safetensors", second)
    load(tmp_path / "second.safetensors", third)
    assert all(torch.equal(kept[1][name], kept[2][name]) for name in kept[1])


def _state(part: nn.Module | dict[str, Tensor]) -> list[tuple[str, Tensor]]:
    return [*(part.state_dict() if isinstance(part, nn.Module) else part).items()]


def test_what_a_handler_hides_or_who_is_frozen_stays():
    module = VAE(event=4, latent=2, hidden=3)
    hidden = poutine.block(module, hide_types=["param"])
    guide = MeanField(hidden, rows(), hidden=3)
    assert set(contents(hidden, guide, (rows(),))) == {"guide"}
    module.requires_grad_(False)
    before = [p.clone() for p in module.parameters()]
    program = partial(module)
    fit(program, MeanField(program, rows(), hidden=3), rows(), steps=2, compile=False, progress=False)
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))


def test_weights_alone_cross(tmp_path):
    module, x = VAE(event=4, latent=2, hidden=3), rows()
    program = WRAPPERS["twice"](module)
    guide = MeanField(program, x, hidden=3)
    save(tmp_path / "w.safetensors", contents(program, guide, (x,)))
    other = VAE(event=4, latent=2, hidden=3)
    own = MeanField(other, x, hidden=3)
    load(tmp_path / "w.safetensors", contents(other, own, (x,)))
    found = []
    for pair in ((program, guide), (other, own)):
        pyro.set_rng_seed(0)
        with torch.no_grad():
            found.append(terms(*pair, (x,)).log_w)
    assert torch.equal(*found)
