"""Whether a sidecar will fit into its format, told before the data are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dfkd_meta.errors import UsageError
from dfkd_meta.sidecar import MAX_MANIFEST_BYTES, MAX_TENSOR_FILE_BYTES, bytes_text
from dfkd_meta.sidecar.json_text import dump_json
from dfkd_meta.statistics import RecordRequest, Size


def check_sizes(
    requests: Sequence[RecordRequest], sizes: Mapping[str, Size], classes: int, samples: int
) -> None:
    """Raises UsageError when the tensor file or the manifest would outgrow the format's limits.

    Tensors count as the most that they can be: of few samples they have fewer rows. A manifest
    counts as the least: it is mostly the classes and counts of its per-class records.
    """
    tensors = sum(size.stored for size in sizes.values())
    if tensors > MAX_TENSOR_FILE_BYTES:
        largest = sorted(sizes, key=lambda name: -sizes[name].stored)[:3]
        named = ", ".join(f"{name} {bytes_text(sizes[name].stored)}" for name in largest)
        raise UsageError(
            f"the {len(sizes)} records would take {bytes_text(tensors)}; a sidecar holds at most "
            f"{bytes_text(MAX_TENSOR_FILE_BYTES)}",
            hint="take a smaller profile, or name records to do without: "
            f"--set leave_out='[\"PATTERN\"]'; the largest: {named}",
        )
    by_class = sum(request.scope == "per_class" for request in requests)
    lists = [list(range(classes)), [samples // classes] * classes]
    manifest = by_class * sum(len(dump_json(numbers)) for numbers in lists)
    if manifest > MAX_MANIFEST_BYTES:
        raise UsageError(
            f"{by_class} records of {classes:,} classes each would make a manifest of "
            f"{bytes_text(manifest)}; it holds at most {bytes_text(MAX_MANIFEST_BYTES)}",
            hint="take a smaller profile, name per-class records to do without "
            "(--set leave_out='[\"PATTERN\"]'), or take none (--set per_class=false)",
        )


def in_words(sizes: Mapping[str, Size]) -> str:
    """How large the tensor file and the sums that it is made from will be."""
    stored = bytes_text(sum(size.stored for size in sizes.values()))
    memory = bytes_text(sum(size.memory for size in sizes.values()))
    return f"at most {stored}, from sums of {memory}"
