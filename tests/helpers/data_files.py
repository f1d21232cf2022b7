"""`array_files`, `image_files`, `raw_files`: files of data that are damaged, forged or of a wrong kind, each named."""

import gzip
import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as numpy_format

Write = Callable[[Path], object]


class Planted:
    """An object whose pickle makes a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mknod, ("canary",)


def npy(array: np.ndarray, **how: Any) -> bytes:
    """The bytes of a .npy file."""
    file = io.BytesIO()
    np.save(file, array, **how)
    return file.getvalue()


def forged(header: str, body: bytes = b"\0" * 96, version: int = 1, length: int | None = None) -> bytes:
    """A .npy file with this header, whatever its body."""
    text = header.encode("latin1") + b"\n"
    size = len(text) if length is None else length
    packed = struct.pack("<H", size % 2**16) if version == 1 else struct.pack("<I", size)
    return (
        numpy_format.magic(version if version in (1, 2, 3) else 1, 0)[:6] + bytes([version, 0]) + packed + text + body
    )


def told(descr: str = "'<f8'", order: str = "False", shape: str = "(4, 3)") -> str:
    """A header of these words."""
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"


def contents() -> Iterator[tuple[str, bytes]]:
    """(what, bytes) of arrays that are none of data."""
    whole = npy(np.zeros((4, 3)))
    for end in (0, 1, 5, 6, 8, 9, 10, 40, 127, 128, 129, len(whole) - 1):
        yield f"cut after {end} bytes", whole[:end]
    yield "with more behind it", whole + b"more"
    yield "a text", b"1,2,3\n4,5,6\n"
    yield "zeros", b"\0" * 200
    yield "a pickle", pickle.dumps([Planted()])
    yield "another format", b"\x89HDF\r\n\x1a\n" + b"\0" * 100
    for descr in (
        "'|O'", "'O8'", "'<U3'", "'|S8'", "'<c16'", "'<M8[s]'", "'<m8[D]'", "'|V8'", "[('a', '<f8')]", "'<f16'",
        "'<f99'", "'f8,f8'", "'(2,3)f8'", "'__import__(\"os\").mknod(\"canary\")'", "None", "8", "{}", "[]", "''",
        "'x'", "('<f8', (2,))", "[('a', '|O')]", "'<u8'", "'<i8'", "'|b1'", "'>f8'", "'<e'",
    ):  # fmt: skip
        yield f"descr {descr}", forged(told(descr))
    for shape in (
        "(-1, 3)", "(4, -3)", "(2**70, 3)", "(1000000000000, 3)", "(4, 10**9)", "(9223372036854775807, 2)", "(4, 3.0)",
        "('4', 3)", "(4)", "4", "None", "()", "(12,)", "(0, 3)", "(4, 0)", "[4, 3]", "(True, 3)", "(1, 1, 1, 1, 4, 3)",
        "(4,)*40", "(4, 3, 2, 2)", "(" + "1," * 60 + ")", "(((4, 3)))", "(4, None)", "(100000, 100000)", "(1, 12)",
    ):  # fmt: skip
        yield f"shape {shape}", forged(told(shape=shape))
    for order in ("1", "None", "'no'", "[]"):
        yield f"order {order}", forged(told(order=order))
    for what, header in {
        "no mapping": "[1, 2]",
        "code": "__import__('os').mknod('canary')",
        "nothing": "",
        "nested": "(" * 5000 + ")" * 5000,
        "lacks": "{'descr': '<f8'}",
        "more": told()[:-1] + "'more': 1}",
        "a word": "elbow",
        "a null": told()[:-1] + "\0}",
        "long": told() + " " * 60000,
    }.items():
        yield f"header {what}", forged(header)
    yield "a header of 4 GB", forged(told(), version=2, length=2**32 - 1)
    yield "a header too short", forged(told(), length=3)
    for version in (0, 4, 9):
        yield f"version {version}", forged(told(), version=version)
    for what, value in {"nan": np.nan, "inf": np.inf, "minus inf": -np.inf, "too large": 1e300}.items():
        array = np.zeros((4, 3))
        array[2, 1] = value
        yield f"a value of {what}", npy(array)
    yield "objects", npy(np.array([[Planted(), None]] * 4, object), allow_pickle=True)
    yield "words", npy(np.array([["a", "b"]] * 4))
    yield "structured", npy(np.zeros(4, [("a", float), ("b", int)]))
    yield "integers", npy(np.full((4, 3), 2**62))
    yield "one row", npy(np.zeros((1, 3)))
    yield "no rows", npy(np.zeros((0, 3)))
    yield "a number", npy(np.float64(3))


def array_files() -> Iterator[tuple[str, str, Write]]:
    """(what, name, what writes it) of files that are to be arrays, and paths in the place of such."""
    for what, content in contents():
        yield what, "x.npy", lambda path, content=content: path.write_bytes(content)
        yield f"{what}, in an archive", "x.npz", lambda path, content=content: archive(path, {"train.npy": content})
    whole = npy(np.zeros((4, 3)))
    good = {"train.npy": whole, "test.npy": whole}
    for what, members in {
        "no members": {},
        "other members": {"a": b"x", "b": b"y"},
        "members without suffix": {"train": whole, "test": whole},
        "paths of members": {"../train.npy": whole, "/test.npy": whole},
        "a folder": {"train.npy/": b"", "test.npy": whole},
        "names that steer": {"\x1b[2J\n.npy": whole, "b.npy": whole},
        "long names": {f"{'x' * 5000}.npy": whole, "b.npy": whole},
        "many names": {f"a{i}.npy": whole for i in range(3000)},
        "an archive in it": {"train.npy": b"PK\x03\x04", "test.npy": whole},
        "another number of columns": {"train.npy": whole, "test.npy": npy(np.zeros((4, 2)))},
        "labels of another length": {"x.npy": whole, "y.npy": npy(np.zeros(3, int))},
        "labels of objects": {**good, "y_train.npy": npy(np.array([None] * 4), allow_pickle=True)},
        "labels that are no numbers": {**good, "y_train.npy": npy(np.full(4, np.nan)), "y_test.npy": whole},
        "labels too large": {
            "x.npy": whole, "y.npy": npy(np.full(4, 2**64 - 1, np.uint64)),
        },
        "labels of both kinds": {
            **good, "y_train.npy": npy(np.array(["a"] * 4)), "y_test.npy": npy(np.arange(4)),
        },
    }.items():  # fmt: skip
        yield what, "x.npz", lambda path, members=members: archive(path, members)
    for end in (0, 4, 30, 100, -1, -22, -60):
        yield f"an archive cut at {end}", "x.npz", lambda path, end=end: cut(path, good, end)
    for flag in (1, 64):
        yield f"an archive of flags {flag}", "x.npz", lambda path, flag=flag: flagged(path, good, flag)
    yield "an archive of another method", "x.npz", lambda path: method(path, good)
    yield "an archive as an array", "x.npy", lambda path: archive(path, good)
    yield "more than it holds", "x.npz", lambda path: bomb(path, told(shape="(2000000000000, 3)"), 1)
    yield "a bomb", "x.npz", lambda path: bomb(path, told(shape="(4, 3)"), 64)
    yield from paths("x.npy")
    yield from paths("x.npz")


def paths(name: str) -> Iterator[tuple[str, str, Write]]:
    """The same of paths that are no files."""
    yield "a pipe", name, os.mkfifo
    yield "a folder", name, Path.mkdir
    yield "a link to nowhere", name, lambda path: path.symlink_to("nowhere")
    yield "a link to itself", name, lambda path: path.symlink_to(path)
    yield "a link to a device", name, lambda path: path.symlink_to("/dev/zero")
    yield "a link to a pipe", name, lambda path: (os.mkfifo(path.with_name("pipe")), path.symlink_to("pipe"))
    yield "nothing", name, lambda path: None


def image_files() -> Iterator[tuple[str, str, Write]]:
    """(what, name, what writes it) of files that are to be images in a folder."""
    from PIL import Image

    def png(mode: str = "L", size: tuple[int, int] = (8, 8), form: str = "png", **how: Any) -> bytes:
        file = io.BytesIO()
        Image.new(mode, size).save(file, form, **how)
        return file.getvalue()

    whole = png()
    for end in (0, 1, 8, 20, 33, 40, len(whole) - 13):
        yield f"cut after {end} bytes", "a.png", lambda path, end=end: path.write_bytes(whole[:end])
    header = bytearray(whole)
    for side in (0, 2**31 - 1, 60_000):
        header[16:24] = struct.pack(">II", side, side)
        yield f"a side of {side}", "a.png", lambda path, found=bytes(header): path.write_bytes(found)
    for what, content in {
        "a text": b"x",
        "a pickle": pickle.dumps(Planted()),
        "zeros": b"\0" * 5000,
        "another checksum": whole[:30] + b"\0\0\0" + whole[33:],
        "16 bits": png("I;16"),
        "floating point": png("F", form="tiff"),
        "a drawing": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "a script": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n(canary) (w) file\n",
    }.items():
        for name in ("a.png", "a.jpg", "a.tif", "a.gif", "a.PPM"):
            yield f"{what} as {name}", name, lambda path, content=content: path.write_bytes(content)
    yield "a text of 10**9 pixels", "a.pgm", lambda path: path.write_bytes(b"P5\n100000 100000\n255\n")
    yield "a negative side", "a.pgm", lambda path: path.write_bytes(b"P5\n-8 -8\n255\n")
    yield from paths("a.png")


def raw_files() -> Iterator[tuple[str, str, bytes]]:
    """(reader, what, bytes) of files that the other readers take."""
    for what, content in {
        "nothing": b"", "a text": b"elbow\n", "zeros": b"\0" * 100, "a pickle": pickle.dumps([Planted()]),
        "a gzip": gzip.compress(b"x"), "a null": b"\0", "two lines": b"0 1\n0\n", "high bytes": b"\xff" * 64,
        "nested": b"(" * 10_000,
    }.items():  # fmt: skip
        for reader in ("idx", "amat", "mat", "cifar_batch"):
            yield reader, what, content
    for axes in (0, 1, 3, 255):
        for size in (-1, 0, 2**31 - 1, 7):
            yield (
                "idx",
                f"{axes} axes of {size}",
                b"\0\0\x08" + bytes([axes]) + struct.pack(">i", size) * axes + b"x" * 8,
            )
    for key in ("data", "labels"):
        for value in (None, 1, "x", [], [[1]], {}, np.zeros((2, 3072)), np.zeros((2, 3)), object, Planted()):
            batch = {"data": np.zeros((2, 3072), np.uint8), "labels": [0, 1], key: value}
            yield "cifar_batch", f"{key} {type(value).__name__}", pickle.dumps(batch)
    for batch in ([], 3, {}, {"data": 1}):
        yield "cifar_batch", repr(batch), pickle.dumps(batch)


def archive(path: Path, members: dict[str, bytes], **how: Any) -> None:
    """A .zip of these members."""
    with zipfile.ZipFile(path, "w", **how) as file:
        for name, content in members.items():
            file.writestr(name, content)


def cut(path: Path, members: dict[str, bytes], end: int) -> None:
    """The same without its end."""
    archive(path, members)
    path.write_bytes(path.read_bytes()[:end])


def flagged(path: Path, members: dict[str, bytes], flag: int) -> None:
    """The same with a flag of each member, 1 for encrypted."""
    archive(path, members)
    content = bytearray(path.read_bytes())
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = -1
        while (start := content.find(mark, start + 1)) >= 0:
            content[start + at] |= flag
    path.write_bytes(content)


def method(path: Path, members: dict[str, bytes]) -> None:
    """The same with a method of compression that nobody knows."""
    archive(path, members)
    content = bytearray(path.read_bytes())
    for mark, at in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        start = -1
        while (start := content.find(mark, start + 1)) >= 0:
            content[start + at] = 77
    path.write_bytes(content)


def bomb(path: Path, header: str, megabytes: int) -> None:
    """An archive of an array of this header, with so much behind it that is nearly nothing in the file."""
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file,
        file.open("train.npy", "w", force_zip64=True) as member,
    ):
        member.write(forged(header, b""))
        for _ in range(megabytes):
            member.write(bytes(1 << 20))
