"""Weights in and out of modules: safetensors only, with mismatches said in names and shapes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from dfkd_meta.errors import TeacherError

PICKLES = {".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt", ".th", ".pt2"}
CONVERT = (
    "convert it once, on a machine that trusts it: "
    "safetensors.torch.save_file(torch.load(FILE, weights_only=True), 'model.safetensors')"
)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by key, on the CPU. Raises TeacherError."""
    if path.suffix.lower() in PICKLES:
        raise TeacherError(
            "weights are read from safetensors only: this kind of file can run code when opened",
            where=str(path),
            hint=CONVERT,
        )
    if not path.is_file():
        raise TeacherError("the weight file does not exist", where=str(path))
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise TeacherError(
            f"the weight file is not readable safetensors: {error}", where=str(path)
        ) from error


def check_weights(module: nn.Module, tensors: dict[str, Tensor], *, where: str) -> None:
    """Compare names and shapes with a module's state. Raises TeacherError naming the first few."""
    wanted = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    given = {key: tuple(value.shape) for key, value in tensors.items()}
    # Checkpoints converted from old torch lack the batch counters, which inference never reads.
    missing = [k for k in wanted if k not in given and not k.endswith("num_batches_tracked")]
    unexpected = [key for key in given if key not in wanted]
    wrong = [
        f"{key} {list(given[key])} instead of {list(shape)}"
        for key, shape in wanted.items()
        if key in given and given[key] != shape
    ]
    parts = [("missing", missing), ("unexpected", unexpected), ("wrong shape", wrong)]
    said = [f"{what}: {_few(names)}" for what, names in parts if names]
    if said:
        raise TeacherError(
            "the weights do not fit the model: " + "; ".join(said),
            where=where,
            hint="check the architecture and its arguments (num_classes, shape, width)",
        )


def load_weights(module: nn.Module, tensors: dict[str, Tensor], *, where: str) -> None:
    """Copy tensors into a module after ``check_weights``; dtypes become the module's own."""
    check_weights(module, tensors, where=where)
    with torch.no_grad():
        module.load_state_dict(tensors, strict=False)


def _few(names: Sequence[str], most: int = 4) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
