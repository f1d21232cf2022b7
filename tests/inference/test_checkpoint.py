"""Checkpoints: whole or not there, all loaded or nothing, and never a pickle."""

import errno
import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings, strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

import ppl_models
from ppl_models import data
from ppl_models.inference.pyro.feeding.columns import Columns
from ppl_models.inference.pyro.training import checkpoint
from ppl_models.inference.pyro.training.checkpoint import (
    CHECKPOINT,
    PREVIOUS,
    load,
    load_training,
    prepared,
    read,
    save,
    write_atomically,
    write_json,
)
from ppl_models.inference.pyro.training.state import rng_state, set_rng_state
from ppl_models.inference.storage import checkpoint_file
from tests.helpers.cases import few


@pytest.mark.parametrize("name", ["CHECKPOINT", "PREVIOUS", "write_atomically", "write_json"])
def test_helpers_that_are_not_public_any_more(name):
    with pytest.warns(DeprecationWarning, match=f"inference.{name} is not public any more; import it from ppl_models"):
        assert getattr(ppl_models.inference, name) is getattr(checkpoint, name)
    assert name not in ppl_models.inference.__all__


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
        save_file(changed, path, {"format": "ppl-models 1"})
        with pytest.raises(ValueError, match="rebuild model and guide with the sizes they were saved with") as caught:
            load(path, modules)
        assert words in str(caught.value)
        assert same(tensors(modules), before)


# the state of a training


def state() -> dict[str, torch.Tensor]:
    """Every kind of tensor, among them views of one buffer."""
    buffer = torch.randn(12)
    return {
        "all": buffer,
        "first": buffer[:6].view(2, 3),
        "again": buffer[:6],
        "transposed": buffer.view(3, 4).t(),
        "strided": buffer[::5],
        "expanded": buffer[:1].expand(3, 2),
        "scalar": torch.tensor(0.1, dtype=torch.float64),
        "step": torch.tensor(2**60 + 1),
        "half": torch.randn(3).bfloat16(),
        "bytes": torch.arange(256, dtype=torch.uint8),
        "flags": torch.tensor([True, False]),
        "none": torch.empty(0, 3),
        "odd": torch.tensor([float("nan"), -0.0, float("inf")]),
        'deep.name \u00fc "sha256":"': torch.ones(1),
    }


def bits(tensor: torch.Tensor) -> tuple:
    return tensor.dtype, tensor.shape, tensor.contiguous().reshape(-1).view(torch.uint8).tolist()


ABOUT = {"step": 7, "history": [{"loss": 0.1 + 0.2, "valid": 1.5}], "sha256": '"sha256":"', "text": "\u2013"}


def test_the_state_of_a_training_comes_back_bit_for_bit(tmp_path):
    path, expected = tmp_path / CHECKPOINT, state()
    save(path, pair(), expected, ABOUT)
    found, about = load_training(path)
    assert about == ABOUT and found.keys() == expected.keys()
    assert all(bits(found[key]) == bits(expected[key]) for key in found)
    # the weights are those of a checkpoint without a training, and load as such
    other = pair(1)
    load(path, other)
    assert same(tensors(other), tensors(pair())) and same(read(path).weights, tensors(pair()))
    # equal contents are equal bytes
    content = path.read_bytes()
    save(tmp_path / "again", pair(), expected, ABOUT)
    assert (tmp_path / "again").read_bytes() == content


def test_what_cannot_be_saved_is_said_before_anything_is_written(tmp_path):
    path = tmp_path / CHECKPOINT
    save(path, {}, {"a": torch.ones(1)})
    before = path.read_bytes()
    for error, words, arguments in (
        (ValueError, "modules named 'training'", ({"training": {}},)),
        (ValueError, "safetensors knows no torch.complex128", ({}, {"a": torch.zeros(1, dtype=torch.complex128)})),
        (ValueError, "sparse", ({}, {"a": torch.zeros(1).to_sparse()})),
        (TypeError, "about is not JSON .*want strings", ({}, {}, {"a": torch.zeros(1)})),
    ):
        with pytest.raises(error, match=words):
            save(path, *arguments)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_weights_alone_are_no_training(tmp_path):
    save(tmp_path / "c", pair())
    with pytest.raises(ValueError, match="c holds weights alone, no state of a training; .* not resumed"):
        load_training(tmp_path / "c")
    assert read(tmp_path / "c").about == {}


