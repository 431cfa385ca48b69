"""The realisations of MNIST-Scale: generated once, then read from the data folder, verified."""

import hashlib
import io
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from scalestudy.data.mnist import load_mnist, mnist_folder
from scalestudy.data.mnist_files import DataError
from scalestudy.data.resample import rescale
from scalestudy.data.splits import MNIST_SCALE_COUNTS, SPLIT_NAMES, mnist_scale_draws, mnist_scale_split
from scalestudy.files import write_whole

_LOG = logging.getLogger(__name__)

MNIST_SCALE_CENTRE = 14.5
"""Fixed point of the scaling, pixels: the published recipe; not the middle, 14, so digits move to the lower right."""

RECIPE = 1
"""Version of what a realisation holds; part of the file's name, so another recipe never reads these files."""

PUBLISHED: dict[int, str] = {
    0: "ad95f055e8959ad0a03757cdea90cafca916986d7a5c2c158d23b2bb951ef284",
    1: "7c749c2da0c1a3c19d85e5ce7b1a6e1d05d6beeb9658b7df51d9c1b2869615eb",
    2: "d10d0b0c2037ffa0b9ddcab55fc9c626c4b569669d7cbd791168efbdbe4bbd2f",
    3: "8db7b358a381c41410d67feae24a4440e541cc826f87c6c0f13a8de2d5b79ae1",
    4: "c3bcab57eb121b2c0105826542850ed9399f5ec91268781a14721cbd306d851e",
    5: "b8bc3f7b8daf16cbc8a59f0d0756273bb295d909522600bc6e9457a6932ece7c",
}
"""SHA-256 of the six published realisations, see `digest`: a copy made here that differs is never kept nor read."""

_ARRAYS = {"images": "|u1", "labels": "|u1", "data_scales": "<f8", "indices": "<u4"}
_COUNT = sum(MNIST_SCALE_COUNTS)


@dataclass(frozen=True)
class RealisationReport:
    """The state of one cached realisation: its seed, its file, whether the content is what was written."""

    seed: int
    path: Path
    status: Literal["ok", "damaged"]


def checked_realisation(seed: int) -> int:
    """Return the seed of a realisation as an int.

    Raises
    ------
    ValueError
        Where it is none of 0 .. 5.
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed not in PUBLISHED:
        raise ValueError(
            f"seed must be one of the published realisations of MNIST-Scale, {min(PUBLISHED)} .. {max(PUBLISHED)}, "
            f"got {seed!r}"
        )
    return int(seed)


def realisation_path(seed: int, folder: str | os.PathLike | None = None) -> Path:
    """Return the file of a realisation beside MNIST, existing or not; `folder` as in `mnist_folder`."""
    return mnist_folder(folder) / "mnist_scale" / f"realisation-{checked_realisation(seed)}-recipe-{RECIPE}.npz"


def load_realisation(seed: int, folder: str | os.PathLike | None = None) -> dict[str, np.ndarray]:
    """Read one realisation of MNIST-Scale, or generate it (about six seconds) and keep it for the next time.

    A damaged file is generated anew, with a logged warning.  Where the folder cannot be written, nothing is kept and a
    warning says so.  Of several processes that need it at once, one generates it and the others wait for its file.

    Parameters
    ----------
    seed : int
        0 .. 5: the six published realisations.
    folder : path-like, optional
        Where MNIST is; see `load_mnist`.

    Returns
    -------
    dict of str to ndarray
        The 10,000 images of train, 2,000 of validation and 50,000 of test after each other: ``images`` uint8 (n, 28,
        28), ``labels`` uint8, ``data_scales`` float64 in [0.3, 1.0), ``indices`` uint32 (positions in MNIST's file
        order).

    Raises
    ------
    ValueError
        On a seed out of its range.
    DataError
        Where MNIST cannot be had, or what was generated is not the published realisation.
    """
    path = realisation_path(seed, folder)
    arrays = _read(path, seed)
    if arrays is None:
        arrays = _generate_and_keep(path, seed, folder)
    return arrays


def generate(seed: int, folder: str | os.PathLike | None = None) -> dict[str, np.ndarray]:
    """Make one realisation by the published recipe, on the CPU; arguments and result as in `load_realisation`."""
    mnist = load_mnist(folder)
    positions = mnist_scale_split(mnist.labels.numpy(), checked_realisation(seed))
    draws = mnist_scale_draws(seed)
    indices = np.concatenate([positions[name] for name in SPLIT_NAMES])
    scales = np.concatenate([draws[name] for name in SPLIT_NAMES])
    chosen = torch.from_numpy(indices)
    images = rescale(
        mnist.images[chosen], torch.from_numpy(scales), 28, centre=MNIST_SCALE_CENTRE, method="exact"
    ).numpy()
    made = {"images": images, "labels": mnist.labels[chosen].numpy(), "data_scales": scales, "indices": indices}
    return {name: np.ascontiguousarray(made[name], dtype=kind) for name, kind in _ARRAYS.items()}


def _generate_and_keep(path: Path, seed: int, folder: str | os.PathLike | None) -> dict[str, np.ndarray]:
    if path.exists():
        _LOG.warning("%s is damaged; generating realisation %d of MNIST-Scale again", path, seed)
    arrays = generate(seed, folder)
    found = digest(arrays)
    if found != PUBLISHED[seed]:
        raise DataError(
            f"realisation {seed} of MNIST-Scale, generated here, is not the published one: SHA-256 {found}, "
            f"expected {PUBLISHED[seed]}; the arithmetic of this machine differs, so take the file {path.name} "
            "from another"
        )
    _write(path, arrays)
    return arrays


def cached_realisations(folder: str | os.PathLike | None = None) -> tuple[RealisationReport, ...]:
    """Check every realisation that is kept beside MNIST; generates and changes nothing; sorted by seed."""
    reports = []
    for path in (mnist_folder(folder) / "mnist_scale").glob(f"realisation-*-recipe-{RECIPE}.npz"):
        seed = path.name.split("-")[1]
        if seed.isdecimal():
            status = "damaged" if _read(path, int(seed)) is None else "ok"
            reports.append(RealisationReport(int(seed), path, status))
    return tuple(sorted(reports, key=lambda report: report.seed))


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 (hexadecimal) of the bytes of images, labels, data scales and indices, after each other."""
    content = hashlib.sha256()
    for name, kind in _ARRAYS.items():
        content.update(np.ascontiguousarray(arrays[name], dtype=kind).tobytes())
    return content.hexdigest()


def _read(path: Path, seed: int) -> dict[str, np.ndarray] | None:
    """The content of a file, or None where it is missing or is not what was written."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in _ARRAYS}
            told = str(archive["sha256"])
    except Exception:  # a damaged archive can raise nearly anything
        return None
    kinds = {name: np.dtype(kind) for name, kind in _ARRAYS.items()}
    whole = all(len(array) == _COUNT and array.dtype == kinds[name] for name, array in arrays.items())
    return arrays if whole and digest(arrays) == told == PUBLISHED.get(seed) else None


def _write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Keep a realisation; several processes may do so at once."""
    content = io.BytesIO()
    np.savez_compressed(content, **arrays, sha256=np.array(digest(arrays)))
    try:
        write_whole(path, content.getvalue())
    except OSError as error:
        _LOG.warning("cannot keep MNIST-Scale in %s (%s); it is generated again each time", path.parent, error)
