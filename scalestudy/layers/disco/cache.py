"""Solved banks on disk: each in a file named by what determines it, checked when read, whole or absent."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
from pathlib import Path

import numpy as np
import torch
from platformdirs import user_cache_path
from torch import Tensor

from scalestudy.files import DATA_VARIABLE, write_whole

_LOG = logging.getLogger(__name__)

_ALGORITHM = 2  # raised with every change that alters a bank


def bank_folder(folder: str | os.PathLike | None = None) -> Path:
    """Return the folder of solved banks, existing or not.

    Parameters
    ----------
    folder : path-like, optional
        A folder that the user names.  Default: ``disco`` in the folder named by the environment variable
        ``SCALESTUDY_DATA``, else in the user's cache.

    Returns
    -------
    Path
        Absolute, with ``~`` and links resolved.
    """
    named = folder or Path(os.environ.get(DATA_VARIABLE) or user_cache_path("scalestudy")) / "disco"
    return Path(named).expanduser().resolve()


def bank_key(scales: tuple[float, ...], kernel_size: int, effective_size: int) -> str:
    """Return all that determines a bank, as canonical JSON."""
    content = {
        "algorithm": _ALGORITHM,
        "effective_size": effective_size,
        "kernel_size": kernel_size,
        "scales": list(scales),
    }
    return json.dumps(content, sort_keys=True)


def bank_path(folder: Path, key: str) -> Path:
    """Return the file of a bank: its name is a hash of the key."""
    return folder / f"bank-{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"


def load_bank(folder: Path, key: str) -> Tensor | None:
    """Read a solved bank; None where there is none, or one that is damaged or another's (logged).

    Parameters
    ----------
    folder : Path
        See `bank_folder`.
    key : str
        See `bank_key`.

    Returns
    -------
    Tensor or None
        float64, shape (F, S, K, K).
    """
    path = bank_path(folder, key)
    try:
        content = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
        bank, found, checksum = content["bank"], str(content["key"]), str(content["sha256"])
    except FileNotFoundError:
        return None
    except Exception as error:  # a damaged archive can raise nearly anything
        _LOG.warning("%s is no solved bank (%s); it is solved again and replaced", path, error)
        return None
    if found != key or bank.dtype != np.float64 or checksum != _checksum(bank, key):
        _LOG.warning("%s is damaged or belongs to another bank; it is solved again and replaced", path)
        return None
    return torch.from_numpy(bank)


def store_bank(folder: Path, key: str, bank: Tensor) -> None:
    """Write a solved bank, whole or not at all; where that fails, log it: the bank itself is not lost.

    Parameters
    ----------
    folder : Path
        Created where missing.
    key : str
        See `bank_key`.
    bank : Tensor
        float64, shape (F, S, K, K).
    """
    values = bank.numpy()
    content = io.BytesIO()
    np.savez(content, bank=values, key=np.array(key), sha256=np.array(_checksum(values, key)))
    try:
        write_whole(bank_path(folder, key), content.getvalue())
    except OSError as error:
        _LOG.warning("cannot keep the solved bank in %s: %s; it will be solved again next time", folder, error)


def _checksum(bank: np.ndarray, key: str) -> str:
    """Return the SHA-256 of the key, the shape and the values."""
    head = f"{key}{bank.shape}".encode()
    return hashlib.sha256(head + np.ascontiguousarray(bank, dtype="<f8").tobytes()).hexdigest()