def test_files_of_the_first_format_are_weights(tmp_path):
    save_file({k: v.contiguous() for k, v in tensors(pair(1)).items()}, tmp_path / "c", {"format": "ppl-models 1"})
    modules = pair()
    load(tmp_path / "c", modules)
    assert same(tensors(modules), tensors(pair(1)))
    with pytest.raises(ValueError, match="weights alone"):
        load_training(tmp_path / "c")


# damage


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> tuple[Path, bytes]:
    path = tmp_path_factory.mktemp("small") / CHECKPOINT
    save(path, {"model": {"w": torch.ones(2)}}, {"m": torch.zeros(()), "r": torch.arange(5).byte()}, {"step": 3})
    return path, path.read_bytes()


def refused(path: Path, content: bytes) -> str:
    """The one error that all ways to read a file give."""
    path.write_bytes(content)
    found = []
    weights = torch.full((2,), 5.0)
    for reading in (read, load_training, lambda path: load(path, {"model": {"w": weights}})):
        with pytest.raises(ValueError) as caught:
            reading(path)
        found.append(str(caught.value))
    assert len(set(found)) == 1 and found[0].startswith(str(path)) and weights.tolist() == [5.0, 5.0]
    return found[0]


@pytest.mark.parametrize("step", few([5, 1], lambda step: step == 5))
def test_every_flipped_bit_and_every_truncation_is_found(small, step):
    """Of a step of 5, every fifth bit: one or two of each byte."""
    path, content = small
    for size in range(len(content)):
        path.write_bytes(content[:size])
        with pytest.raises(ValueError, match="is truncated or no safetensors file"):
            read(path)
    for at in range(0, 8 * len(content), step):
        i, bit = divmod(at, 8)
        path.write_bytes(content[:i] + bytes([content[i] ^ 1 << bit]) + content[i + 1 :])
        with pytest.raises(ValueError, match="truncated or no safetensors file|is none of ours|is damaged"):
            read(path)
    path.write_bytes(content)
    assert read(path).about == {"step": 3}


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10_000), st.integers(0, 40), st.binary(max_size=40))
@example(10_000, 0, b"\n")
def test_changed_spans_are_found(small, start, length, new):
    path, content = small
    start %= len(content) + 1
    changed = content[:start] + new + content[start + length :]
    if changed != content:
        refused(path, changed)


