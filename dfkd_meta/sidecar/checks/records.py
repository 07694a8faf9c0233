"""Statistic records against the taps, classes and kinds; no tensor is looked at."""

from __future__ import annotations

from itertools import pairwise

from dfkd_meta.sidecar.checks.evidence import Evidence, features_at, groups
from dfkd_meta.sidecar.issues import pointer, short
from dfkd_meta.sidecar.kinds import KINDS, Kind, Param
from dfkd_meta.sidecar.manifest import StatisticRecord, Tap


def check_records(evidence: Evidence) -> None:
    """DM301, DM310 to DM318, DM320 to DM322, DM350, DM351."""
    seen: set[str] = set()
    for path, record in evidence.records():
        if record.id in seen:
            evidence.add("DM301", path + "/id", f"the record id {short(record.id)} occurs twice")
        seen.add(record.id)
        for number, name in enumerate(record.taps):
            if name not in evidence.taps:
                evidence.add("DM310", path + pointer("taps", number), f"no tap {short(name)}")
        _check_groups(evidence, path, record)
        kind = KINDS.get(record.kind)
        if kind is None:
            evidence.add("DM350", path + "/kind", f"the kind {short(record.kind)} is unknown")
        elif kind.version != record.kind_version:
            text = f"{kind.name} version {record.kind_version}; known is {kind.version}"
            evidence.add("DM351", path + "/kind_version", text)
        else:
            _check_kind(evidence, path, record, kind)


def _check_groups(evidence: Evidence, path: str, record: StatisticRecord) -> None:
    manifest = evidence.manifest
    if not _classes_fit(record, manifest.outputs.num_classes):
        text = f"{record.scope} with classes {short(record.classes)}"
        evidence.add("DM314", path + "/classes", text)
        return
    if record.count is None:
        return
    if len(record.count) != groups(record):
        text = f"{len(record.count)} counts for {groups(record)} groups"
        evidence.add("DM315", path + "/count", text)
        return
    known = manifest.provenance.class_counts or ()
    if record.classes is not None and len(known) == manifest.outputs.num_classes:
        limits = [known[c] for c in record.classes]
    else:
        limits = [manifest.provenance.samples] * groups(record)
    for number, (count, limit) in enumerate(zip(record.count, limits, strict=True)):
        if count > limit and not evidence.report.full:
            text = f"a count of {count:,} where there were {limit:,} samples"
            evidence.add("DM316", path + pointer("count", number), text)


def _classes_fit(record: StatisticRecord, num_classes: int) -> bool:
    classes = record.classes
    if record.scope == "global" or not classes:
        return record.scope == "global" and classes is None
    ascending = all(low < high for low, high in pairwise(classes))
    return ascending and classes[-1] < num_classes


def _check_kind(evidence: Evidence, path: str, record: StatisticRecord, kind: Kind) -> None:
    if record.scope not in kind.scopes:
        evidence.add("DM317", path + "/scope", f"{kind.name} cannot be {record.scope}")
    if kind.needs_count and record.count is None:
        evidence.add("DM315", path + "/count", f"{kind.name} needs a count per group")
    few = kind.taps is None and kind.has_features and not record.taps
    if few or kind.taps not in (None, len(record.taps)):
        wanted = "at least one" if kind.taps is None else str(kind.taps)
        text = f"{len(record.taps)} taps; {kind.name} names {wanted}"
        evidence.add("DM311", path + "/taps", text)
    if kind.of_logits and any(not _is_output(evidence.taps.get(name)) for name in record.taps):
        evidence.add("DM318", path + "/taps", f"{kind.name} at {short(record.taps[0])}")
    if kind.has_features:
        _check_reduction(evidence, path, record, kind)
    _check_roles(evidence, path, record, kind)
    for name, rule in kind.params.items():
        if not _param_fits(record.params.get(name), rule):
            text = f"{kind.name} needs {name}, not {short(record.params.get(name))}"
            evidence.add("DM322", path + pointer("params", name), text)


def _is_output(tap: Tap | None) -> bool:
    """Whether a tap is the whole model's output; one that does not exist is noted elsewhere."""
    return tap is None or (not tap.module and tap.side == "output")


def _check_reduction(evidence: Evidence, path: str, record: StatisticRecord, kind: Kind) -> None:
    if record.reduction not in kind.reductions:
        text = f"{record.reduction}; {kind.name} allows {', '.join(kind.reductions)}"
        evidence.add("DM312", path + "/reduction", text)
        return
    for name in record.taps:
        tap = evidence.taps.get(name)
        if tap and len(tap.axes) == len(tap.shape) and features_at(tap, record.reduction) is None:
            text = f"the tap {short(name)} has the axes {', '.join(tap.axes)[:80]}"
            evidence.add("DM313", path + "/reduction", text)


def _check_roles(evidence: Evidence, path: str, record: StatisticRecord, kind: Kind) -> None:
    held = frozenset(record.tensors)
    if not any(wanted <= held for wanted in kind.alternatives):
        sets = " or ".join(", ".join(sorted(wanted)) for wanted in kind.alternatives)
        evidence.add("DM320", path + "/tensors", f"{kind.name} needs {sets}")
    for name, other in kind.beside.items():
        if name in held and other not in held:
            evidence.add("DM320", path + "/tensors", f"{name} needs {other}")
    for name in sorted(held - frozenset(kind.roles)):
        evidence.add("DM321", path + pointer("tensors", name), f"{kind.name} has no such role")


def _param_fits(value: object, rule: Param) -> bool:
    if rule.choices:
        return value in rule.choices
    if rule.names:
        return isinstance(value, list) and all(isinstance(name, str) and name for name in value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    above_floor = rule.above is None or value > rule.above
    return above_floor and (rule.most is None or value <= rule.most)
