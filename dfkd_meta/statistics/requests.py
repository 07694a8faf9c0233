"""What a list of requests asks of a teacher: whether it can be met, and at what size."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from dfkd_meta.errors import StatisticsError
from dfkd_meta.sidecar.kinds import KINDS
from dfkd_meta.sidecar.manifest import Tap
from dfkd_meta.statistics.base import (
    MIN_COUNT,
    Context,
    RecordRequest,
    make_accumulator,
    statistics,
)
from dfkd_meta.statistics.observe import feature_count
from dfkd_meta.teachers import Teacher


@dataclass(frozen=True)
class Size:
    """Bytes of a record: in the sidecar, and of memory while it is computed, each at most."""

    stored: int
    memory: int


def forecast(
    teacher: Teacher,
    requests: Sequence[RecordRequest],
    taps: Sequence[Tap],
    *,
    classes: int | None = None,
) -> dict[str, Size]:
    """What each record will take, by id, without data and without that memory.

    ``classes`` is how many of the teacher's are to be described (default: all).
    ``stored`` is the most that it can be: a class of few samples has fewer rows in its factors.
    Raises StatisticsError as ``collect`` does.
    """
    check_requests(requests, taps)
    by_id, twins = {tap.id: tap for tap in taps}, global_twins(requests)
    found = {}
    for request in requests:
        context = context_for(teacher, request, by_id, classes=classes)
        accumulator = make_accumulator(request, replace(context, device=torch.device("meta")))
        known = KINDS.get(request.kind)
        large = {role for role, rule in (known.roles if known else {}).items() if rule.large}
        state = [] if request.id in twins else accumulator.state().values()
        kept, scout = 0, accumulator.scout()
        if scout is not None:
            check_known([scout.tap], by_id, where=request.id)
            kept = scout.memory(feature_count([by_id[scout.tap]], "unit"))
        found[request.id] = Size(
            stored=sum(
                math.prod(shape) * (2 if role in large else 4)
                for role, shape in accumulator.shapes().items()
            ),
            memory=kept + sum(tensor.nbytes for tensor in state),
        )
    return found


def check_requests(requests: Sequence[RecordRequest], taps: Sequence[Tap]) -> None:
    names = [request.id for request in requests]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise StatisticsError("a record is requested twice", where=", ".join(twice))
    check_known([name for request in requests for name in request.taps], [t.id for t in taps])
    for request in requests:
        if kind := KINDS.get(request.kind):
            _check_choice(request, "reduction", kind.reductions if kind.has_features else ())
            _check_choice(request, "scope", kind.scopes)


def _check_choice(request: RecordRequest, name: str, choices: Sequence[str]) -> None:
    chosen = getattr(request, name)
    if choices and chosen not in choices:
        raise StatisticsError(
            f"{request.kind} has no {name} {chosen}"
            if chosen
            else f"{request.kind} needs a {name}",
            where=request.id,
            hint=f"{name}: " + " or ".join(choices),
        )


def check_known(names: Iterable[str], taps: Iterable[str], where: str | None = None) -> None:
    known = list(taps)
    if unknown := sorted(set(names) - set(known)):
        raise StatisticsError(
            f"the teacher has no tap {', '.join(unknown)}",
            where=where,
            hint="taps: " + ", ".join(known),
        )


def global_twins(requests: Sequence[RecordRequest]) -> dict[str, str]:
    """Global records that need no accumulator: the per-class one of the same name holds them."""
    names = {request.id: request for request in requests}
    twins = {}
    for request in requests:
        if not statistics.get(request.kind).pools:
            continue
        twin = replace(request, scope="per_class")
        if request.scope == "global" and names.get(twin.id) == twin and twin.id != request.id:
            twins[request.id] = twin.id
    return twins


def context_for(
    teacher: Teacher,
    request: RecordRequest,
    taps: Mapping[str, Tap],
    *,
    classes: int | None = None,
    min_count: int = MIN_COUNT,
) -> Context:
    """What the accumulator of a request may know; running sums are where float64 is."""
    used = tuple(taps[name] for name in request.taps)
    device = teacher.device
    groups = teacher.outputs.num_classes if classes is None else classes
    return Context(
        module=teacher.module,
        taps=used,
        features=feature_count(used, request.reduction),
        groups=groups if request.scope == "per_class" else 1,
        min_count=min_count,
        device=torch.device("cpu") if device.type == "mps" else device,
    )
