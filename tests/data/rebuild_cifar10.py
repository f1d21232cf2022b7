"""Rebuild the official CIFAR-10 python batches from the lossless sheets of the stored data, byte for byte.

    python tests/rebuild_cifar10.py <data root> <target folder>

The sheets lie in <data root>/CIFAR10. The batches were pickled by Python 2 (cPickle, protocol 2), which no
Python 3 repeats: it knows one string type for two and numbers what it has stored in another way. So the few
opcodes are written here by hand, and every file is compared with its official md5 before it is put down.
Point PPL_MODELS_DATA at the target folder to load them.
"""

from __future__ import annotations

import gzip
import hashlib
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

SHEET = (25, 32, 40, 32, 3)  # rows of images, rows of pixels, columns of images, columns of pixels, channels
CHUNK = 1000  # cPickle appends to a list in batches of 1000
MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}


class Python2Pickle:
    """The opcodes of protocol 2 that a batch needs; objects that are stored twice are numbered from 1."""

    def __init__(self) -> None:
        self.stored = 0

    def put(self) -> bytes:
        self.stored += 1
        return b"q" + bytes([self.stored]) if self.stored < 256 else b"r" + struct.pack("<I", self.stored)

    def string(self, text: bytes) -> bytes:
        return b"U" + bytes([len(text)]) + text

    def array(self, pixels: np.ndarray) -> Iterator[bytes]:
        yield b"cnumpy.core.multiarray\n_reconstruct\n" + self.put() + b"cnumpy\nndarray\n" + self.put()
        yield b"K\x00\x85" + self.string(b"b") + b"\x87R" + self.put()
        yield b"(K\x01" + b"".join(b"M" + struct.pack("<H", size) for size in pixels.shape) + b"\x86"
        yield b"cnumpy\ndtype\n" + self.put() + self.string(b"u1") + b"K\x00K\x01\x87R" + self.put()
        yield b"(K\x03" + self.string(b"|") + b"NNN" + 2 * b"J\xff\xff\xff\xff" + b"K\x00tb"
        content = pixels.tobytes()
        yield b"\x89T" + struct.pack("<I", len(content)) + content + b"tb"

    def list(self, items: list[bytes], stored: bool) -> Iterator[bytes]:
        yield b"]" + self.put()
        for start in range(0, len(items), CHUNK):
            yield b"("
            for item in items[start : start + CHUNK]:
                yield item + self.put() if stored else item
            yield b"e"


def pickled(title: str, labels: np.ndarray, pixels: np.ndarray, names: list[bytes]) -> bytes:
    """One batch as Python 2 pickled it: a dictionary of batch_label, labels, data and filenames."""
    python2 = Python2Pickle()

    def pieces() -> Iterator[bytes]:
        yield b"\x80\x02}" + python2.put() + b"("
        yield python2.string(b"batch_label") + python2.put() + python2.string(title.encode()) + python2.put()
        yield python2.string(b"labels") + python2.put()
        yield from python2.list([b"K" + bytes([label]) for label in labels.tolist()], stored=False)
        yield python2.string(b"data") + python2.put()
        yield from python2.array(pixels)
        yield python2.string(b"filenames") + python2.put()
        yield from python2.list([python2.string(name) for name in names], stored=True)
        yield b"u."

    return b"".join(pieces())


def sheet(path: Path) -> np.ndarray:
    """The 1000 images of a sheet, uint8 (1000, 3072), each in the order C, H, W."""
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image).reshape(SHEET).transpose(0, 2, 4, 1, 3).reshape(1000, 3072)


def rebuild(root: Path, target: Path) -> list[Path]:
    """Write the six batches of <root>/CIFAR10 into `target`; raises ValueError where an md5 differs."""
    stored = root / "CIFAR10"
    names = gzip.decompress((stored / "filenames.txt.gz").read_bytes()).split()
    labels = np.concatenate([np.load(stored / f"{part}_labels.npy") for part in ("train", "test")])
    sheets = [stored / f"train_{i:02d}.webp" for i in range(50)]
    sheets += [stored / f"test_{i:02d}.webp" for i in range(10)]
    target.mkdir(parents=True, exist_ok=True)
    paths = []
    for i, (name, md5) in enumerate(MD5.items()):
        rows = slice(10000 * i, 10000 * (i + 1))
        title = f"training batch {i + 1} of 5" if i < 5 else "testing batch 1 of 1"
        pixels = np.concatenate([sheet(path) for path in sheets[10 * i : 10 * (i + 1)]])
        content = pickled(title, labels[rows], pixels, names[rows])
        found = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if found != md5:
            raise ValueError(f"{name}: rebuilt with md5 {found}, wanted {md5}; are the sheets complete?")
        (target / name).write_bytes(content)
        paths.append(target / name)
    return paths


if __name__ == "__main__":
    for path in rebuild(Path(sys.argv[1]), Path(sys.argv[2])):
        print(path)
