"""Writing safetensors files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from dfkd_meta.errors import DfkdMetaError


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Write contiguous CPU tensors to ``path``.

    Raises DfkdMetaError when the system refuses, a full disk above all; nothing is left then.
    """
    try:
        path.touch()
        mode = path.stat().st_mode
        save_file(dict(tensors), path, metadata=metadata)
        path.chmod(mode)  # the library makes files that nobody else can read
    except (OSError, SafetensorError) as error:
        path.unlink(missing_ok=True)
        raise DfkdMetaError(
            f"cannot write: {error}", where=str(path), hint="is there room, and may you write here?"
        ) from error
