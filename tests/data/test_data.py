"""The data package: readers on small files made here, transforms against formulas, the stored real sets."""

import gzip
import math
import os
import pickle
import struct
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rebuild_cifar10
import torch
from PIL import Image
from torch.utils.data import DataLoader

from ppl_models import data
from ppl_models.data import catalogue, fetch, readers, splits

STORE = Path(os.environ.get("PPL_MODELS_DATA") or Path(__file__).resolve().parents[2] / ".." / "shared" / "data")


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the real data sets, set as PPL_MODELS_DATA."""
    if not (STORE / "MNIST").is_dir():
        pytest.skip("the real data sets are not stored here")
    monkeypatch.setenv("PPL_MODELS_DATA", str(STORE))
    return STORE


def grey(transform: data.Transform | None = None, count: int = 40) -> data.Data:
    values = (torch.arange(count * 12) % 256).to(torch.uint8).reshape(count, 12)
    return data.Data(values, (1, 3, 4), 256, transform or data.Scale(256), "grey", torch.arange(count))


def one_line(error: pytest.ExceptionInfo) -> str:
    """The message, which must be one line and hide what it came from."""
    assert "\n" not in str(error.value)
    assert error.value.__cause__ is None and (error.value.__suppress_context__ or not error.value.__context__)
    return str(error.value)


# readers


def idx_bytes(array: np.ndarray) -> bytes:
    return b"\x00\x00\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}i", *array.shape) + array.tobytes()


def test_idx(tmp_path):
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    (tmp_path / "plain").write_bytes(idx_bytes(array))
    (tmp_path / "zipped.gz").write_bytes(gzip.compress(idx_bytes(array), mtime=0))
    for name in ("plain", "zipped.gz"):
        assert np.array_equal(readers.idx(tmp_path / name), array)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("short", idx_bytes(np.zeros((2, 3), np.uint8))[:-1], "found 5 bytes after the header, want 6"),
        ("header", b"\x00\x00\x08\x03\x00", "header cut short"),
        ("other", b"PK\x03\x04", "want an idx file"),
        ("cut.gz", gzip.compress(idx_bytes(np.zeros((9, 9), np.uint8)), mtime=0)[:-9], "damaged or truncated gzip"),
    ],
)
def test_idx_refuses(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=says) as error:
        readers.idx(tmp_path / name)
    assert name in one_line(error)


def test_amat(tmp_path):
    array = np.array([[0, 1, 1], [1, 0, 1]], np.uint8)
    text = b"0 1 1\n1 0 1\n"
    (tmp_path / "x.amat").write_bytes(text)
    (tmp_path / "x.amat.gz").write_bytes(gzip.compress(text, mtime=0))
    for name in ("x.amat", "x.amat.gz"):
        assert np.array_equal(readers.amat(tmp_path / name), array)
    for damaged in (text[:-2], b"", b"0 1 2\n1 0 1\n", b"0 1 1\n1,0 1\n", b"0 1\n1 0 1\n"):
        (tmp_path / "x.amat").write_bytes(damaged)
        with pytest.raises(ValueError, match="x.amat: found") as error:
            readers.amat(tmp_path / "x.amat")
        one_line(error)


def test_mat(tmp_path):
    from scipy.io import savemat

    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    savemat(tmp_path / "x.mat", {"ff": array})
    assert np.array_equal(readers.mat(tmp_path / "x.mat", "ff"), array)
    with pytest.raises(ValueError, match="found arrays ff, want 'gg'"):
        readers.mat(tmp_path / "x.mat", "gg")
    (tmp_path / "x.mat").write_bytes((tmp_path / "x.mat").read_bytes()[:150])
    with pytest.raises(ValueError, match="cannot be read as a MATLAB 5 file") as error:
        readers.mat(tmp_path / "x.mat", "ff")
    one_line(error)


class Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.path}",)


def test_cifar_batch():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3072), np.uint8)
    labels = np.array([7, 0, 9], np.uint8)
    official = rebuild_cifar10.pickled("training batch 1 of 5", labels, pixels, [b"a.png", b"b.png", b"c.png"])
    modern = pickle.dumps({"data": pixels, "labels": labels.tolist()}, protocol=4)
    for content in (official, modern):
        found, found_labels = readers.cifar_batch(content)
        assert np.array_equal(found, pixels) and np.array_equal(found_labels, labels)
    for content in (
        official[:-100],
        b"",
        pickle.dumps({"data": pixels[:, :9], "labels": [1, 2, 3]}, protocol=4),
    ):
        with pytest.raises(ValueError, match="^data_batch_1: found") as error:
            readers.cifar_batch(content, "data_batch_1")
        one_line(error)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_cannot_run_anything(tmp_path, protocol):
    trace = tmp_path / "trace"
    content = pickle.dumps({"data": Malicious(trace), "labels": []}, protocol)
    with pytest.raises(ValueError, match=rf"it asks for {os.system.__module__}\.system"):
        readers.cifar_batch(content)
    for name in (b"builtins\neval", b"numpy\nload", b"numpy.core.multiarray\nfromstring", b"_codecs\nencode"):
        with pytest.raises(ValueError, match="it asks for"):
            readers.cifar_batch(b"c" + name + b"\n.")
    assert not trace.exists()


# files of one's own


def save_images(folder: Path, count: int, mode: str = "L") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.new(mode, (9, 6), 10 * i if mode == "L" else (10 * i, 0, 255)).save(folder / f"{i:02d}.png")


def test_folder(tmp_path):
    save_images(tmp_path / "a", 20)
    (tmp_path / "a" / "notes.txt").write_text("no image")
    os.mkfifo(tmp_path / "a" / "pipe.png")
    train, test = data.load(f"folder:{tmp_path}", size=4)
    assert (len(train), len(test), train.shape, train.levels) == (18, 2, (1, 4, 4), 256)
    assert sorted(torch.cat([train.values, test.values])[:, 0].tolist()) == list(range(0, 200, 10))
    assert torch.equal(data.load(f"folder:{tmp_path}", size=4)[1].values, test.values)
    save_images(tmp_path / "b", 1, "RGB")
    train, test = data.load(f"folder:{tmp_path}")
    assert train.shape == (3, 32, 32)
    # One colour image makes all of them RGB, in the order C, H, W.
    (colour,) = [row for row in torch.cat([train.values, test.values]) if row[0] != row[-1]]
    assert colour.reshape(3, -1).unique(dim=1).flatten().tolist() == [0, 0, 255]


def test_folder_cuts_the_middle_square(tmp_path):
    wide = np.zeros((4, 12), np.uint8)
    wide[:, 4:8] = 200
    for i in range(2):
        Image.fromarray(wide).save(tmp_path / f"{i}.png")
    train, test = data.load(f"folder:{tmp_path}", size=4)
    assert (train.values == 200).all() and (test.values == 200).all()


def test_folder_with_official_parts(tmp_path):
    save_images(tmp_path / "train", 5)
    save_images(tmp_path / "test", 3)
    parts = data.load(f"folder:{tmp_path}", size=2, validation=True)
    assert [len(part) for part in parts] == [4, 1, 3]
    assert parts[0].values[:, 0].tolist() == [0, 10, 20, 30] and parts[1].values[0, 0] == 40


def test_folders_of_classes_give_labels(tmp_path):
    for part, count in (("train", 3), ("test", 1)):
        for name in ("owl", "cat"):
            save_images(tmp_path / part / name, count)
    train, test = data.load(f"folder:{tmp_path}", size=2)
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1] and test.labels.tolist() == [0, 1]
    whole, _ = data.load(f"folder:{tmp_path / 'train'}", size=2)  # shuffled, and the labels with the images
    paths = sorted((tmp_path / "train").rglob("*.png"))
    order = np.random.RandomState(0).permutation(6)
    assert whole.labels.tolist() == [int(paths[i].parent.name == "owl") for i in order[:5]]
    save_images(tmp_path / "train", 1)  # one that is in no class
    assert data.load(f"folder:{tmp_path}", size=2)[0].labels is None
    save_images(tmp_path / "plain" / "all", 2)
    assert data.load(f"folder:{tmp_path / 'plain'}", size=2)[0].labels is None


def test_folder_refuses(tmp_path):
    with pytest.raises(ValueError, match="found no image"):
        data.load(f"folder:{tmp_path}")
    with pytest.raises(ValueError, match="found no such folder"):
        data.load(f"folder:{tmp_path / 'nowhere'}")
    with pytest.raises(ValueError, match="load: found size=0, want an integer of at least 1"):
        data.load(f"folder:{tmp_path}", size=0)
    save_images(tmp_path, 2)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    with pytest.raises(ValueError, match="broken.png: cannot be read as an image") as error:
        data.load(f"folder:{tmp_path}")
    one_line(error)


@pytest.mark.parametrize(
    ("array", "shape", "levels"),
    [
        (np.arange(60, dtype=np.uint8).reshape(10, 6), (6,), 256),
        (np.arange(60, dtype=np.uint8).reshape(10, 2, 3), (1, 2, 3), 256),
        (np.arange(60, dtype=np.uint8).reshape(10, 2, 1, 3), (3, 2, 1), 256),
        (np.arange(240, dtype=np.uint8).reshape(10, 2, 4, 3), (3, 2, 4), 256),
        (np.arange(240, dtype=np.uint8).reshape(10, 4, 6, 1), (1, 4, 6), 256),
        (np.arange(200, dtype=np.uint8).reshape(10, 5, 2, 2), (2, 5, 2), 256),
        (np.ones((10, 6), bool), (6,), 2),
        (np.linspace(-1, 1, 60).reshape(10, 6), (6,), None),
    ],
)
def test_npy(tmp_path, array, shape, levels):
    np.save(tmp_path / "x.npy", array)
    train, test = data.load(tmp_path / "x.npy")
    assert (len(train), len(test), train.shape, train.levels) == (9, 1, shape, levels)
    flat = array.transpose(0, 3, 1, 2) if array.ndim == 4 else array
    wanted = flat.reshape(10, -1).astype(np.float32) / (1 if levels is None else levels - 1)
    assert torch.equal(torch.cat([train[:], test[:]]), torch.from_numpy(wanted))


@pytest.mark.parametrize(
    "shape", [(10, 1, 4, 4), (10, 3, 4, 4), (10, 4, 6, 5), (10, 2, 5, 6), (10, 1, 4, 1), (10, 1, 4, 3)]
)
def test_npy_of_channels_first_is_read_in_its_order(tmp_path, shape):
    array = np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)
    np.save(tmp_path / "x.npy", array)
    train, test = data.load(tmp_path / "x.npy")
    assert train.shape == shape[1:]
    assert np.array_equal(torch.cat([train.values, test.values]).numpy(), array.reshape(10, -1))


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.int8, np.uint16, np.float32, np.float64])
def test_zeros_and_ones_are_those_in_any_type(tmp_path, dtype):
    bits = (np.random.default_rng(0).random((10, 6)) > 0.5).astype(dtype)
    np.save(tmp_path / "x.npy", bits)
    train, test = data.load(tmp_path / "x.npy")
    assert train.levels == (None if np.issubdtype(dtype, np.floating) else 2)
    assert np.array_equal(torch.cat([train[:], test[:]]).numpy(), bits.astype(np.float32))


def test_levels_are_those_of_both_parts(tmp_path):
    grey, dark = np.full((4, 3), 200, np.uint8), np.ones((2, 3), np.uint8)
    np.savez(tmp_path / "x.npz", train=grey, test=dark)
    train, test = data.load(tmp_path / "x.npz")
    assert train.levels == test.levels == 256 and test[:].unique().tolist() == [torch.tensor(1 / 255).item()]


@pytest.mark.parametrize(
    ("arrays", "train", "test"),
    [
        ({"x_train": (4, 3), "x_test": (2, 3), "y_train": [3, 1, 2, 0], "y_test": [1, 1]}, [3, 1, 2, 0], [1, 1]),
        ({"x_train": (2, 3), "x_test": (2, 3), "y_train": [[3], [1]], "y_test": [[0], [1]]}, [3, 1], [0, 1]),
        ({"train": (2, 3), "test": (2, 3), "train_labels": ["b", "c"], "test_labels": ["a", "c"]}, [1, 2], [0, 2]),
        ({"images": (4, 3, 3), "labels": [3, 1, 2, 0]}, [3, 1, 2], [0]),
        ({"x_train": (2, 3), "x_test": (2, 3), "y_train": [0.5, 1.5], "y_test": [0.0, 1.0]}, None, None),
        ({"x_train": (2, 3), "x_test": (2, 3), "y_train": [1, 2]}, None, None),
    ],
)
def test_labels_beside_arrays_are_kept(tmp_path, arrays, train, test):
    held = {name: np.zeros(v) if isinstance(v, tuple) else np.array(v) for name, v in arrays.items()}
    np.savez(tmp_path / "x.npz", **held)
    found = [None if part.labels is None else part.labels.tolist() for part in data.load(tmp_path / "x.npz")]
    assert found == [train, test]


def test_labels_of_another_number_of_rows(tmp_path):
    np.savez(tmp_path / "x.npz", images=np.zeros((4, 3)), labels=np.arange(3))
    with pytest.raises(ValueError, match="found 3 labels of 4 rows, want one for each"):
        data.load(tmp_path / "x.npz")


def test_npz(tmp_path):
    train, test = np.zeros((4, 3), np.uint8), np.ones((2, 3), np.uint8)
    for keys in (("train", "test"), ("x_train", "x_test")):
        np.savez(tmp_path / "x.npz", **dict(zip(keys, (train, test), strict=True)), other=np.zeros(1))
        parts = data.load(str(tmp_path / "x.npz"))
        assert [part.values.tolist() for part in parts] == [train.tolist(), test.tolist()]
    np.savez(tmp_path / "x.npz", anything=train)
    assert [len(part) for part in data.load(str(tmp_path / "x.npz"))] == [3, 1]


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"a": np.zeros((4, 3)), "b": np.zeros((4, 3))}, "found arrays a, b, want train and test"),
        ({"a": np.array([[1.0, np.nan]] * 3)}, "row 0 that is not finite"),
        ({"a": np.array([[1.0], [1e39]])}, "row 1 that is not finite"),
        ({"a": np.full((4, 3), 7)}, r"found type int64 with values from 7 to 7, .*astype\('uint8'\) if they are grey"),
        ({"a": np.full((4, 3), -7)}, r"found type int64 with .* try array.astype\('float32'\) if they are counts"),
        ({"a": np.zeros((4, 3), complex)}, "found type complex128, want zeros and ones"),
        ({"a": np.zeros((4, 3, 3, 3))}, r"found shape \(4, 3, 3, 3\), which may be \(N, C, H, W\) or \(N, H, W, C\)"),
        ({"a": np.zeros(4)}, r"found shape \(4,\)"),
        ({"a": np.zeros((1, 4))}, "want at least 2"),
        ({"train": np.zeros((4, 3)), "test": np.zeros((4, 2))}, "want the same"),
        ({"a": np.array([[None]] * 3)}, "cannot be read as a plain numpy file"),
    ],
)
def test_npz_refuses(tmp_path, arrays, says):
    np.savez(tmp_path / "x.npz", **arrays)
    with np.errstate(over="ignore"), pytest.raises(ValueError, match=says) as error:
        data.load(str(tmp_path / "x.npz"))
    assert "x.npz" in one_line(error)


def test_truncated_npz(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", a=np.zeros((40, 30)))
    (tmp_path / "x.npz").write_bytes((tmp_path / "x.npz").read_bytes()[:-30])
    with pytest.raises(ValueError, match="cannot be read as a plain numpy file") as error:
        data.load(str(tmp_path / "x.npz"))
    one_line(error)


def test_a_text_file_brings_no_advice_to_read_it_unsafely(tmp_path):
    (tmp_path / "x.npy").write_text("1, 2\n")
    with pytest.raises(ValueError, match="it holds Python objects, or is no file of NumPy's.; use numpy.save") as error:
        data.load(str(tmp_path / "x.npy"))
    assert "allow_pickle" not in one_line(error)


# the catalogue


def test_unknown_names_and_arguments():
    with pytest.raises(ValueError, match="found 'minst'.*did you mean 'mnist'") as error:
        data.load("minst")
    one_line(error)
    with pytest.raises(ValueError, match="did you mean 'cifar10'"):
        data.describe("CIFAR-10")
    with pytest.raises(ValueError, match="load: found transform='binarise', want one of 'default'"):
        data.load("digits", transform="binarise")
    with pytest.raises(ValueError, match="size: found 32"):
        data.load("digits", size=32)
    with pytest.raises(ValueError, match=r"Scale\(levels=256\), want one with levels=17; try Scale\(17\)"):
        data.load("digits", transform=data.Scale(256))


def test_names_and_descriptions():
    assert len(data.names()) == 8
    for name in data.names():
        line = data.describe(name)
        assert line.startswith(name) and "train" in line and "test" in line and "\n" not in line
    assert "NOT the chardata.mat" in data.describe("omniglot")


def tiny_mnist(root: Path, monkeypatch: pytest.MonkeyPatch, folder: str = "") -> list[Path]:
    """Four small idx files under `root`, and a catalogue whose "mnist" has their hashes but no home."""
    import hashlib

    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 256, (30, 28, 28), np.uint8), np.arange(30, dtype=np.uint8)]
    arrays += [rng.integers(0, 256, (9, 28, 28), np.uint8), np.arange(9, dtype=np.uint8)]
    entry, sources, paths = catalogue.CATALOGUE["mnist"], [], []
    for source, array in zip(entry.sources, arrays, strict=True):
        content = gzip.compress(idx_bytes(array), mtime=0)
        path = root / folder / source.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        paths.append(path)
        sources.append(replace(source, digest="sha256:" + hashlib.sha256(content).hexdigest()))
    sources = tuple(replace(source, url="http://127.0.0.1:9/" + source.name) for source in sources)
    monkeypatch.setitem(catalogue.CATALOGUE, "mnist", replace(entry, sources=sources, validation=10))
    monkeypatch.setenv("PPL_MODELS_DATA", str(root))
    return paths


@pytest.mark.parametrize("folder", ["", "MNIST/raw", "MNIST"])
def test_local_files(tmp_path, monkeypatch, folder):
    tiny_mnist(tmp_path, monkeypatch, folder)
    assert [len(part) for part in data.load("mnist")] == [30, 9]
    train, valid, test = data.load("mnist", validation=True)
    assert [len(part) for part in (train, valid, test)] == [20, 10, 9]
    assert train.labels.tolist() == list(range(20)) and valid.labels.tolist() == list(range(20, 30))


def test_wrong_hash(tmp_path, monkeypatch):
    path = tiny_mnist(tmp_path, monkeypatch)[2]
    data.load("mnist")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=f"{path.name}: found sha256:.*want sha256:.*'mnist'.*truncated") as error:
        data.load("mnist")
    one_line(error)


def test_a_hash_is_computed_once(tmp_path, monkeypatch):
    tiny_mnist(tmp_path, monkeypatch)
    data.load("mnist")
    monkeypatch.setattr(fetch.hashlib, "new", lambda *a, **k: pytest.fail("hashed again"))
    data.load("mnist")


def test_unreachable_home(tmp_path, monkeypatch, capsys):
    tiny_mnist(tmp_path / "files", monkeypatch)
    monkeypatch.delenv("PPL_MODELS_DATA")
    monkeypatch.setenv("PPL_MODELS_DATA", str(tmp_path))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / "cache" / project)
    with pytest.raises(ConnectionError, match="mnist: http://127.0.0.1:9/.* cannot be reached") as error:
        data.load("mnist")
    assert "PPL_MODELS_DATA" in one_line(error)
    assert capsys.readouterr().err.count("\n") == 1


def test_fetching_into_the_cache(tmp_path, monkeypatch):
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
    from threading import Thread

    paths = tiny_mnist(tmp_path / "home", monkeypatch)
    monkeypatch.delenv("PPL_MODELS_DATA")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / "cache" / project)
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *a: None)
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path / "home")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        entry = catalogue.CATALOGUE["mnist"]
        home = f"http://127.0.0.1:{server.server_port}/"
        sources = tuple(replace(source, url=home + source.name) for source in entry.sources)
        monkeypatch.setitem(catalogue.CATALOGUE, "mnist", replace(entry, sources=sources))
        paths[3].write_bytes(b"<html>sign in</html>")
        with pytest.raises(ValueError, match="t10k-labels.* sent something else than sha256:") as error:
            data.load("mnist")
        one_line(error)
        tiny_mnist(tmp_path / "home", monkeypatch)
        monkeypatch.delenv("PPL_MODELS_DATA")
        monkeypatch.setitem(catalogue.CATALOGUE, "mnist", replace(entry, sources=sources))
        assert [len(part) for part in data.load("mnist")] == [30, 9]
        server.shutdown()
    assert [len(part) for part in data.load("mnist")] == [30, 9]  # from the cache


def test_a_home_that_never_stops_sending(tmp_path, monkeypatch):
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
    from threading import Thread

    class Endless(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            try:
                while True:
                    self.wfile.write(bytes(1 << 16))
            except OSError:  # whoever asked has had enough
                pass

        def log_message(self, *words):
            pass

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / project)
    with ThreadingHTTPServer(("127.0.0.1", 0), Endless) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        source = fetch.Source("x.gz", "sha256:" + "0" * 64, 1000, f"http://127.0.0.1:{server.server_port}/x.gz")
        with pytest.raises(ValueError, match="sent something else than sha256:0* of 1000 bytes") as error:
            fetch.download(source, "mnist")
        one_line(error)
        server.shutdown()
    assert not list((tmp_path / "ppl-models" / "mnist").glob("*.gz"))


def test_every_file_of_the_catalogue_states_its_size():
    for entry in catalogue.CATALOGUE.values():
        for source in entry.sources:
            path = fetch.local(source, entry.folders)
            assert source.size > 0 and (path is None or source.unzipped or path.stat().st_size == source.size), source


def test_cifar_archive(tmp_path, monkeypatch):
    import hashlib

    entry = catalogue.CATALOGUE["cifar10"]
    archive = tmp_path / entry.sources[0].name
    inside = tmp_path / "cifar-10-batches-py"
    inside.mkdir()
    for i, batch in enumerate(entry.sources[1:]):
        pixels = np.full((2, 3072), i, np.uint8)
        (inside / batch.name).write_bytes(rebuild_cifar10.pickled("x", np.full(2, i, np.uint8), pixels, [b"a", b"b"]))
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(inside, inside.name)
    (inside / "data_batch_1").unlink()
    digest = "md5:" + hashlib.md5(archive.read_bytes()).hexdigest()
    sources = (replace(entry.sources[0], digest=digest), *entry.sources[1:])
    monkeypatch.setitem(catalogue.CATALOGUE, "cifar10", replace(entry, sources=sources))
    monkeypatch.setenv("PPL_MODELS_DATA", str(tmp_path))
    train, test = data.load("cifar10")
    assert train.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4] and test.labels.tolist() == [5, 5]
    assert torch.equal(train.values[:, 0], train.labels.to(torch.uint8))
    assert data.load("cifar10", transform="logit")[0].transform == data.Logit(256, 0.05)


# Data


def test_indexing():
    d = grey()
    assert len(d) == 40 and d[3].shape == (12,) and d[3].dtype == torch.float32
    for index in (slice(2, 5), [2, 3, 4], torch.tensor([2, 3, 4]), torch.arange(40).sub(3).abs() < 2):
        assert torch.equal(d[index], d.values[2:5] / 255)
        part = d.subset(index)
        assert isinstance(part, data.Data) and part.labels.tolist() == [2, 3, 4]
        assert torch.equal(part[:], d[index]) and part.shape == d.shape
    assert d[[]].shape == (0, 12) and d[-1].equal(d[39])
    with pytest.raises(IndexError):
        d[40]
    with pytest.raises(TypeError, match="index: found 1.5"):
        d[1.5]
    with pytest.raises(TypeError, match=r"try slice\(3, 4\)"):
        d.subset(3)
    assert d.to("cpu")[:].equal(d[:]) and str(d).startswith("grey: 40 of 1 x 3 x 4, levels 256")


def test_data_refuses():
    values = torch.zeros(4, 6, dtype=torch.uint8)
    with pytest.raises(TypeError, match="found torch.float32, want a torch.uint8"):
        data.Data(values.float(), (6,), 256, data.Scale(256), "x")
    with pytest.raises(ValueError, match=r"values of x: found \(4, 6\), want \(N, 5\)"):
        data.Data(values, (5,), 256, data.Scale(256), "x")
    with pytest.raises(ValueError, match="labels of x"):
        data.Data(values, (6,), 256, data.Scale(256), "x", torch.zeros(3))
    with pytest.raises(TypeError, match="Data: found transform=None, want an Identity or a Scale"):
        data.Data(values, (6,), 256, None, "x")
    with pytest.raises(ValueError, match=r"try Identity\(\)"):
        data.Data(values.float(), (6,), None, data.Scale(256), "x")
    for levels in (1, 2.5, True):
        with pytest.raises(ValueError, match="Scale: found levels="):
            data.Scale(levels)
    with pytest.raises(ValueError, match="alpha"):
        data.Logit(256, 0.5)


def test_data_loader():
    d = grey()
    batches = list(DataLoader(d, batch_size=16))
    assert [batch.shape for batch in batches] == [(16, 12), (16, 12), (8, 12)]
    assert torch.equal(torch.cat(batches), d[:])
    assert torch.equal(torch.stack([d[i] for i in range(len(d))]), d[:])


# transforms


def test_dynamic_binarization_of_train_and_fixed_of_the_rest():
    train, valid, test = data.load("digits", validation=True)
    assert [len(part) for part in (train, valid, test)] == [1200, 297, 300]
    assert not torch.equal(train[:], train[:])
    for part in (valid, test):
        assert torch.equal(part[:], part[:]) and set(part[:].unique().tolist()) == {0.0, 1.0}
    torch.manual_seed(1)
    again = data.load("digits", validation=True)
    assert torch.equal(again[2][:], test[:]) and torch.equal(again[1][:], valid[:])
    other = data.load("digits", transform=data.Binarize(17, seed=1))
    assert not torch.equal(other[1][:], test[:]) and torch.equal(other[0][:], other[0][:])
    # Without validation the same rows come in two parts, and test does not change.
    whole = data.load("digits")
    assert torch.equal(
        whole[0].values, torch.cat([train.values, data.load("digits", validation=True, transform="none")[1].values])
    )
    assert torch.equal(whole[1][:], test[:])


def test_binarization_has_the_mean_of_the_intensity():
    levels = torch.arange(256, dtype=torch.uint8).repeat(4000, 1)
    mean = data.Binarize(256)(levels).mean(0)
    # 256 means of 4000 draws: the standard error is at most 0.0079; 4.5 of them fail once in 500 such tests.
    assert (mean - torch.arange(256) / 255).abs().max() < 4.5 * 0.5 / math.sqrt(4000)
    assert mean[0] == 0 and mean[255] == 1


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_dequantization_stays_within_its_level(levels):
    values = torch.arange(levels, dtype=torch.uint8).repeat(4000, 1)
    u = data.Dequantize(levels)(values)
    assert u.dtype == torch.float32 and u.min() >= 0 and u.max() < 1
    assert torch.equal((u.double() * levels + 1e-6 * (levels == 17)).floor().to(torch.uint8), values)
    # Uniform noise: mean 1/2 and variance 1/12, within five standard errors.
    noise = u.double() * levels - values
    count = noise.numel()
    assert abs(noise.mean() - 0.5) < 5 * math.sqrt(1 / 12 / count)
    assert abs(noise.var() - 1 / 12) < 5 * math.sqrt(1 / 180 / count)


@pytest.mark.parametrize("alpha", [1e-6, 0.05])
def test_logit(alpha):
    transform = data.Logit(256, alpha)
    values = torch.arange(256, dtype=torch.uint8).repeat(50, 1)
    y = transform(values)
    assert y.dtype == torch.float32 and y.abs().max() <= math.log((1 - alpha) / alpha) + 1e-3
    assert ((transform.to_unit(y.double()) * 256 + 1e-4).floor() - values).abs().max() <= 1
    # In float64: the inverse, and the determinant against autograd.
    u = torch.rand(7, 12, dtype=torch.float64, requires_grad=True)
    y = torch.logit(alpha + (1 - 2 * alpha) * u)
    assert torch.allclose(transform.to_unit(y), u, atol=1e-12, rtol=0)
    (slope,) = torch.autograd.grad(y.sum(), u)
    assert torch.allclose(transform.log_abs_det(y), slope.log().sum(-1), atol=1e-9, rtol=0)
    assert transform.log_abs_det(y).shape == (7,)
    far = torch.tensor([[-40.0, 40.0]])
    assert transform.to_unit(far).tolist() == [[0.0, 1.0]] and transform.log_abs_det(far).isfinite().all()


def test_codes_are_drawn_anew_from_their_moments(tmp_path):
    """Means and standard deviations side by side: of 4000 draws within five standard errors."""
    moments = np.concatenate([np.tile([[-2.0, 3.0], [0.5, 0.1]], (2000, 1)), np.tile([0.5, 2.0], (4000, 1))], 1)
    np.savez(tmp_path / "codes.npz", train=moments.astype("f4"), test=moments[:3].astype("f4"))
    train, test = data.load(tmp_path / "codes.npz", transform="redraw")
    assert train.shape == (2,) and train[:].shape == (4000, 2) and test[0].shape == (2,) and train.levels is None
    assert not torch.equal(train[:], train[:])
    z = train[::2]
    assert (z.mean(0) - torch.tensor([-2.0, 3.0])).abs().max() < 5 * 2 / math.sqrt(2000)
    assert (z.std(0) / torch.tensor([0.5, 2.0]) - 1).abs().max() < 5 / math.sqrt(2 * 2000)


@pytest.mark.parametrize(
    ("rows", "transform", "says"),
    [
        (np.zeros((9, 3)), "redraw", "found rows of 3 values .* want means and then standard deviations"),
        (np.array([[0.0, -1.0]] * 9), "redraw", "found some below 0 in the second half"),
        (np.zeros((9, 4), np.uint8), "redraw", "found 'redraw' .* whose values are grey levels"),
    ],
)
def test_what_are_no_moments(tmp_path, rows, transform, says):
    np.save(tmp_path / "rows.npy", rows)
    with pytest.raises(ValueError, match=says):
        data.load(tmp_path / "rows.npy", transform=transform)


def test_to_unit_of_the_others():
    for transform in (data.Scale(256), data.Binarize(256), data.Dequantize(256), data.Identity()):
        y = transform(grey().values)
        assert torch.equal(transform.to_unit(y), y)


# bits per dimension


def test_bits_per_dim_of_levels():
    nll = torch.tensor([12 * math.log(2), 0.0])
    for transform in (data.Scale(256), data.Binarize(256)):
        assert torch.allclose(grey(transform).bits_per_dim(nll), torch.tensor([1.0, 0.0]))
    # A uniform density on [0, 1) is the uniform distribution of the levels: 8 bits each.
    assert torch.allclose(grey(data.Dequantize(256)).bits_per_dim(nll), torch.tensor([9.0, 8.0]))
    real = data.Data(torch.zeros(4, 12), (12,), None, data.Identity(), "x")
    assert real.bits_per_dim(nll) is None


@pytest.mark.parametrize("alpha", [1e-6, 0.05])
def test_bits_per_dim_of_logits(alpha):
    d = grey(data.Logit(256, alpha))
    y = d[:].double()
    # The formula of the MAF paper, written out.
    nll = torch.linspace(-50, 50, 40, dtype=torch.float64)
    s = torch.sigmoid(y)
    wanted = nll / (12 * math.log(2)) - math.log2(1 - 2 * alpha) + 8 + (s.log2() + torch.sigmoid(-y).log2()).mean(-1)
    assert torch.allclose(d.bits_per_dim(nll, y), wanted, atol=1e-9)
    # Uniform levels, carried to the logits by the change of variables: 8 bits again.
    uniform = d.transform.log_abs_det(y)
    assert torch.allclose(d.bits_per_dim(uniform, y), torch.full((40,), 8.0, dtype=torch.float64))
    with pytest.raises(ValueError, match="x: found None"):
        d.bits_per_dim(nll)
    with pytest.raises(ValueError, match=r"want the transformed data that nll is of, \(40, 12\)"):
        d.bits_per_dim(nll, y[:3])


# the real data sets


def test_digits():
    train, test = data.load("digits", transform="none")
    assert (len(train), len(test), train.shape, train.levels) == (1497, 300, (1, 8, 8), 17)
    assert train.values.max() == 16 and train[:].max() == 1.0
    assert int(train.values.sum() + test.values.sum()) == 561718 and train.labels[:4].tolist() == [0, 1, 2, 3]


def test_mnist(stored):
    train, test = data.load("mnist", transform="none")
    assert (train.values.shape, test.values.shape, train.shape) == ((60000, 784), (10000, 784), (1, 28, 28))
    assert round(float(train.values.numpy().mean()), 4) == 33.3184 and train.labels[:5].tolist() == [
        5,
        0,
        4,
        1,
        9,
    ]
    assert round(float(test.values.numpy().mean()), 4) == 33.7912 and test.labels[:3].tolist() == [7, 2, 1]
    first, valid, _ = data.load("mnist", validation=True, transform="none")
    assert torch.equal(train.values, torch.cat([first.values, valid.values])) and len(valid) == 10000


def test_fashion_mnist(stored):
    train, test = data.load("fashion-mnist", transform="none")
    assert train.labels.bincount().tolist() == [6000] * 10 and test.labels.bincount().tolist() == [1000] * 10
    assert round(float(train.values.numpy().mean()), 4) == 72.9404


def test_static_mnist(stored):
    parts = data.load("static-mnist", validation=True)
    assert [len(part) for part in parts] == [50000, 10000, 10000]
    assert [round(float(part.values.numpy().mean()), 6) for part in parts] == [0.130562, 0.131127, 0.132512]
    assert all(part.levels == 2 and part.labels is None for part in parts)
    assert [len(part) for part in data.load("static-mnist")] == [50000, 10000]


def test_caltech101(stored):
    parts = data.load("caltech101", validation=True)
    assert [len(part) for part in parts] == [4100, 2264, 2307]
    assert all(int(part.values.max()) == 1 and 0 <= int(part.labels.min()) for part in parts)
    assert all(part.labels.max() == 100 for part in parts)
    assert [len(part) for part in data.load("caltech101")] == [4100, 2307]
    # Upright and of ink 1: a silhouette fills the middle of its image and leaves the corners.
    mean = parts[0][:].mean(0).reshape(28, 28)
    assert mean[10:18, 10:18].mean() > 0.8 > 0.5 > mean[0, 0]


def test_freyfaces(stored):
    parts = data.load("freyfaces", validation=True)
    assert [len(part) for part in parts] == [1565, 200, 200] and parts[0].shape == (1, 28, 20)
    values = torch.cat([part.values for part in parts])
    assert (int(values.min()), int(values.max())) == (8, 238)
    assert [len(part) for part in data.load("freyfaces")] == [1765, 200]
    # A row resembles the row below, 20 pixels on; 28 pixels on lies another part of the face.
    row, other = ((values[:, step:].float() - values[:, :-step].float()).abs().mean() for step in (20, 28))
    assert row < 0.6 * other


@pytest.mark.slow
def test_omniglot(stored):
    train, test = data.load("omniglot", transform="none")
    assert (len(train), len(test), train.shape) == (19280, 13180, (1, 28, 28))
    assert train.labels.max() == 963 and (test.labels.min(), test.labels.max()) == (964, 1622)
    bitmaps = readers.arrays(stored / "OMNIGLOT" / "images_background.npz")["images"][:5].reshape(-1, 105, 105)
    # Area averaging keeps the amount of ink, up to rounding to 256 levels.
    ink = torch.from_numpy((~bitmaps).mean((1, 2)))
    assert torch.allclose(train[:100].double().mean(-1), ink, atol=0.5 / 255)


def test_area_average():
    images = np.zeros((1, 105, 105), bool)
    images[0, :4, :] = True
    grey_levels = splits._area_average(images, 28).reshape(28, 28)
    assert (grey_levels[0] == 255).all() and (grey_levels[1] == round(255 * 0.25 / 3.75)).all()
    assert (grey_levels[2:] == 0).all()


@pytest.mark.slow
def test_cifar10(stored, tmp_path, monkeypatch):
    if not (stored / "CIFAR10").is_dir():
        pytest.skip("the sheets of CIFAR-10 are not stored here")
    rebuild_cifar10.rebuild(stored, tmp_path / "cifar-10-batches-py")
    monkeypatch.setenv("PPL_MODELS_DATA", str(tmp_path))
    train, valid, test = data.load("cifar10", validation=True)
    assert [len(part) for part in (train, valid, test)] == [45000, 5000, 10000] and train.shape == (3, 32, 32)
    values = torch.cat([train.values, valid.values]).reshape(50000, 3, 1024).numpy()
    assert (values.mean((0, 2)) / 255).round(4).tolist() == [0.4914, 0.4822, 0.4465]
    assert torch.cat([train.labels, valid.labels]).bincount().tolist() == [5000] * 10
    assert train.values.dtype == torch.uint8


def test_options_go_by_name_and_missing_files_are_said_so(tmp_path):
    with pytest.raises(TypeError, match="positional"):
        data.load("digits", True)
    for name in ("no.npy", "no.npz"):
        with pytest.raises(ValueError, match=f"{name}: found no such file, want a .npy or .npz file; try its absolute"):
            data.load(tmp_path / name)
    with pytest.raises(ValueError, match="no: found no such folder, want a folder of images; try its absolute path"):
        data.load(f"folder:{tmp_path / 'no'}")
