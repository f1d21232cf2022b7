"""Readers of the file formats: each takes a path (or bytes) and returns numpy arrays as the file holds them.

A file that is not what it should be raises ValueError in one line that names the file. Nothing a file holds is ever
executed: arrays are loaded without pickle, and the one pickled format goes through `_ArrayUnpickler`.
"""

from __future__ import annotations

import gzip
import io
import os
import pickle
import struct
import sys
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from math import prod
from pathlib import Path

import numpy as np

from ppl_models.programs.legible import brief, legible, listed

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")


def plain(path: Path) -> bytes:
    """The bytes of a file, unzipped if its name ends in .gz.

    Raises ValueError if the gzip stream is damaged or cut short.
    """
    content = Path(path).read_bytes()
    if not str(path).endswith(".gz"):
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: found a damaged or truncated gzip file ({error}); fetch it again") from None


def idx(path: Path) -> np.ndarray:
    """An idx file of bytes (.gz or plain), the format of MNIST: uint8 of the shape its header gives.

    Header: two zero bytes, the type (8 for uint8), the number of axes, then each size as a big-endian int32.
    Raises ValueError for another header or a length that disagrees with it.
    Source: Y. LeCun, C. Cortes, C. Burges, the MNIST database, "file formats".
    """
    content = plain(path)
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise ValueError(f"{path}: found header {content[:4]!r}, want an idx file of uint8 (00 00 08 ..)")
    axes = content[3]
    start = 4 + 4 * axes
    if not 0 < axes < 9:
        raise ValueError(f"{path}: found {axes} axes, want 1 to 8; the file is damaged, fetch it again")
    if len(content) < start:
        raise ValueError(f"{path}: found a header cut short at {len(content)} bytes, want {start}; fetch it again")
    shape = struct.unpack(f">{axes}i", content[4:start])
    wanted = prod(shape)
    if len(content) - start != wanted or min(shape) < 0:
        raise ValueError(
            f"{path}: found {len(content) - start} bytes after the header, want {wanted} for shape "
            f"{shape}; the file is truncated or damaged, fetch it again"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def amat(path: Path) -> np.ndarray:
    """A text file of zeros and ones (.gz or plain), one row a line, single blanks between: uint8 (N, D).

    Raises ValueError for any other character and for lines of unequal length.
    Source: H. Larochelle's binarized MNIST.
    """
    characters = np.frombuffer(plain(path), np.uint8)
    ends = np.flatnonzero(characters == ord("\n"))
    width = int(ends[0]) + 1 if len(ends) else 0
    # Every character has its place, so that no parsing is needed: digit, blank, digit, .., digit, newline.
    if not width or width % 2 or len(characters) % width:
        raise ValueError(
            f"{path}: found {len(characters)} characters in lines of {width}, want equal lines of 0 and 1 "
            "with single blanks between; the file is truncated or of another format"
        )
    table = characters.reshape(-1, width)
    digits, blanks = table[:, 0::2], table[:, 1:-1:2]
    if (digits >> 1 != ord("0") >> 1).any() or (blanks != ord(" ")).any() or (table[:, -1] != ord("\n")).any():
        raise ValueError(f"{path}: found other characters than 0, 1, single blanks and newlines; not a binary amat")
    return digits - np.uint8(ord("0"))


def mat(path: Path, key: str) -> np.ndarray:
    """The array `key` of a MATLAB 5 file, in the shape and type of the file.

    Raises ValueError if the file cannot be read or has no such array.
    """
    from scipy.io import loadmat

    try:
        content = loadmat(path)
    except Exception as error:  # scipy raises half a dozen types for a damaged file
        raise ValueError(f"{path}: cannot be read as a MATLAB 5 file ({error}); fetch it again") from None
    if key not in content:
        held = ", ".join(sorted(name for name in content if not name.startswith("__")))
        raise ValueError(f"{path}: found arrays {held or 'none'}, want {key!r}")
    return content[key]


def arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a .npz file by name, or the one of a .npy file under the name "data".

    Raises ValueError if the file is missing, damaged, larger than the memory of this machine once it is unpacked, or
    holds pickled objects, which are not loaded.
    """
    path = Path(path)
    if not path.is_file():  # a pipe might never end
        raise _missing(path, "file", "a .npy or .npz file")
    try:
        # Opened here, since numpy leaves a damaged archive open.
        with open(path, "rb") as file:
            packed = zipfile.is_zipfile(file)
            sizes = [each.file_size for each in zipfile.ZipFile(file).infolist()] if packed else [path.stat().st_size]
            if sum(sizes) > _memory():
                raise ValueError(f"{sum(sizes)} bytes of arrays, more than this machine has memory")
            file.seek(0)
            content = np.load(file, allow_pickle=False)
            if isinstance(content, np.ndarray):
                if file.read(1):
                    raise ValueError("there is more behind its array")
                return {"data": content}
            found = {name: content[name] for name in content.files}
            if bad := [name for name, value in found.items() if not isinstance(value, np.ndarray)]:
                raise ValueError(f"{listed(bad)} in it is no array")
            return found
    except Exception as error:  # bytes that nothing is known of raise what they like
        reason = brief(legible(str(error).partition("\n")[0]))
        if "pickle" in reason:  # what NumPy says of every file that it does not know, with advice to load it unsafely
            reason = "it holds Python objects, or is no file of NumPy's"
        raise ValueError(
            f"{path}: cannot be read as a plain numpy file ({reason}); use numpy.save or numpy.savez"
        ) from None


def _memory() -> int:
    """Bytes of memory of this machine; where it does not tell, those that an address can reach."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return sys.maxsize


def image_paths(folder: Path) -> list[Path]:
    """The image files in a folder and below, by their suffix, sorted by path.

    Raises ValueError if there is no such folder or no image in it.
    """
    if not Path(folder).is_dir():
        raise _missing(folder, "folder", "a folder of images")
    named = (path for path in Path(folder).rglob("*") if path.suffix.lower() in SUFFIXES)
    paths = sorted(path for path in named if path.is_file())  # a pipe might never end
    if not paths:
        raise ValueError(f"{folder}: found no image, want files that end in {', '.join(SUFFIXES)}")
    return paths


def _missing(path: Path, kind: str, want: str) -> ValueError:
    return ValueError(f"{path}: found no such {kind}, want {want}; try its absolute path (this is {Path.cwd()})")


def images(paths: Sequence[Path], size: int) -> np.ndarray:
    """Image files cut to their central square and resized (Lanczos): uint8 (N, C, size, size), 0 .. 255.

    C is 1 if every file is grey, else 3; transparency is dropped.
    Raises ValueError naming the first file that cannot be read.
    """
    from PIL import Image

    pictures = []
    for path in paths:
        try:
            with warnings.catch_warnings(), Image.open(path) as image:
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # twice as large is an error
                if image.mode.startswith(("I", "F")):  # Pillow would clip deeper pixels to white
                    raise ValueError(f"mode {image.mode}, want 8 bits a channel")
                mode = "L" if image.mode in ("1", "L", "LA") else "RGB"
                picture = image.convert(mode)
        except Exception as error:  # Pillow raises OSError, SyntaxError, struct.error, .. for a damaged file
            reason = str(error).partition("\n")[0]
            raise ValueError(f"{path}: cannot be read as an image ({reason}); mend or remove the file") from None
        side = min(picture.size)
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        box = (left, top, left + side, top + side)
        pictures.append(picture.resize((size, size), Image.Resampling.LANCZOS, box=box))
    mode = "L" if all(picture.mode == "L" for picture in pictures) else "RGB"
    stack = np.stack([np.asarray(picture.convert(mode)) for picture in pictures])
    return stack[:, None] if mode == "L" else np.ascontiguousarray(stack.transpose(0, 3, 1, 2))


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles dictionaries, lists, strings, numbers and numpy arrays; refuses every other name."""

    # The official CIFAR-10 batches are pickles, and a pickle is a program: it may import any name and call
    # it, so loading a doctored file with pickle.load runs whatever its author wished. All names pass through
    # find_class; these three are what numpy writes for an array, and none of them runs code that the file
    # brings along. numpy 2 moved _reconstruct, so both of its homes are admitted and the function is taken
    # from numpy itself.
    _admitted = {
        ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in self._admitted:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which a CIFAR-10 batch has no use for")
        return self._admitted[module, name]


def cifar_batch(content: bytes, name: str = "CIFAR-10 batch") -> tuple[np.ndarray, np.ndarray]:
    """Pixels uint8 (n, 3072) in the order C, H, W and labels int64 (n,), 0 .. 9, of an official python batch.

    Raises ValueError, with `name`, for anything that is not such a pickle, without running what it holds.
    Source: Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images".
    """
    try:
        # Written by Python 2: latin1 turns its byte strings into text, and numpy turns that into bytes again.
        batch = _ArrayUnpickler(io.BytesIO(content), encoding="latin1").load()
        pixels, labels = np.asarray(batch["data"]), np.asarray(batch["labels"], dtype=np.int64)
    except Exception as error:  # a damaged pickle may raise anything
        reason = f" ({error})".partition("\n")[0] if isinstance(error, pickle.UnpicklingError) else ""
        raise ValueError(f"{name}: found no batch of CIFAR-10{reason}; fetch the official file again") from None
    if pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != 3072 or labels.shape != pixels.shape[:1]:
        raise ValueError(
            f"{name}: found data {pixels.dtype} {pixels.shape} with labels {labels.shape}, want uint8 "
            "(n, 3072) with labels (n,); fetch the official file again"
        )
    return pixels, labels
