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

    Where every image lies in a folder of its class, one for each of several classes, labels count these by name.
    Raises ValueError for a size below 1, fewer than two images or what the readers refuse.
    """
    root = Path(path).expanduser()
    if (root / "train").is_dir() and (root / "test").is_dir():
        found = {part: readers.image_paths(root / part) for part in ("train", "test")}
        split = len(found["train"])
        inside = [each.relative_to(root / part) for part, paths in found.items() for each in paths]
        paths = [*found["train"], *found["test"]]
    else:
        # Sorted names often run class by class; without shuffling, test would be the last class.
        sorted_paths = readers.image_paths(root)
        paths = [sorted_paths[i] for i in _shuffled(len(sorted_paths))]
        split = nine_tenths(len(paths), path)
        inside = [each.relative_to(root) for each in paths]
    # Read together, so that both parts are grey or both in colour.
    pixels = readers.images(paths, size)
    rows = Rows(pixels.reshape(len(pixels), -1), pixels.shape[1:], 256, _classes(inside))
    return [rows.part(slice(None, split)), rows.part(slice(split, None))]


def _classes(paths: list[Path]) -> np.ndarray | None:
    """The number of each path's first folder among all of them; None unless there are several, and no file beside."""
    folders = ["" if len(path.parts) == 1 else path.parts[0] for path in paths]
    names, labels = np.unique(folders, return_inverse=True)
    return labels if len(names) > 1 and "" not in names else None


def nine_tenths(size: int, origin: str) -> int:
    """The number of rows of train where the last tenth is test.

    Raises ValueError for a single row.
    """
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
