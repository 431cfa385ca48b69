"""Where and with what a run was computed."""

from __future__ import annotations

import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import torch

from scalestudy import __version__
from scalestudy.training.record import Provenance


def provenance(
    device: torch.device,
    seconds: float,
    train_ms_per_image: float | None = None,
    inference_ms_per_image: float | None = None,
    resumed: int | None = None,
) -> Provenance:
    """What `Provenance` asks, of this process and a device; the rest is that of the run."""
    return Provenance(
        scalestudy=__version__,
        commit=_commit(),
        python=platform.python_version(),
        torch=torch.__version__,
        device=device_name(device),
        threads=torch.get_num_threads(),
        seconds=round(seconds, 2),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        train_ms_per_image=train_ms_per_image,
        inference_ms_per_image=inference_ms_per_image,
        resumed=resumed,
    )


def device_name(device: torch.device) -> str:
    """Return the device as records have it: its type and, in brackets, which GPU or type of processor it is."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return f"{device.type} ({name})"


def _commit() -> str | None:
    """Commit of the checkout that holds the package, if it is one; "-dirty" where the package itself was changed."""
    package = str(Path(__file__).parent)
    commit = _git(package, "rev-parse", "--short=12", "HEAD")
    return f"{commit}-dirty" if commit and _git(package, "status", "--porcelain", "--", package) else commit or None


def _git(folder: str, *arguments: str) -> str:
    """What git prints, or nothing where there is no git or no repository."""
    try:
        answer = subprocess.run(
            ["git", "-C", folder, *arguments], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""
