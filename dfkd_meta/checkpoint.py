"""Saved states: nested dicts and lists of tensors and plain values, in one safetensors file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from dfkd_meta.errors import UsageError
from dfkd_meta.tensor_files import write_tensors, written_or_gone

State = dict[str, Any]
"""Nested dicts (string or integer keys) and lists of tensors, numbers, strings, bools and None."""

TENSOR = "\0tensor"  # marks the place of a tensor in the JSON skeleton
INTEGER_KEYS = "\0integer keys"  # as in the state of a torch optimizer; JSON knows strings only


def save_state(path: Path, state: State) -> None:
    """Write ``state`` to ``path``, whole or not at all: a kill leaves the earlier file.

    Raises DfkdMetaError when it cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    skeleton = _take_apart(state, tensors, set())
    unfinished = path.with_name(path.name + ".tmp")
    write_tensors(unfinished, tensors, metadata={"state": json.dumps(skeleton)})
    with written_or_gone(unfinished):
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        unfinished.replace(path)


def load_state(path: Path) -> State:
    """Read what ``save_state`` wrote; tensors come to the CPU. Raises UsageError."""
    return _load(path, tensors=True)


def load_plain(path: Path) -> State:
    """The same with None for every tensor: only the head of the file is read."""
    return _load(path, tensors=False)


def _load(path: Path, *, tensors: bool) -> State:
    try:
        with safe_open(path, framework="pt") as file:
            skeleton = json.loads((file.metadata() or {})["state"])
            names = list(file.keys())
            found = {key: file.get_tensor(key) if tensors else None for key in names}
            state = _put_together(skeleton, found)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise UsageError(
            f"the saved state cannot be read: {error}",
            where=str(path),
            hint="delete it to start afresh",
        ) from error
    if not isinstance(state, dict):
        raise UsageError("the saved state is not a table", where=str(path))
    return state


def _take_apart(value: Any, tensors: dict[str, Tensor], storages: set[int]) -> Any:
    """The value with every tensor replaced by its key in ``tensors``, which are at ``storages``."""
    if isinstance(value, Tensor):
        key, tensor = str(len(tensors)), value.detach().cpu().contiguous()
        if tensor.untyped_storage().data_ptr() in storages:
            tensor = tensor.clone()  # two views of one storage cannot be saved
        storages.add(tensor.untyped_storage().data_ptr())
        tensors[key] = tensor
        return {TENSOR: key}
    if isinstance(value, dict):
        parts = {str(key): _take_apart(item, tensors, storages) for key, item in value.items()}
        if value and all(isinstance(key, int) for key in value):
            return {INTEGER_KEYS: parts}
        return parts
    if isinstance(value, list | tuple):
        return [_take_apart(item, tensors, storages) for item in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"a state cannot hold {type(value).__name__}")


def _put_together(value: Any, tensors: Mapping[str, Tensor | None]) -> Any:
    if isinstance(value, list):
        return [_put_together(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if TENSOR in value:
        return tensors[value[TENSOR]]
    if INTEGER_KEYS in value:
        parts = value[INTEGER_KEYS]
        return {int(key): _put_together(item, tensors) for key, item in parts.items()}
    return {key: _put_together(item, tensors) for key, item in value.items()}
