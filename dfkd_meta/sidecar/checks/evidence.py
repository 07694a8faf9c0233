"""What the checks look at: the manifest, the tensor file, the teacher files that are there."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfkd_meta.sidecar.issues import ValidationReport, pointer
from dfkd_meta.sidecar.kinds import KINDS, Kind
from dfkd_meta.sidecar.manifest import Manifest, StatisticRecord, Tap, TensorRef, channel_axis
from dfkd_meta.sidecar.store import Entry, Header

if TYPE_CHECKING:
    from dfkd_meta.sidecar.arrays import Array


# A pointer is meant for what weights already hold (BatchNorm buffers): small vectors.
MAX_POINTED_BYTES = 2**26


@dataclass(frozen=True)
class TensorData:
    """A safetensors file with a sound header; ``data`` (all bytes) for the sidecar's own only."""

    path: Path
    header: Header
    data: bytes | None = None

    def read(self, entry: Entry) -> Array:
        """The values of one tensor, read-only."""
        from dfkd_meta.sidecar.arrays import view

        if self.data is not None:
            return view(self.data, entry, self.header.data_begin)
        with self.path.open("rb") as file:
            file.seek(self.header.data_begin + entry.begin)
            return view(file.read(entry.end - entry.begin), Entry(entry.dtype, entry.shape, 0, 0))


@dataclass
class Evidence:
    """One sidecar under examination. ``own`` is None when the tensor file is missing or unsound."""

    manifest: Manifest
    report: ValidationReport
    own: TensorData | None = None
    teacher: dict[str, TensorData] = field(default_factory=dict)
    facts: dict[tuple[str | None, ...], Any] = field(default_factory=dict)

    @cached_property
    def taps(self) -> dict[str, Tap]:
        return {tap.id: tap for tap in self.manifest.taps}

    def add(self, code: str, path: str, message: str) -> None:
        self.report.add(code, path, message)

    def records(self) -> Iterator[tuple[str, StatisticRecord]]:
        """Every record with its JSON pointer; stops early once findings are only counted."""
        for number, record in enumerate(self.manifest.statistics):
            if self.report.full:
                return
            yield pointer("statistics", number), record

    def source(self, ref: TensorRef) -> TensorData | None:
        """The file that a reference points into, if it is there and sound."""
        return self.own if ref.file is None else self.teacher.get(ref.file)

    def entry(self, ref: TensorRef) -> Entry | None:
        """The header entry that a reference names, if it is there and as the manifest says."""
        source = self.source(ref)
        entry = source.header.entries.get(ref.key) if source else None
        agrees = entry and (entry.dtype, list(entry.shape)) == (ref.dtype, ref.shape)
        return entry if agrees else None

    def role(self, record: StatisticRecord, role: str) -> TensorRef | None:
        """The reference of a role whose axes are as many as the kind says."""
        kind, ref = known_kind(record), record.tensors.get(role)
        rule = kind.roles.get(role) if kind else None  # files may have roles of a later version
        fits = ref and rule and len(ref.shape) == len(rule.axes.split())
        return ref if fits else None

    def fact(self, name: str, find: Callable[..., Any], *refs: TensorRef | None) -> Any:
        """What ``find`` says of the values of tensors; None when one cannot be read.

        It is found once, however many records name the tensors: a file of many records that point
        at one large tensor must not cost the time of many tensors. What cannot be read is noted
        where references are checked.
        """
        key: tuple[str | None, ...] = (name,)
        entries = []
        for ref in refs:
            entry, source = (self.entry(ref), self.source(ref)) if ref else (None, None)
            if ref is None or entry is None or source is None:
                return None
            if ref.file is not None and entry.end - entry.begin > MAX_POINTED_BYTES:
                return None
            key = (*key, ref.file, ref.key)
            entries.append((source, entry))
        if key not in self.facts:
            self.facts[key] = find(*(source.read(entry) for source, entry in entries))
        return self.facts[key]

    def features(self, record: StatisticRecord) -> int | None:
        """Number of features of a record over its taps; None where a tap does not allow it."""
        sizes = [features_at(self.taps.get(name), record.reduction) for name in record.taps]
        known = [size for size in sizes if size is not None]
        return sum(known) if known and len(known) == len(sizes) else None

    def frequencies(self, record: StatisticRecord) -> int | None:
        """Number of spatial frequencies of a record's tap; None where there is no sound one."""
        taps = [self.taps.get(name) for name in record.taps]
        if len(taps) != 1 or taps[0] is None or len(taps[0].axes) != len(taps[0].shape):
            return None
        return frequencies_at(taps[0])

    def has_positions(self, record: StatisticRecord) -> bool:
        """Whether a sample has more than one position at a tap, or at one that is not sound."""
        taps = [self.taps.get(name) for name in record.taps]
        return any(
            tap is None or len(tap.axes) != len(tap.shape) or frequencies_at(tap) > 1
            for tap in taps
        )


def features_at(tap: Tap | None, reduction: str | None) -> int | None:
    """Features of one tap: all elements for ``unit``, else the channels."""
    if tap is None or reduction is None or len(tap.shape) != len(tap.axes):
        return None
    if reduction == "unit":
        return math.prod(tap.shape)
    axis = channel_axis(tap.axes)
    return None if axis is None else tap.shape[axis]


def frequencies_at(tap: Tap) -> int:
    """Spatial frequencies of a tap: as many as it has positions."""
    axis = channel_axis(tap.axes)
    return math.prod(size for place, size in enumerate(tap.shape) if place != axis)


def groups(record: StatisticRecord) -> int:
    """Number of groups: 1, or the classes listed."""
    return 1 if record.scope == "global" else len(record.classes or ())


def known_kind(record: StatisticRecord) -> Kind | None:
    """The rules of the record's kind, if this version knows the kind in the record's version."""
    kind = KINDS.get(record.kind)
    return kind if kind and kind.version == record.kind_version else None
