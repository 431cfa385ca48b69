"""The four MNIST files: their hashes, how they are found, read, checked and stored."""

import contextlib
import gzip
import hashlib
import logging
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

from scalestudy.files import probe, write_whole

_LOG = logging.getLogger(__name__)

FOLDER_VARIABLE = "SCALESTUDY_DATA"


class DataError(RuntimeError):
    """A data set that is missing, damaged, cannot be fetched or cannot be stored."""


@dataclass(frozen=True)
class IdxFile:
    """One MNIST file in the IDX format, as published (uncompressed).

    Parameters
    ----------
    name : str
        File name without ``.gz``.
    shape : tuple of int
        ``(count, 28, 28)`` for images, ``(count,)`` for labels.
    sha256 : str
        SHA-256 of the uncompressed file, hexadecimal.
    """

    name: str
    shape: tuple[int, ...]
    sha256: str

    @property
    def header(self) -> bytes:
        """The IDX header: type code 8 (unsigned byte), number of axes, big-endian lengths."""
        return struct.pack(f">BBBB{len(self.shape)}I", 0, 0, 8, len(self.shape), *self.shape)

    @property
    def size(self) -> int:
        """Bytes of the uncompressed file."""
        values = 1
        for length in self.shape:
            values *= length
        return len(self.header) + values


FILES = (
    IdxFile(
        "train-images-idx3-ubyte",
        (60_000, 28, 28),
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    IdxFile("train-labels-idx1-ubyte", (60_000,), "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
    IdxFile(
        "t10k-images-idx3-ubyte",
        (10_000, 28, 28),
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    IdxFile("t10k-labels-idx1-ubyte", (10_000,), "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
)


def sha256(content: bytes) -> str:
    """Return the SHA-256 of `content`, hexadecimal.

    >>> sha256(b"")[:8]
    'e3b0c442'
    """
    return hashlib.sha256(content).hexdigest()


def how_to_provide(folder: Path) -> str:
    """Say which files, with which hashes, belong where, for error messages."""
    listing = "\n".join(f"  {idx.name}  SHA-256 {idx.sha256}" for idx in FILES)
    return (
        f"Put these four files (plain, or compressed with the suffix .gz) in {folder}, or set {FOLDER_VARIABLE} to a "
        f"folder that holds them (hashes of the uncompressed files):\n{listing}"
    )


@dataclass(frozen=True)
class Finding:
    """What a folder holds for one file: the checked content, or the damaged candidates.

    Parameters
    ----------
    path : Path or None
        The candidate whose hash is right.
    content : bytes or None
        Its uncompressed content.
    damaged : tuple of (Path, str)
        Candidates that were refused, each with its SHA-256 or, where it cannot be read, the reason.
    """

    path: Path | None
    content: bytes | None
    damaged: tuple[tuple[Path, str], ...]


def find(folder: Path, idx: IdxFile) -> Finding:
    """Look for one file in `folder`, plain or ``.gz``, also in torchvision's ``MNIST/raw`` layout.

    Parameters
    ----------
    folder : Path
        Any path, existing or not.
    idx : IdxFile
        The file to look for.

    Returns
    -------
    Finding
        The first candidate whose uncompressed content has the expected hash.
    """
    damaged = []
    for place in (folder, folder / "MNIST" / "raw", folder / "raw"):
        for path in (place / idx.name, place / f"{idx.name}.gz"):
            if not path.is_file():
                continue
            try:
                content = _read(path, idx.size)
            except (OSError, EOFError, zlib.error) as error:
                damaged.append((path, f"none, unreadable: {error}"))
                continue
            if (found := sha256(content)) == idx.sha256:
                return Finding(path, content, tuple(damaged))
            damaged.append((path, found))
    return Finding(None, None, tuple(damaged))


def _read(path: Path, size: int) -> bytes:
    """Read at most one byte more than a file should have, uncompressed."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
        return stream.read(size + 1)


def damage_report(idx: IdxFile, damaged: tuple[tuple[Path, str], ...]) -> str:
    """Name each damaged candidate with its expected and found hash."""
    return "\n".join(f"{path} is damaged: expected SHA-256 {idx.sha256}, found {found}" for path, found in damaged)


def require_writable(folder: Path) -> None:
    """Create `folder` and try a small write, so that a bad folder shows before a download.

    Raises
    ------
    DataError
        Naming the folder, where it cannot be created or written.
    """
    try:
        probe(folder)
    except OSError as error:
        raise _unwritable(folder, error) from error


def store(folder: Path, idx: IdxFile, content: bytes) -> Path:
    """Write one verified file atomically; a damaged file of that name is moved aside, never deleted.

    Several processes may store the same file at once: each writes its own temporary file, flushes it to the disk and
    renames it, so a reader sees a whole file or none.

    Parameters
    ----------
    folder : Path
        Created where missing.
    idx : IdxFile
        Which file.
    content : bytes
        Its uncompressed content; the hash is checked here once more.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    DataError
        On a wrong hash, a full disk or an unwritable folder.
    """
    if (found := sha256(content)) != idx.sha256:
        raise DataError(
            f"refusing to store {idx.name}: expected SHA-256 {idx.sha256}, found {found}; fetch it from another source"
        )
    target = folder / idx.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _move_aside(target, idx)
        write_whole(target, content)
    except OSError as error:
        raise _unwritable(folder, error) from error
    return target


def _move_aside(target: Path, idx: IdxFile) -> None:
    """Rename an existing file with a wrong hash to ``<name>.damaged-<first 8 digits of its hash>``."""
    try:
        found = sha256(target.read_bytes())
    except FileNotFoundError:
        return
    if found == idx.sha256:
        return
    aside = target.with_name(f"{target.name}.damaged-{found[:8]}")
    _LOG.warning("%s is damaged (expected SHA-256 %s, found %s); moved to %s", target, idx.sha256, found, aside)
    with contextlib.suppress(FileNotFoundError):  # another process has moved it already
        os.replace(target, aside)


def _unwritable(folder: Path, error: OSError) -> DataError:
    return DataError(
        f"cannot write MNIST (55 MB) to the folder {folder}: {error}; free space, allow writing there, or set "
        f"{FOLDER_VARIABLE} to a folder that can be written"
    )
