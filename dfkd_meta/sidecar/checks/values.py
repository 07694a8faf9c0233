"""The numbers themselves: finite, of the right sign, probabilities, covariances, ascending."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from dfkd_meta.sidecar.arrays import Array
from dfkd_meta.sidecar.checks.evidence import Evidence, known_kind
from dfkd_meta.sidecar.issues import pointer
from dfkd_meta.sidecar.kinds import Role
from dfkd_meta.sidecar.manifest import StatisticRecord

# float32 sums of thousands of probabilities, and F16 storage, miss 1 by about this much.
SUM_TOLERANCE = 2e-3
TOLERANCE = 1e-3  # rounding in float16 leaves a cosine or a covariance by less than this
MOST_CHANNELS = 4096  # larger matrices would take minutes and gigabytes
# Rows of at most this many elements are looked at together, to keep temporary memory small.
CHUNK = 2**22

Rule = Callable[[Array], bool]


def check_values(evidence: Evidence) -> None:
    """DM340 to DM349. Each tensor is examined once per rule, however often it is named."""
    for path, record in evidence.records():
        kind = known_kind(record)
        for role, ref in record.tensors.items():
            rule = kind.roles.get(role, Role("")) if kind else Role("")
            where = path + pointer("tensors", role)
            for code, text, good in _rules(rule if ref.axes == rule.axes else Role("")):
                if evidence.fact(code, partial(_holds, good), ref) is False:
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
    if rule.cosine:
        yield "DM348", "a cosine outside [-1, 1]", _is_cosine
    if rule.covariance:
        yield "DM349", "a matrix that is no covariance", _is_covariance


def _holds(good: Rule, values: Array) -> bool:
    """Whether a rule holds for a tensor, looked at in pieces."""
    if values.size == 0:
        return True
    matrices = values.reshape(-1, *values.shape[-2:]) if values.ndim > 1 else values[None, None]
    step = max(1, CHUNK // max(1, matrices[0].size))
    return all(good(matrices[at : at + step]) for at in range(0, len(matrices), step))


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
        squares = np.einsum("...i,...i->...", x, x, dtype=np.float64)  # no copy of all of x
        return bool((np.abs(squares - 1) <= SUM_TOLERANCE).all())


def _is_cosine(x: Array) -> bool:
    # Not by magnitude: that of the smallest integer is negative.
    return bool(((x >= -1 - TOLERANCE) & (x <= 1 + TOLERANCE)).all())


def _is_covariance(x: Array) -> bool:
    """Symmetric and positive semidefinite, but for rounding, and of a size that can be checked."""
    if x.shape[-1] != x.shape[-2]:
        return True  # noted as DM333
    if x.shape[-1] > MOST_CHANNELS:
        return False
    x = x.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        rounding = TOLERANCE * np.abs(x).max((-2, -1))
        if not np.isfinite(rounding).all():
            return True  # noted as DM340
        if (np.abs(x - np.swapaxes(x, -1, -2)).max((-2, -1)) > rounding).any():
            return False
    # No eigenvalue is below -rounding where a Cholesky factor of x + rounding I exists.
    allowed = np.where(rounding > 0, rounding, 1.0)[:, None, None] * np.eye(x.shape[-1])
    try:
        np.linalg.cholesky(x + allowed)
    except np.linalg.LinAlgError:
        return False
    return True


def _check_quantiles(evidence: Evidence, path: str, record: StatisticRecord) -> None:
    levels = evidence.role(record, "probability")
    if evidence.fact("levels", _are_levels, levels) is False:
        text = "levels must ascend within (0, 1)"
        evidence.add("DM345", path + "/tensors/probability", text)
    values = evidence.role(record, "value")
    if evidence.fact("descend", lambda x: bool((x[..., 1:] < x[..., :-1]).any()), values):
        evidence.add("DM345", path + "/tensors/value", "the values of a feature descend")


def _are_levels(x: Array) -> bool:
    return bool((x[1:] > x[:-1]).all() and x[0] > 0 and x[-1] < 1)


def _check_modes(evidence: Evidence, path: str, record: StatisticRecord) -> None:
    counts, weights = (evidence.role(record, role) for role in ("mode_count", "weight"))
    whole = evidence.fact("whole", _are_whole, counts)
    sums = evidence.fact("sums", _sums, counts)
    if sums is None or record.count is None or len(record.count) != len(sums):
        return
    # float32 counts are whole only up to 2**24; beyond, the sum is allowed its rounding.
    if not whole or not np.allclose(sums, record.count, rtol=1e-6, atol=0):
        text = "mode counts must be whole and sum to the count of their group"
        evidence.add("DM346", path + "/tensors/mode_count", text)
    if evidence.fact("unused", _unused_has_weight, counts, weights):
        text = "a mode of no samples must have weight 0"
        evidence.add("DM346", path + "/tensors/weight", text)


def _are_whole(x: Array) -> bool:
    with np.errstate(invalid="ignore"):
        return bool((x == np.rint(x)).all())


def _sums(x: Array) -> Array:
    with np.errstate(over="ignore", invalid="ignore"):
        sums: Array = x.sum(-1, dtype=np.float64)
        return sums


def _unused_has_weight(counts: Array, weights: Array) -> bool:
    return counts.shape == weights.shape and bool((weights[counts == 0] != 0).any())
