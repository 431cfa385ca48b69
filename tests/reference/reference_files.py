"""Where the reference files of the tests lie.

Import it from any test with ``from reference_files import reference_file``: `tests/conftest.py` puts this folder on
the import path.
"""

import os
from pathlib import Path

import pytest

ENVIRONMENT_VARIABLE = "SCALESTUDY_REFERENCE"
REFERENCE_NAMES = (
    "basis_vectors.npz",
    "disco_basis.npz",
    "disco_released_basis.npz",
    "dynamic_scale_mnist_vectors.npz",
    "mnist_scale_hashes.json",
    "mnist_scale_vectors.npz",
    "params.json",
    "table1_net_vectors.npz",
    "table5_vectors.npz",
    "tolerance.json",
)
"""Names of all reference files that the tests read."""
_HERE = Path(__file__).resolve().parent
_BESIDE_CHECKOUT = _HERE.parents[2] / "shared" / "reference"


def reference_folder() -> Path:
    """Return the first folder that is searched for reference files.

    Returns
    -------
    Path
        The folder named by the environment variable ``SCALESTUDY_REFERENCE`` where that is set, else this folder.

    Raises
    ------
    FileNotFoundError
        If the variable names no folder, or one without any reference file: nothing would be tested.
    """
    named = os.environ.get(ENVIRONMENT_VARIABLE)
    if not named:
        return _HERE
    folder = Path(named).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"{ENVIRONMENT_VARIABLE}={named!r} is no folder: name the one of the reference files.")
    if not any((folder / name).is_file() for name in REFERENCE_NAMES):
        raise FileNotFoundError(
            f"{ENVIRONMENT_VARIABLE}={named!r} holds none of {list(REFERENCE_NAMES)}: name the folder that does."
        )
    return folder


def _folders() -> list[Path]:
    """All folders that are searched, in this order."""
    named = os.environ.get(ENVIRONMENT_VARIABLE)
    return [reference_folder()] if named else [reference_folder(), _BESIDE_CHECKOUT]


def reference_file(name: str) -> Path:
    """Return the path of one reference file, or skip the calling test where it cannot be found.

    ``SCALESTUDY_REFERENCE`` overrides every other place; without it, this folder is searched, then the folder of
    reference files beside the checkout (for files too large to be kept with the tests).

    Parameters
    ----------
    name : str
        File name, such as ``"mnist_scale_hashes.json"``.

    Returns
    -------
    Path
        An existing file.

    Raises
    ------
    FileNotFoundError
        If ``SCALESTUDY_REFERENCE`` names no folder, or one without any reference file.
    """
    folders = _folders()
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    pytest.skip(
        f"reference file {name!r} is in none of {[str(folder) for folder in folders]}; "
        f"set {ENVIRONMENT_VARIABLE} to a folder that holds it"
    )


def reference_paths(pattern: str) -> list[Path]:
    """Return the paths of all reference files whose name matches, sorted by name; the places of `reference_file`.

    Parameters
    ----------
    pattern : str
        As in ``Path.glob``, such as ``"table5_state_*.npz"``.

    Raises
    ------
    FileNotFoundError
        As `reference_file`.
    """
    found: dict[str, Path] = {}
    for folder in _folders():
        for path in folder.glob(pattern):
            found.setdefault(path.name, path)
    return [found[name] for name in sorted(found)]
