"""Files of data sets: found in $PPL_MODELS_DATA or in the cache, else fetched from their official home.

Every file is compared with its published hash before anything reads it, wherever it lies.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "PPL_MODELS_DATA"

# Hashes of files already seen in this process, by path, size, time of change and algorithm.
_seen: dict[tuple[str, int, int, str], str] = {}


@dataclass(frozen=True)
class Source:
    """One file: name, hash ("sha256:.." or "md5:.."), bytes (both of the unzipped text if `unzipped`) and home."""

    name: str
    digest: str
    size: int
    url: str
    unzipped: bool = False


def path_of(source: Source, folders: tuple[str, ...], owner: str) -> Path:
    """The checked path of a file, fetched into the cache if it lies nowhere under $PPL_MODELS_DATA.

    `folders` are the sub-folders to look in before the root itself; `owner` is the data set, for messages and
    for the folder in the cache. Raises what `verify` and `download` raise.
    """
    found = local(source, folders)
    if found is None:
        return download(source, owner)
    verify(found, source, owner)
    return found


def local(source: Source, folders: tuple[str, ...]) -> Path | None:
    """The file under $PPL_MODELS_DATA, or None; an unzipped source may lie there as .gz."""
    root = os.environ.get(VARIABLE)
    if not root:
        return None
    names = (source.name, source.name + ".gz") if source.unzipped else (source.name,)
    candidates = (Path(root, folder, name) for folder in (*folders, "") for name in names)
    return next((path for path in candidates if path.is_file()), None)


def verify(path: Path, source: Source, owner: str) -> None:
    """Compare a file with its hash; raises ValueError if they differ or the file is a damaged gzip."""
    found = _hash(path, source)
    if found != source.digest:
        raise ValueError(
            f"{path}: found {found}, want {source.digest} for data set {owner!r}; the file is truncated, "
            f"changed or of another set: remove it, or get it again from {source.url}"
        )


def download(source: Source, owner: str) -> Path:
    """Fetch a file into the cache (once) and return its path.

    Raises ConnectionError if the home cannot be reached, ValueError if what it sends has another hash or the cache
    cannot be written to; no more than its size is taken.
    """
    import pooch
    import requests

    def capped(url: str, path: str, of: object) -> None:
        left = source.size
        with requests.get(url, timeout=30, stream=True) as response, open(path, "wb") as file:
            response.raise_for_status()
            for chunk in response.iter_content(1 << 16):
                left -= len(chunk)
                if left < 0:
                    raise ValueError("too many bytes")
                file.write(chunk)

    folder = Path(pooch.os_cache("ppl-models"), owner)
    if not (folder / source.name).exists():
        print(f"{owner}: fetching {source.url} into {folder}", file=sys.stderr)
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel("ERROR")
    try:
        return Path(
            pooch.retrieve(
                source.url,
                source.digest,
                fname=source.name,
                path=folder,
                downloader=capped,
            )
        )
    except OSError as error:  # requests' errors are OSErrors, too, and have no number
        if error.errno is not None and not isinstance(error, ConnectionError | TimeoutError):
            raise ValueError(
                f"{owner}: {source.name} cannot be written to {folder} ({error.strerror}); make room or choose another "
                f"cache, or put the file into a folder and set {VARIABLE} to it"
            ) from None
        raise ConnectionError(
            f"{owner}: {source.url} cannot be reached ({type(error).__name__}); "
            f"put {source.name} into a folder and set {VARIABLE} to it"
        ) from None
    except ValueError:
        raise ValueError(
            f"{owner}: {source.url} sent something else than {source.digest} of {source.size} bytes, perhaps a "
            f"truncated file or a page of a proxy; try again, or put {source.name} into a folder and set {VARIABLE} to "
            "it"
        ) from None
    finally:
        logger.setLevel(level)


def _hash(path: Path, source: Source) -> str:
    status = path.stat()
    algorithm = source.digest.partition(":")[0]
    key = (str(path.resolve()), status.st_size, status.st_mtime_ns, algorithm)
    if key not in _seen:
        digest = hashlib.new(algorithm, usedforsecurity=False)
        # The bytes of a .gz vary with the program that wrote it, those inside do not.
        opened = gzip.open if source.unzipped and path.suffix == ".gz" else open
        try:
            with opened(path, "rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(
                f"{path}: found a damaged or truncated gzip file ({error}); get it again from {source.url}"
            ) from None
        _seen[key] = f"{algorithm}:{digest.hexdigest()}"
    return _seen[key]
