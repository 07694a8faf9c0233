"""The numbers themselves: finite, of the right sign, probabilities, triangular, ascending."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from dfkd_meta.sidecar.arrays import Array
from dfkd_meta.sidecar.checks.evidence import MAX_POINTED_BYTES, Evidence, known_kind
from dfkd_meta.sidecar.issues import pointer
from dfkd_meta.sidecar.kinds import Role
from dfkd_meta.sidecar.manifest import StatisticRecord, TensorRef

# float32 sums of thousands of probabilities, and F16 storage, miss 1 by about this much.
SUM_TOLERANCE = 2e-3
# Rows of at most this many elements are looked at together, to keep temporary memory small.
CHUNK = 2**22

Rule = Callable[[Array], bool]


def check_values(evidence: Evidence) -> None:
    """DM340 to DM347. Each tensor is examined once per rule, however often it is named."""
    done: dict[tuple[str | None, str, str], bool] = {}
    for path, record in evidence.records():
        kind = known_kind(record)
        for role, ref in record.tensors.items():
            rule = kind.roles.get(role, Role("")) if kind else Role("")
            where = path + pointer("tensors", role)
            for code, text, good in _rules(rule if ref.axes == rule.axes else Role("")):
                key = (ref.file, ref.key, code)
                if key not in done:
                    done[key] = _holds(evidence, ref, good)
                if not done[key]:
                    evidence.add(code, where, f"{ref.key}: {text}")
        if record.kind == "quantiles" and kind:
            _check_quantiles(evidence, path, record)
        if record.kind == "mixture" and kind:
            _check_modes(evidence, path, record)


def _rules(rule: Role) -> Iterator[tuple[str, str, Rule]]:
    yield "DM340", "NaN or infinity", _finite
    if rule.nonnegative:
        yield "DM341", "a negative value", lambda x: bool((x >= 0).all())
    if rule.probability:
        yield "DM342", "a value outside [0, 1]", lambda x: bool(((x >= 0) & (x <= 1)).all())
    if rule.sums_to_one:
        yield "DM343", "a row does not sum to 1", _sums_to_one
    if rule.lower_triangular:
        yield "DM344", "not lower triangular with a diagonal >= 0", _is_cholesky
    if rule.unit_rows:
        yield "DM347", "a vector is not of length 1", _unit_rows


def _holds(evidence: Evidence, ref: TensorRef, good: Rule) -> bool:
    """Whether a rule holds for a tensor; true when the tensor cannot be read (noted elsewhere)."""
    values = read_values(evidence, ref)
    if values is None or values.size == 0:
        return True
    matrices = values.reshape(-1, *values.shape[-2:]) if values.ndim > 1 else values[None, None]
    step = max(1, CHUNK // max(1, matrices[0].size))
    return all(good(matrices[at : at + step]) for at in range(0, len(matrices), step))


def read_values(evidence: Evidence, ref: TensorRef) -> Array | None:
    """The tensor that a reference names, if manifest and file agree on it."""
    entry, source = evidence.entry(ref), evidence.source(ref)
    if entry is None or source is None:
        return None
    if ref.file is not None and entry.end - entry.begin > MAX_POINTED_BYTES:
        return None
    return source.read(entry)


def _finite(x: Array) -> bool:
    return bool(np.isfinite(x).all())


def _sums_to_one(x: Array) -> bool:
    with np.errstate(over="ignore", invalid="ignore"):
        return bool((np.abs(x.sum(-1, dtype=np.float64) - 1) <= SUM_TOLERANCE).all())


def _is_cholesky(x: Array) -> bool:
    diagonal = np.diagonal(x, axis1=-2, axis2=-1)
    return bool((diagonal >= 0).all()) and not np.triu(x, 1).any()


def _unit_rows(x: Array) -> bool:
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.square(x, dtype=np.float64).sum(-1)
        return bool((np.abs(squares - 1) <= SUM_TOLERANCE).all())


def _check_quantiles(evidence: Evidence, path: str, record: StatisticRecord) -> None:
    levels = role_values(evidence, record, "probability")
    if levels is not None and not (_ascending(levels) and levels[0] > 0 and levels[-1] < 1):
        text = "levels must ascend within (0, 1)"
        evidence.add("DM345", path + "/tensors/probability", text)
    values = role_values(evidence, record, "value")
    if values is not None and (values[..., 1:] < values[..., :-1]).any():
        evidence.add("DM345", path + "/tensors/value", "the values of a feature descend")


def _ascending(levels: Array) -> bool:
    return bool((levels[1:] > levels[:-1]).all())


def _check_modes(evidence: Evidence, path: str, record: StatisticRecord) -> None:
    modes = role_values(evidence, record, "mode_count")
    if modes is None or record.count is None or len(record.count) != len(modes):
        return
    with np.errstate(over="ignore", invalid="ignore"):
        whole = bool((modes == np.rint(modes)).all())
        sums = modes.sum(-1, dtype=np.float64)
    # float32 counts are whole only up to 2**24; beyond, the sum is allowed its rounding.
    if not whole or not np.allclose(sums, record.count, rtol=1e-6, atol=0):
        text = "mode counts must be whole and sum to the count of their group"
        evidence.add("DM346", path + "/tensors/mode_count", text)


def role_values(evidence: Evidence, record: StatisticRecord, role: str) -> Array | None:
    """A role's values when its axes are as many as its kind says."""
    kind, ref = known_kind(record), record.tensors.get(role)
    if kind is None or ref is None or len(ref.shape) != len(kind.roles[role].axes.split()):
        return None
    return read_values(evidence, ref)