def header(metadata: object, body: bytes = b"", **entries: object) -> bytes:
    text = json.dumps({"__metadata__": metadata, **entries}).encode()
    return len(text).to_bytes(8, "little") + text + body


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300) | st.builds(lambda b: len(b).to_bytes(8, "little") + b, st.binary(max_size=300)))
@example(b"")
@example(b"PK\x03\x04" + bytes(100))
@example(b"\x80\x04\x95" + bytes(100))
@example(header([1]))
@example(header({"format": ["ppl-models 2"]}))
@example(header({"format": "ppl-models 3"}))
@example(header({"format": "ppl-models 2"}))
@example(header({"format": "ppl-models 1", "sha256": "0" * 64}))
@example(header({"format": "ppl-models 2", "sha256": 3, "about": 4}))
@example(header({"format": "ppl-models 1"}, b"1234", a={"dtype": "F4", "shape": [8], "data_offsets": [0, 4]}))
@example(header({"format": "ppl-models 1"}, b"1234", a={"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}))
@example(header({"format": "ppl-models 1"}, b"1234", a={"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}))
@example((10**6).to_bytes(8, "little") + b'{"a":' * 200_000)
@example((10**12).to_bytes(8, "little") + b"{}")
def test_foreign_bytes_are_refused(small, content):
    refused(small[0], content)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=3))
def test_files_without_a_digest_give_weights_or_the_one_error(small, start, new):
    path = small[0].with_name("old.safetensors")
    save_file({"model.w": torch.ones(2), "model.b": torch.ones(1, 1)}, path, {"format": "ppl-models 1"})
    content = path.read_bytes()
    start %= len(content)
    path.write_bytes(content[:start] + new + content[start + len(new) :])
    try:
        read(path)
    except ValueError as error:
        assert str(path) in str(error)


def test_safetensors_of_others_are_refused(tmp_path):
    for metadata in (None, {"format": "pt"}):
        save_file({"model.w": torch.ones(2)}, tmp_path / "c", metadata)
        assert "is none of ours: found format" in refused(tmp_path / "c", (tmp_path / "c").read_bytes())


def test_a_digest_of_what_is_no_statement_is_refused(tmp_path):
    """Whoever writes a file by hand, digest and all, gets the same kind of error."""
    blank = header({"format": "ppl-models 2", "about": "[1]", "sha256": "0" * 64}).replace(b'": "', b'":"')
    size = len(blank) - 8
    blank = size.to_bytes(8, "little") + blank[8:]
    content = blank.replace(b"0" * 64, checkpoint_file.digest(blank, b"").encode())
    assert "what it says about itself is no JSON" in refused(tmp_path / "c", content)


def test_the_previous_checkpoint_is_offered_if_it_is_whole(tmp_path):
    path, previous = tmp_path / CHECKPOINT, tmp_path / PREVIOUS
    save(path, pair(0), state(), {"step": 1})
    assert not previous.exists()
    save(path, pair(1), state(), {"step": 2})
    assert (read(previous).about, read(path).about) == ({"step": 1}, {"step": 2})
    content = path.read_bytes()
    offer = f"; the previous checkpoint, {previous} (step 1), is whole: load that one, or rename it to {CHECKPOINT}"
    for damaged in (content[:-1], content[:-1] + b"?", b"PK\x03\x04" + bytes(100), b""):
        path.write_bytes(damaged)
        for reading in (read, load_training):
            with pytest.raises(ValueError, match=re.escape(offer) + "$"):
                reading(path)
    # a damaged one does not become the previous one
    save(path, pair(1), state(), {"step": 3})
    assert (read(previous).about, read(path).about) == ({"step": 1}, {"step": 3})
    path.unlink()
    with pytest.raises(FileNotFoundError, match=f"no checkpoint at .*{re.escape(offer)}$"):
        read(path)
    previous.write_bytes(content[:-1])
    path.write_bytes(content[:-1])
    with pytest.raises(ValueError, match=r"is truncated or no safetensors file \([^;]*\)$"):
        read(path)


# faults


def versions(folder: Path) -> tuple[int | None, int | None]:
    """Step of the checkpoint and of the previous one, both whole; the weights are those of the step."""
    found = []
    for name in (CHECKPOINT, PREVIOUS):
        if not (folder / name).exists():
            found.append(None)
            continue
        content = read(folder / name)
        (step,) = content.weights["model.w"].unique().tolist()
        assert content.training["m"].unique().tolist() == [step] and content.about == {"step": step}
        found.append(int(step))
    return found[0], found[1]


def save_step(folder: Path, step: int, size: int = 100) -> None:
    tensor = torch.full((size,), float(step))
    save(folder / CHECKPOINT, {"model": {"w": tensor}}, {"m": tensor}, {"step": step})


@pytest.mark.parametrize("function", ["link", "replace", "fsync"])
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("links", [True, False])
def test_a_save_that_fails_anywhere_leaves_whole_files(tmp_path, monkeypatch, function, count, links):
    for step in (1, 2):
        save_step(tmp_path, step)
    real, calls = {name: getattr(os, name) for name in ("link", "replace", "fsync")}, []

    def refuse(*_):
        raise OSError(errno.EPERM, "no hard links here")

    def failing(*args):
        calls.append(args)
        if len(calls) == count:
            raise KeyboardInterrupt
        return real[function](*args)

    with monkeypatch.context() as patch:
        if not links:
            patch.setattr(os, "link", refuse)
        patch.setattr(os, function, failing)
        try:
            save_step(tmp_path, 3)
        except KeyboardInterrupt:
            pass
    current, previous = versions(tmp_path)
    assert (current, previous) in ((2, 1), (3, 2), (3, 1))
    assert {path.name for path in tmp_path.iterdir()} == {CHECKPOINT, PREVIOUS}
    save_step(tmp_path, 4)
    assert versions(tmp_path) == (4, current)


@pytest.mark.parametrize("room", [0, 100, 900])
def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch, room):
    for step in (1, 2):
        save_step(tmp_path, step)

    class Full:
        def __init__(self, *args):
            self.file = open(*args)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def write(self, content):
            self.file.write(content[:room])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def read(self, size=-1):
            return self.file.read(size)

    monkeypatch.setattr(checkpoint, "open", Full, raising=False)
    with pytest.raises(OSError, match="No space left on device"):
        save_step(tmp_path, 3)
    monkeypatch.undo()
    assert versions(tmp_path) == (2, 1) and len(list(tmp_path.iterdir())) == 2


def test_without_hard_links_the_previous_one_is_a_copy(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    for step in (1, 2, 3):
        save_step(tmp_path, step)
    assert versions(tmp_path) == (3, 2) and len(list(tmp_path.iterdir())) == 2


def test_what_killed_processes_left_is_removed_and_nothing_else(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    dead, own, other = gone.pid, os.getpid(), os.getppid()
    stale = [f".{name}.{pid}.tmp" for name in (CHECKPOINT, PREVIOUS) for pid in (dead, own, 10**30)]
    kept = [f".{CHECKPOINT}.{other}.tmp", f".mine.{dead}.tmp", f".{CHECKPOINT}.x.tmp", "notes.txt"]
    for act in (lambda: save_step(tmp_path, 1), lambda: prepared(tmp_path, resume=True).__enter__()):
        for name in (*stale, *kept):
            (tmp_path / name).write_text("half of")
        act()
        assert {path.name for path in tmp_path.iterdir()} == {CHECKPOINT, *kept}


def test_folders_to_resume_in(tmp_path):
    with prepared(tmp_path / "new", resume=True):
        save_step(tmp_path / "new", 1)
    with pytest.raises(ValueError, match=f"holds a {CHECKPOINT} already; choose another folder, .*or resume"):
        with prepared(tmp_path / "new"):
            pass
    with prepared(tmp_path / "new", resume=True):
        save_step(tmp_path / "new", 2)
    (tmp_path / "new" / CHECKPOINT).unlink()
    with pytest.raises(ValueError, match=f"holds a {PREVIOUS} already"):
        with prepared(tmp_path / "new"):
            pass
    with pytest.raises(ValueError, match=f"holds no {CHECKPOINT}, but a {PREVIOUS}; rename that one"):
        with prepared(tmp_path / "new", resume=True):
            pass


KILLS = """
import os, random, signal, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
sys.path.insert(0, {tests!r})
from test_checkpoint import save_step, versions

folder, random_moments = Path({folder!r}), random.Random({seed})

def child(work):
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(3)
    return pid

# an end at every call that changes the folder, before it and after it: nothing is tidied up
for name in ("link", "replace", "fsync", "unlink"):
    for count in range(1, 4):
        for after in (False, True):
            def work():
                real, calls = getattr(os, name), []
                def ending(*args, **kwargs):
                    calls.append(1)
                    if len(calls) == count and not after:
                        os._exit(9)
                    real(*args, **kwargs)
                    if len(calls) == count:
                        os._exit(9)
                setattr(os, name, ending)
                save_step(folder, 3)
            for step in (1, 2):
                save_step(folder, step)
            os.waitpid(child(work), 0)
            assert versions(folder) in ((2, 1), (3, 2), (3, 1)), (name, count, after, versions(folder))
            last = versions(folder)[0]
            save_step(folder, 4)
            assert versions(folder) == (4, last) and len(list(folder.iterdir())) == 2

# SIGKILL at any moment; where a busy machine saves nothing in that time, of a longer one
step, amid, moved, longest = 4, 0, 0, 0.03
for _ in range({kills}):
    def work():
        for i in range(step + 1, step + 10**6):
            save_step(folder, i, 20_000)
    pid = child(work)
    time.sleep(random_moments.uniform(0.001, longest))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    amid += len(list(folder.iterdir())) > 2
    current, previous = versions(folder)
    assert current >= step and (current == step or current - 2 <= previous < current), (step, current, previous)
    moved += current > step
    longest = 0.03 if current > step else min(1.5 * longest, 3.0)
    step = current
print(amid, moved)
"""


def kills(folder: Path, count: int, seed: int) -> tuple[int, int]:
    """Kill processes that do nothing but save; in how many a save was going on, and how many had saved something."""
    code = KILLS.format(tests=str(Path(__file__).parent), folder=str(folder), kills=count, seed=seed)
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    amid, moved = map(int, told.stdout.split())
    return amid, moved


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_any_moment_both_files_are_whole(tmp_path):
    amid, moved = kills(tmp_path, 30, 0)
    assert amid >= 3 and moved >= 3


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 4))
def test_killed_at_many_moments_both_files_are_whole(tmp_path, seed):
    amid, moved = kills(tmp_path, 1000, seed)
    assert amid >= 100 and moved >= 100


# random generators


def draws() -> list[float]:
    torch_draws = torch.randn(5).tolist() + torch.randperm(9).tolist() + torch.randn(33).tolist()
    return torch_draws + [random.gauss(0, 1), random.random(), np.random.normal(), np.random.randint(2**31)]


@pytest.mark.parametrize("before", range(4))
def test_all_generators_go_on_bit_for_bit(tmp_path, before):
    for _ in range(before):  # an odd count leaves each generator with the second of a pair of normal numbers
        torch.randn(1), random.gauss(0, 1), np.random.normal()
    save(tmp_path / "c", {}, rng_state())
    expected = draws() + draws()
    torch.manual_seed(8), random.seed(8), np.random.seed(8)
    draws()
    set_rng_state(load_training(tmp_path / "c")[0])
    assert draws() + draws() == expected
    assert all(value.dtype == torch.uint8 for value in rng_state(torch.device("cpu")).values())


@pytest.mark.parametrize("kind", ["PCG64", "Philox", "SFC64"])
def test_other_bit_generators_of_numpy_go_on_too(kind):
    usual = np.random.get_bit_generator()
    try:
        np.random.set_bit_generator(getattr(np.random, kind)(3))
        np.random.normal()
        saved = rng_state()
        expected = np.random.normal(size=7).tolist()
        np.random.normal()
        set_rng_state(saved)
        assert np.random.normal(size=7).tolist() == expected
    finally:
        np.random.set_bit_generator(usual)
    with pytest.raises(ValueError, match="none of the generator 'numpy'"):
        set_rng_state(saved)


@pytest.mark.parametrize("name", ["torch", "python", "numpy"])
def test_a_wrong_state_changes_no_generator(name):
    saved, before = rng_state(), rng_state()
    draws()
    expected = rng_state()
    for wrong in (torch.zeros(3, dtype=torch.uint8), torch.tensor([1.5]), torch.tensor(list(b'{"a": 1}')).byte()):
        with pytest.raises(ValueError, match=f"none of the generator '{name}'.*want what rng_state gives"):
            set_rng_state({**saved, name: wrong})
        assert same(rng_state(), expected)
    del saved[name]
    with pytest.raises(ValueError, match=rf"found no state of the generators \['{name}'\]"):
        set_rng_state(saved)
    set_rng_state(before)
    assert same(rng_state(), before)


@pytest.mark.cuda
def test_the_generator_of_a_cuda_device_goes_on():
    device = torch.device("cuda", 0)
    torch.randn(3, device=device)
    saved = rng_state(device)
    expected = torch.randn(5, device=device)
    torch.manual_seed(9)
    set_rng_state(saved, device)
    assert torch.equal(torch.randn(5, device=device), expected)
    set_rng_state({key: saved[key] for key in ("torch", "python", "numpy")}, device)


# data


def test_fingerprints_tell_data_apart():
    x = torch.randn(5000, 3)
    images = data.Data(torch.randint(0, 256, (50, 4), dtype=torch.uint8), (1, 2, 2), 256, data.Scale(256), "mine")
    binary = data.Data(images.values, images.shape, 256, data.Binarize(256), "mine")
    last = x.clone()
    last[-1, -1] += 1
    different = [
        (x,), (x, x), (x[:-1],), (x[:, :2],), (x.double(),), (x.flip(0),), (last,), (x.reshape(-1, 1, 3),), (x[:, 0],),
        (x.bfloat16(),), (x > 0,), (x[:1],), (images,), (binary,), (images.values,), (np.zeros(5),), (np.zeros(6),),
    ]  # fmt: skip

    def fingerprint(data: Any) -> str:
        return Columns(data, "data").fingerprint().text

    found = [fingerprint(data) for data in different]
    assert len(set(found)) == len(found)
    again = data.Data(images.values.clone(), images.shape, 256, data.Scale(256), "of another name")
    assert fingerprint((images,)) == fingerprint((again,)) and fingerprint((x,)) == fingerprint((x.clone(),))
    assert fingerprint((x.t().contiguous().t(),)) == fingerprint((x,))


def test_no_pickle_in_the_package():
    for file in Path(ppl_models.__file__).parent.glob("inference/**/*.py"):
        text = file.read_text()
        assert "import pickle" not in text and "torch.load" not in text and "torch.save" not in text, file


def test_a_name_that_no_file_can_hold_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"^save: found the name '\\ud800scale' of a parameter, want letters"):
        save(tmp_path / "a.safetensors", {"params": {"\ud800scale": torch.zeros(2)}})
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(("make", "what"), [(Path.mkdir, "folder"), (os.mkfifo, "pipe")])
def test_a_file_takes_the_place_of_no_folder_pipe_or_device(tmp_path, make, what):
    make(tmp_path / "there")
    with pytest.raises(ValueError, match=f"there: found a {what}, want a file or nothing; choose another path"):
        write_atomically(tmp_path / "there", lambda file: file.write_text("x"))
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
