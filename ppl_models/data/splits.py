"""From checked files to the official parts of each data set, as plain arrays; one function a set."""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import readers
from .fetch import Source, local, path_of, verify

Sources = tuple[Source, ...]
Folders = tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Rows:
    """One part before torch: values (N, D), the shape of a row, grey levels or None, labels (N,) or None."""

    values: np.ndarray
    shape: tuple[int, ...]
    levels: int | None
    labels: np.ndarray | None = None

    def part(self, index: slice | np.ndarray) -> Rows:
        """The rows at `index`."""
        labels = None if self.labels is None else self.labels[index]
        return Rows(self.values[index], self.shape, self.levels, labels)


def _shuffled(size: int) -> np.ndarray:
    # numpy promises that the stream of RandomState never changes; that of default_rng may.
    return np.random.RandomState(0).permutation(size)


def digits(name: str, sources: Sources, folders: Folders) -> list[Rows]:
    """The digits that come with scikit-learn, not those of MNIST: the first 1497 rows, the last 300."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    rows = Rows(bunch.data.astype(np.uint8), (1, 8, 8), 17, bunch.target)
    return [rows.part(slice(None, 1497)), rows.part(slice(1497, None))]


def mnist(name: str, sources: Sources, folders: Folders) -> list[Rows]:
    """MNIST and Fashion-MNIST: the official parts of four idx files."""
    train, train_labels, test, test_labels = (readers.idx(path_of(s, folders, name)) for s in sources)
    return [
        Rows(train.reshape(len(train), -1), (1, 28, 28), 256, train_labels),
        Rows(test.reshape(len(test), -1), (1, 28, 28), 256, test_labels),
    ]


def static_mnist(name: str, sources: Sources, folders: Folders) -> list[Rows]:
    """Statically binarized MNIST: the official three parts; no labels, and not in the order of MNIST."""
    return [Rows(readers.amat(path_of(source, folders, name)), (1, 28, 28), 2) for source in sources]


def omniglot(name: str, sources: Sources, folders: Folders) -> list[Rows]:
    """OMNIGLOT bitmaps (105x105, False is ink) as 28x28 grey levels, ink 255; test labels go on from 964."""
    rows, first = [], 0
    for source in sources:
        content = readers.arrays(path_of(source, folders, name))
        ink = ~content["images"].reshape(-1, 105, 105)
        labels = content["labels"].reshape(-1).astype(np.int64)
        rows.append(Rows(_area_average(ink, 28), (1, 28, 28), 256, labels + first))
        first += int(labels.max()) + 1
    return rows


def freyfaces(name: str, sources: Sources, folders: Folders) -> list[Rows]:
    """Frey faces: 1965 frames of a film, shuffled, since neighbors are alike; the last 200 are test."""
    frames = readers.mat(path_of(sources[0], folders, name), "ff").T
    rows = Rows(frames[_shuffled(len(frames))], (1, 28, 20), 256)
    return [rows.part(slice(None, -200)), rows.part(slice(-200, None))]


def caltech101(name: str, sources: Sources, folders: Folders) -> list[Rows]:
    """Caltech 101 silhouettes, split 1: three official parts; labels 0 .. 100 (the file counts from 1)."""
    path = path_of(sources[0], folders, name)
    rows = []
    for part in ("train", "val", "test"):
        # The file is column-major and draws the object as 0; every published figure uses the object as 1.
        stored = readers.mat(path, f"{part}_data").reshape(-1, 28, 28).transpose(0, 2, 1)
        labels = readers.mat(path, f"{part}_labels").reshape(-1).astype(np.int64) - 1
        rows.append(Rows(1 - stored.reshape(-1, 784), (1, 28, 28), 2, labels))
    return rows


def cifar10(name: str, sources: Sources, folders: Folders) -> list[Rows]:
    """CIFAR-10: the official python batches, lying unpacked or read straight from their archive."""
    archive, *batches = sources
    paths = [local(batch, folders) for batch in batches]
    if all(paths):
        for path, batch in zip(paths, batches, strict=True):
            verify(path, batch, name)
        contents = (path.read_bytes() for path in paths)
    else:
        contents = _members(path_of(archive, folders, name), [batch.name for batch in batches])
    read = [readers.cifar_batch(content, batch.name) for content, batch in zip(contents, batches, strict=True)]
    pixels, labels = zip(*read, strict=True)
    shape = (3, 32, 32)
    return [
        Rows(np.concatenate(pixels[:-1]), shape, 256, np.concatenate(labels[:-1])),
        Rows(pixels[-1], shape, 256, labels[-1]),
    ]


def folder(path: str, size: int) -> list[Rows]:
    """Images of a folder: its sub-folders train and test, else all of it shuffled, the last tenth for test.

    Raises ValueError for a size below 1, fewer than two images or what the readers refuse.
    """
    if not isinstance(size, int) or size < 1:
        raise ValueError(f"size: found {size!r}, want the side of the images in pixels; try 32")
    root = Path(path).expanduser()
    if (root / "train").is_dir() and (root / "test").is_dir():
        train = readers.image_paths(root / "train")
        paths = train + readers.image_paths(root / "test")
        split = len(train)
    else:
        # Sorted names often run class by class; without shuffling, test would be the last class.
        found = readers.image_paths(root)
        paths = [found[i] for i in _shuffled(len(found))]
        split = _nine_tenths(len(paths), path)
    # Read together, so that both parts are grey or both in colour.
    pixels = readers.images(paths, size)
    rows = Rows(pixels.reshape(len(pixels), -1), pixels.shape[1:], 256)
    return [rows.part(slice(None, split)), rows.part(slice(split, None))]


def array_file(path: str) -> list[Rows]:
    """Arrays of a .npy or .npz file: train and test, x_train and x_test, or one array, its last tenth test.

    An array is (N, D), (N, H, W) or (N, H, W, C); uint8 has 256 levels, bool 2, floating point is real data.
    Raises ValueError for other names, shapes or types, values that are not finite, or parts that do not
    match.
    """
    found = readers.arrays(Path(path).expanduser())
    for keys in (("train", "test"), ("x_train", "x_test")):
        if set(keys) <= set(found):
            train, test = (_array_rows(found[key], f"{path}[{key}]") for key in keys)
            if (train.shape, train.levels) != (test.shape, test.levels):
                raise ValueError(
                    f"{path}: found rows {train.shape} of {keys[0]} and {test.shape} of {keys[1]} with "
                    f"levels {train.levels} and {test.levels}, want the same; save both alike"
                )
            return [train, test]
    if len(found) != 1:
        raise ValueError(
            f"{path}: found arrays {', '.join(found) or 'none'}, want train and test, x_train and x_test, "
            "or a single array"
        )
    rows = _array_rows(next(iter(found.values())), path)
    split = _nine_tenths(len(rows.values), path)
    return [rows.part(slice(None, split)), rows.part(slice(split, None))]


def _array_rows(array: np.ndarray, origin: str) -> Rows:
    if array.ndim not in (2, 3, 4) or 0 in array.shape:
        raise ValueError(f"{origin}: found shape {array.shape}, want (N, D), (N, H, W) or (N, H, W, C)")
    if array.ndim == 4:
        array = array.transpose(0, 3, 1, 2)
    elif array.ndim == 3:
        array = array[:, None]
    shape, flat = array.shape[1:], array.reshape(len(array), -1)
    if array.dtype == np.uint8:
        return Rows(flat, shape, 256)
    if array.dtype == np.bool_:
        return Rows(flat.astype(np.uint8), shape, 2)
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(
            f"{origin}: found type {array.dtype}, want uint8 (256 levels), bool or floating point; "
            "try array.astype('uint8') or array.astype('float32')"
        )
    real = flat.astype(np.float32)
    if not np.isfinite(real).all():
        row = int(np.flatnonzero(~np.isfinite(real).all(1))[0])
        raise ValueError(f"{origin}: found a value in row {row} that is not finite in float32; remove or mend it")
    return Rows(real, shape, None)


def _nine_tenths(size: int, origin: str) -> int:
    if size < 2:
        raise ValueError(f"{origin}: found {size} datum, want at least 2 for train and test")
    return size - max(1, size // 10)


def _members(path: Path, wanted: list[str]) -> list[bytes]:
    found = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = Path(member.name).name
                if name in wanted and member.isfile():
                    found[name] = archive.extractfile(member).read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ValueError(f"{path}: cannot be read as an archive ({error}); fetch it again") from None
    if missing := [name for name in wanted if name not in found]:
        raise ValueError(f"{path}: found no {', '.join(missing)}, want the official CIFAR-10 archive")
    return [found[name] for name in wanted]


def _area_average(images: np.ndarray, size: int) -> np.ndarray:
    # Weight of source pixel j in target pixel i: the overlap of [j, j + 1] with [i r, (i + 1) r], over r.
    side = images.shape[1]
    ratio = side / size
    i, j = np.arange(size)[:, None], np.arange(side)[None]
    overlap = np.minimum((i + 1) * ratio, j + 1) - np.maximum(i * ratio, j)
    weight = (overlap.clip(0) / ratio).astype(np.float32)
    grey = np.empty((len(images), size * size), np.uint8)
    for start in range(0, len(images), 1000):
        block = images[start : start + 1000].astype(np.float32)
        grey[start : start + 1000] = np.rint(255 * (weight @ block @ weight.T)).reshape(len(block), -1)
    return grey
