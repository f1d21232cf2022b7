"""Checkpoints: whole or not there, all loaded or nothing, and never a pickle."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import ppl_models
from ppl_models.inference.checkpoint import load, save, write_atomically, write_json


class Tied(nn.Module):
    """Two layers that share a weight, a buffer, a scalar, and a view of something larger."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(3, 3), nn.Linear(3, 3)
        self.two.weight = self.one.weight
        self.scalar = nn.Parameter(torch.tensor(2.0).double())
        self.register_buffer("count", torch.arange(4))
        self.register_buffer("view", torch.randn(5, 4).t()[1:3])
        self.register_buffer("constant", torch.ones(2), persistent=False)


def pair(seed: int = 0) -> dict[str, nn.Module]:
    torch.manual_seed(seed)
    return {"model": Tied(), "guide": nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4))}


def tensors(modules: dict[str, nn.Module]) -> dict[str, torch.Tensor]:
    return {f"{n}.{k}": v.clone() for n, m in modules.items() for k, v in m.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_round_trip(tmp_path):
    saved, other = pair(0), pair(1)
    assert not same(tensors(saved), tensors(other))
    before = dict(other["model"].named_parameters())
    save(tmp_path / "c.safetensors", saved)
    load(tmp_path / "c.safetensors", other)
    assert same(tensors(saved), tensors(other))
    # in place: an optimizer that holds the parameters still does; tied weights stay tied
    assert all(p is before[name] for name, p in other["model"].named_parameters())
    assert other["model"].one.weight is other["model"].two.weight
    assert list(tmp_path.iterdir()) == [tmp_path / "c.safetensors"]
    # what is saved does not change with the module afterwards
    with torch.no_grad():
        saved["model"].one.weight.zero_()
    assert load_file(tmp_path / "c.safetensors")["model.one.weight"].abs().sum() > 0


def test_named_tensors_are_saved_and_loaded_in_place(tmp_path):
    store = {"loc": torch.randn(3, requires_grad=True), "net$$$w.x": torch.randn(2, 2, requires_grad=True)}
    expected = {name: value.detach().clone() for name, value in store.items()}
    save(tmp_path / "c", {"params": store})
    with torch.no_grad():
        for value in store.values():
            value.zero_()
    load(tmp_path / "c", {"params": store})
    assert same({name: value.detach() for name, value in store.items()}, expected)


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
@pytest.mark.parametrize("function", ["replace", "fsync"])
def test_a_failure_before_the_rename_leaves_the_old_file(tmp_path, monkeypatch, error, function):
    path = tmp_path / "c.safetensors"
    save(path, pair(0))
    before = path.read_bytes()

    def fail(*_):
        raise error

    monkeypatch.setattr(os, function, fail)
    with pytest.raises(type(error)):
        save(path, pair(1))
    with pytest.raises(type(error)):
        write_json(tmp_path / "new.json", {"a": 1})
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_failure_while_writing_leaves_nothing(tmp_path):
    def half(file: Path) -> None:
        file.write_text("half of")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        write_atomically(tmp_path / "x", half)
    with pytest.raises(TypeError):
        write_json(tmp_path / "x", {"a": object()})
    assert not list(tmp_path.iterdir())


def test_the_new_file_is_whole_before_it_has_the_name(tmp_path, monkeypatch):
    path, seen, replace = tmp_path / "x.json", [], os.replace
    write_json(path, {"a": 1})

    def spy(source, target):
        seen.append((json.loads(Path(source).read_text()), json.loads(Path(target).read_text())))
        replace(source, target)

    monkeypatch.setattr(os, "replace", spy)
    write_json(path, {"a": "zwei \u2013"})
    assert seen == [({"a": "zwei \u2013"}, {"a": 1})] and json.loads(path.read_text()) == {"a": "zwei \u2013"}


def test_missing_truncated_and_foreign_files(tmp_path):
    modules = pair()
    before, path = tensors(modules), tmp_path / "c.safetensors"
    with pytest.raises(FileNotFoundError, match="no checkpoint at .*c.safetensors"):
        load(path, modules)
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        load(tmp_path, modules)
    save(path, pair(1))
    content = path.read_bytes()
    for size in (0, 4, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(ValueError, match="is truncated or no safetensors file"):
            load(path, modules)
    np.save(tmp_path / "c.npy", np.zeros(3))
    torch.save({"a": torch.zeros(3)}, tmp_path / "c.pt")
    for foreign in ("c.npy", "c.pt"):
        with pytest.raises(ValueError, match="is truncated or no safetensors file"):
            load(tmp_path / foreign, modules)
    assert same(tensors(modules), before)


@pytest.mark.parametrize("last", ["guide.0.bias", "model.view"])
def test_all_is_loaded_or_nothing(tmp_path, last):
    """Whatever tensor differs, the others are not touched."""
    path, good = tmp_path / "c", tensors(pair(1))
    for change, words in (
        (lambda t: t.pop(last), f"lacks the tensor '{last}'; rebuild model and guide"),
        (lambda t: t.update({"guide.9.bias": torch.zeros(1)}), "has, but the modules lack, the tensor 'guide.9.bias'"),
        (lambda t: t.update({last: torch.zeros(7)}), f"tensor '{last}' is (7,), want ("),
        (lambda t: t.update({last: torch.zeros(())}), f"tensor '{last}' is (), want ("),
    ):
        modules, changed = pair(0), {k: v.contiguous() for k, v in good.items()}
        before = tensors(modules)
        change(changed)
        save_file(changed, path)
        with pytest.raises(ValueError, match="rebuild model and guide with the sizes they were saved with") as caught:
            load(path, modules)
        assert words in str(caught.value)
        assert same(tensors(modules), before)


def test_no_pickle_in_the_package():
    for file in Path(ppl_models.__file__).parent.glob("inference/*.py"):
        text = file.read_text()
        assert "import pickle" not in text and "torch.load" not in text and "torch.save" not in text, file
