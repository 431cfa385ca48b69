"""Where the reference files of the tests lie.

Import it from any test with ``from reference_files import reference_file``: `tests/conftest.py` puts this folder on
the import path.
"""

import os
from pathlib import Path

import pytest

ENVIRONMENT_VARIABLE = "SCALESTUDY_REFERENCE"
_HERE = Path(__file__).resolve().parent
_BESIDE_CHECKOUT = _HERE.parents[2] / "shared" / "reference"


def reference_folder() -> Path:
    """Return the first folder that is searched for reference files.

    Returns
    -------
    Path
        The folder named by the environment variable ``SCALESTUDY_REFERENCE`` where that is set, else this folder.
    """
    named = os.environ.get(ENVIRONMENT_VARIABLE)
    return Path(named).expanduser() if named else _HERE


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
    """
    folders = [reference_folder()]
    if not os.environ.get(ENVIRONMENT_VARIABLE):
        folders.append(_BESIDE_CHECKOUT)
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    pytest.skip(
        f"reference file {name!r} is in none of {[str(folder) for folder in folders]}; "
        f"set {ENVIRONMENT_VARIABLE} to a folder that holds it"
    )
