"""Modules whose state dicts say what they fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn


class Described(nn.Module):
    """Refuses the state dict of a module that is described otherwise, where torch compares names and shapes only.

    The description lies in the dict's metadata, which `torch.save` keeps; a dict that was made by hand has none.
    """

    description: Callable[[], str]  # what must be the same for a state to mean the same

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if hasattr(destination, "_metadata"):
            destination._metadata[prefix[:-1]]["description"] = self.description()

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, local_metadata: Any, strict: Any, missing: Any, unexpected: Any, errors: Any
    ) -> None:
        own, found = self.description(), local_metadata.get("description")
        numbers = [prefix + name for name, number in self.named_parameters(recurse=False) if number.dim() == 0]
        if found is None and any(state_dict[name].dim() for name in numbers if name in state_dict):
            found = "a list where this has a number"  # which torch would take for one
        if found not in (None, own) and any(name.startswith(prefix) for name in state_dict):
            errors.append(f"{prefix[:-1] or 'this state'} was saved from {found} and does not fit {own}")
        else:
            super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing, unexpected, errors)
