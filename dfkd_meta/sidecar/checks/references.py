"""Tensor references against the kinds' axes, the tensor file and the teacher files."""

from __future__ import annotations

from dfkd_meta.sidecar.checks.evidence import (
    MAX_POINTED_BYTES,
    Evidence,
    groups,
    known_kind,
)
from dfkd_meta.sidecar.issues import pointer, short
from dfkd_meta.sidecar.kinds import Kind
from dfkd_meta.sidecar.manifest import StatisticRecord, TensorRef


def check_references(evidence: Evidence) -> None:
    """DM213, DM330 to DM336."""
    named: set[str] = set()
    listed = {file.path for file in evidence.manifest.teacher.files}
    for path, record in evidence.records():
        for role, ref in record.tensors.items():
            where = path + pointer("tensors", role)
            if ref.file is None:
                named.add(ref.key)
                _check_own(evidence, where, ref)
            else:
                _check_pointed(evidence, where, ref, listed)
        kind = known_kind(record)
        if kind is not None:
            _check_axes(evidence, path, record, kind)
    for name in evidence.own.header.entries if evidence.own else ():
        if name not in named:
            evidence.add("DM213", "dfkd_meta.safetensors", f"no record names {short(name)}")


def _check_own(evidence: Evidence, where: str, ref: TensorRef) -> None:
    if evidence.own is None:
        return
    entry = evidence.own.header.entries.get(ref.key)
    if entry is None:
        evidence.add("DM330", where + "/key", f"no tensor {short(ref.key)} in the file")
    elif evidence.entry(ref) is None:
        text = f"{ref.dtype} {ref.shape} here, {entry.dtype} {list(entry.shape)} in the file"
        evidence.add("DM331", where, text)


def _check_pointed(evidence: Evidence, where: str, ref: TensorRef, listed: set[str]) -> None:
    if ref.file not in listed:
        evidence.add("DM335", where + "/file", f"the teacher lists no {short(ref.file)}")
        return
    source = evidence.source(ref)
    if source is None:
        return  # missing or unsound: noted where the teacher files were read
    entry = source.header.entries.get(ref.key)
    if entry is None or evidence.entry(ref) is None:
        there = f"{entry.dtype} {list(entry.shape)}" if entry else "nothing"
        text = f"{ref.file} holds {there} at {short(ref.key)}, not {ref.dtype} {ref.shape}"
        evidence.add("DM336", where, text)
    elif entry.end - entry.begin > MAX_POINTED_BYTES:
        text = f"{entry.end - entry.begin:,} bytes; at most {MAX_POINTED_BYTES:,} can be pointed at"
        evidence.add("DM336", where, text)


def _check_axes(evidence: Evidence, path: str, record: StatisticRecord, kind: Kind) -> None:
    """One axis word has one size in the record: that of the taps, groups or classes, if defined."""
    sizes = {"c": evidence.manifest.outputs.num_classes}
    if groups(record) > 0:
        sizes["g"] = groups(record)
    features = evidence.features(record) if kind.has_features else None
    if features is not None:
        sizes["f"] = features
    frequencies = evidence.frequencies(record) if kind.has_frequencies else None
    if frequencies is not None:
        sizes["p"] = frequencies
    sites = record.params.get("sites")
    if isinstance(sites, list) and "sites" in kind.params:
        sizes["s"] = len(sites)
    for role, ref in sorted(record.tensors.items()):  # readers must not depend on the file's order
        rule = kind.roles.get(role)
        where = path + pointer("tensors", role)
        if rule is None:
            continue
        if ref.axes != rule.axes:
            evidence.add("DM332", where + "/axes", f"{short(ref.axes)}; {role} has '{rule.axes}'")
            continue
        _check_sizes(evidence, where + "/shape", ref, sizes)
    if "k" in sizes and "f" in sizes and sizes["k"] > sizes["f"]:
        text = f"{sizes['k']} components of {sizes['f']} features"
        evidence.add("DM334", path + "/tensors", text)


def _check_sizes(evidence: Evidence, where: str, ref: TensorRef, sizes: dict[str, int]) -> None:
    words = ref.axes.split()
    if len(words) != len(ref.shape):
        evidence.add("DM333", where, f"shape {ref.shape} against axes '{ref.axes}'")
        return
    for word, size in zip(words, ref.shape, strict=True):
        wanted = sizes.setdefault(word, size)
        if size != wanted:
            text = f"axis {word} has size {size}, where {wanted} is expected"
            evidence.add("DM333", where, text)
            return
