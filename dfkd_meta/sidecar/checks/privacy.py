"""What the sidecar says about the people behind the data, against what it holds."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import partial

import numpy as np

from dfkd_meta.sidecar.arrays import Array
from dfkd_meta.sidecar.checks.evidence import Evidence, known_kind
from dfkd_meta.sidecar.issues import pointer, short
from dfkd_meta.sidecar.manifest import Privacy, StatisticRecord, Tap

USUAL_FLOOR = 11
STRENGTH_TOLERANCE = 1e-3
SAMPLES_PER_ROW = 5  # fewer, and the rows of a factor come close to being the samples
OF_ITS_OWN = 1e-3  # of its deviation: what a feature must add to those before it to count
LEVEL_ROUNDING = 2.0**-23  # levels are float32


def check_privacy(evidence: Evidence) -> None:
    """DM401 to DM411."""
    privacy = evidence.manifest.privacy
    _check_mechanism(evidence, privacy)
    if privacy.min_group_size < USUAL_FLOOR:
        text = f"groups of {privacy.min_group_size} samples are allowed"
        evidence.add("DM410", "/privacy/min_group_size", text)
    known = {record.id for record in evidence.manifest.statistics}
    for number, name in enumerate(privacy.covers):
        if name not in known and not evidence.report.full:
            evidence.add("DM403", pointer("privacy", "covers", number), f"no record {short(name)}")
    for name in privacy.tracing_strength:
        if name not in known:
            path = pointer("privacy", "tracing_strength", name)
            evidence.add("DM403", path, f"no record {short(name)}")
    for path, record in evidence.records():
        _check_counts(evidence, path, record, privacy.min_group_size)
        _check_strength(evidence, path, record)
        _check_rows(evidence, path, record)
        _check_input(evidence, path, record)


def tracing_strength(features: int, smallest_count: int) -> float:
    """sqrt(features / smallest count of a group): above about 1 a member can be told by the means.

    Source: Sankararaman et al. 2009, Genomic privacy and limits of individual detection in a pool.
    """
    return math.sqrt(features / smallest_count)


def describes_input(record: StatisticRecord, taps: Iterable[Tap | None]) -> bool:
    """Whether a record at ``taps`` is linear in the input, and so describes the data itself.

    BatchNorm buffers are public with the weights: recording them reveals nothing more.
    """
    return record.kind != "batchnorm" and any(tap and tap.linear_in_input for tap in taps)


def is_detailed(record: StatisticRecord) -> bool:
    """Whether a record tells of single classes or of single places."""
    return record.scope == "per_class" or record.reduction == "unit"


def traced_features(evidence: Evidence, record: StatisticRecord) -> int | None:
    """Features that a membership test can use: f, at each frequency p if the kind has those, or c
    for statistics of the logits; else None."""
    kind = known_kind(record)
    if kind is None or not kind.needs_count:
        return None
    if kind.of_logits:
        return evidence.manifest.outputs.num_classes
    features = evidence.features(record)
    frequencies = evidence.frequencies(record) if kind.has_frequencies else 1
    return None if features is None or frequencies is None else features * frequencies


def _check_mechanism(evidence: Evidence, privacy: Privacy) -> None:
    given = {
        "epsilon": privacy.epsilon is not None,
        "delta": privacy.delta is not None,
        "covers": bool(privacy.covers),
    }
    if privacy.mechanism == "gaussian":
        given["clip_bound"] = privacy.clip_bound is not None
    for name, there in given.items():
        if there != (privacy.mechanism == "gaussian"):
            text = f"mechanism {privacy.mechanism} {'with' if there else 'without'} {name}"
            evidence.add("DM402", pointer("privacy", name), text)


def _check_counts(evidence: Evidence, path: str, record: StatisticRecord, floor: int) -> None:
    for number, count in enumerate(record.count or ()):
        if count < floor and not evidence.report.full:
            text = f"a group of {count:,}, below {floor:,}"
            evidence.add("DM401", path + pointer("count", number), text)
    if known_kind(record) is None:
        return
    if record.kind == "mixture":
        smallest = _smallest_mode(evidence, record)
        if smallest is not None and smallest < floor:
            text = f"a mode of fewer than {floor:,} samples"
            evidence.add("DM401", path + "/tensors/mode_count", text)
    if record.kind == "quantiles" and record.count:
        levels = evidence.role(record, "probability")
        beyond = evidence.fact("beyond", lambda x: float(min(x.min(), 1 - x.max())), levels)
        if beyond is not None:
            tail = beyond * min(record.count)
            if tail < floor * (1 - 1e-6) - LEVEL_ROUNDING * min(record.count):
                text = f"{tail:.3g} samples beyond the outermost level, below {floor:,}"
                evidence.add("DM409", path + "/tensors/probability", text)


def _check_strength(evidence: Evidence, path: str, record: StatisticRecord) -> None:
    features = traced_features(evidence, record)
    smallest = _smallest_group(evidence, record)
    if features is None or smallest < 1:
        return
    strength = tracing_strength(features, smallest)
    stated = evidence.manifest.privacy.tracing_strength.get(record.id)
    if stated is None:
        text = f"the record {short(record.id)} has strength {strength:.4g}"
        evidence.add("DM405", "/privacy/tracing_strength", text)
    elif not math.isclose(stated, strength, rel_tol=STRENGTH_TOLERANCE):
        where = pointer("privacy", "tracing_strength", record.id)
        evidence.add("DM404", where, f"{stated:.4g} where {strength:.4g} is right")
    if strength > 1:
        evidence.add("DM406", path, f"tracing strength {strength:.3g} of {short(record.id)}")


def _smallest_group(evidence: Evidence, record: StatisticRecord) -> int:
    """Samples of the smallest group; a mode of a mixture is one. 0 when none is known."""
    if record.kind == "mixture":
        return int(_smallest_mode(evidence, record) or 0)
    return min(record.count or [0])


def _smallest_mode(evidence: Evidence, record: StatisticRecord) -> float | None:
    """Samples of the smallest mode of a mixture in use; None when no count is a number."""

    def smallest(counts: Array) -> float | None:
        used = counts[np.isfinite(counts) & (counts > 0)]
        return float(used.min()) if used.size else None

    found: float | None = evidence.fact("mode", smallest, evidence.role(record, "mode_count"))
    return found


def _check_rows(evidence: Evidence, path: str, record: StatisticRecord) -> None:
    """As many rows as samples hold the samples, where a sample is one observation."""
    positions = record.reduction == "channel" and evidence.has_positions(record)
    if known_kind(record) is None or positions or not record.count:
        return
    for role, count_rows in ROOTS.items():
        ref = evidence.role(record, role)
        rows = evidence.fact(count_rows.__name__, count_rows, ref)
        if ref is None or rows is None:
            continue
        if record.kind == "mixture":  # compared once for each pair of tensors
            compare, modes = partial(_crowded, rows), evidence.role(record, "mode_count")
            found = evidence.fact(f"crowded {ref.file} {ref.key}", compare, modes)
        else:
            found = _crowded(rows, np.array(record.count, np.float64))
        if found is not None:
            text = f"up to {found[0]} rows, and groups or modes of {found[1]:.0f} samples"
            evidence.add("DM411", path + pointer("tensors", role), text)


def _crowded(rows: Array, counts: Array) -> tuple[int, float] | None:
    """The most rows and the fewest samples, if some group or mode has too many rows; else None."""
    if rows.shape != counts.shape:
        return None  # noted as DM315 or DM333
    with np.errstate(invalid="ignore"):
        most = np.maximum(counts // SAMPLES_PER_ROW, 1)
    crowded = (rows > most)[counts > 0].any()
    return (int(rows.max()), float(counts.min())) if crowded else None


def _rows(factor: Array) -> Array:
    """Rows other than zero of each matrix: `... k f` to `...`."""
    # In few bytes, so that what is kept is never larger than the factors themselves.
    rows: Array = factor.any(-1).sum(-1, dtype=np.min_scalar_type(factor.shape[-2]))
    return rows


def _rank(triangle: Array) -> Array | None:
    """Rows of each triangle that those above do not span, but for rounding: `... f f` to `...`."""
    if triangle.shape[-1] != triangle.shape[-2]:
        return None  # noted as DM333
    with np.errstate(over="ignore", invalid="ignore"):
        own = np.diagonal(triangle, axis1=-2, axis2=-1)
        squares = np.einsum("...ij,...ij->...i", triangle, triangle, dtype=np.float64)
        rank: Array = (own > OF_ITS_OWN * np.sqrt(squares)).sum(-1)
        return rank


ROOTS = {"factor": _rows, "basis": _rows, "cholesky": _rank, "logit_cholesky": _rank}


def _check_input(evidence: Evidence, path: str, record: StatisticRecord) -> None:
    kind = known_kind(record)
    taps = [evidence.taps.get(name) for name in record.taps]
    if not describes_input(record, taps):
        return
    evidence.add("DM407", path, f"{short(record.id)} is linear in the input")
    # Where a sample has one position its channels are its units, by whatever name.
    detailed = is_detailed(record) or not evidence.has_positions(record)
    limited = evidence.manifest.profile in ("minimal", "standard")
    if kind and kind.has_features and detailed and limited:
        text = f"{short(record.id)} is {record.scope}, {record.reduction}"
        evidence.add("DM408", path, f"{text}, in profile {evidence.manifest.profile}")
