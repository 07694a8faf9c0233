"""Writing safetensors files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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
    with written_or_gone(path):
        path.touch()
        mode = path.stat().st_mode
        save_file(dict(tensors), path, metadata=metadata)
        path.chmod(mode)  # the library makes files that nobody else can read


@contextmanager
def written_or_gone(path: Path) -> Iterator[None]:
    """Turn a refusal of the system into a DfkdMetaError, and leave nothing at ``path`` then."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        path.unlink(missing_ok=True)
        raise DfkdMetaError(
            f"cannot write: {error}", where=str(path), hint="is there room, and may you write here?"
        ) from error
