"""One streaming pass of the data through the teacher, feeding every accumulator."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dfkd_meta.errors import StatisticsError
from dfkd_meta.sidecar.manifest import Tap
from dfkd_meta.statistics.base import (
    Accumulator,
    Context,
    RecordRequest,
    Result,
    make_accumulator,
)
from dfkd_meta.statistics.observe import (
    check_counts,
    check_images,
    check_labels,
    checked_activation,
    feature_count,
    fingerprint,
    observations,
)
from dfkd_meta.teachers import ActivationTap, Teacher

MIN_COUNT = 11


@dataclass(frozen=True)
class Collection:
    """What a pass found; ``class_counts`` is None when a batch came without labels."""

    results: list[tuple[RecordRequest, Result]]
    samples: int
    class_counts: list[int] | None


def collect(
    teacher: Teacher,
    batches: Iterable[tuple[Tensor, Tensor | None]],
    requests: Sequence[RecordRequest],
    taps: Sequence[Tap],
    *,
    min_count: int = MIN_COUNT,
) -> Collection:
    """Compute every requested record in one pass; memory does not grow with the samples.

    Batches: images float32 `n ...`, model-normalized, with labels int64 `n` or None. Accumulates in
    float64 on the teacher's device (on the CPU where the device has no float64). Raises
    StatisticsError for an image of another shape than the teacher's inputs, NaN or infinite
    activations, labels out of range or absent where needed, a group under ``min_count`` samples,
    and when the pass changed the teacher's weights or buffers.
    """
    before = fingerprint(teacher.module)
    running = _Pass(teacher, requests, taps)
    with torch.no_grad(), ActivationTap(teacher.module, running.taps) as tap:
        for images, labels in batches:
            check_images(teacher, images, running.batches)
            teacher(images.to(teacher.device))
            running.absorb(tap.activations, labels, len(images))
    changed = [key for key, digest in fingerprint(teacher.module).items() if digest != before[key]]
    if changed:
        raise StatisticsError(
            "the pass changed the teacher, so its statistics are not those of the file",
            where=", ".join(changed[:5]),
            hint="the module must be in evaluation mode and must not write to its own buffers",
        )
    check_counts(running.samples, running.class_counts if running.per_class else None, min_count)
    counts = running.class_counts if running.labelled and running.samples else None
    return Collection(running.results(), running.samples, counts)


class _Pass:
    """The accumulators of one pass, and what they have seen."""

    def __init__(
        self, teacher: Teacher, requests: Sequence[RecordRequest], taps: Sequence[Tap]
    ) -> None:
        _check_requests(requests, taps)
        self.requests = list(requests)
        self.by_id = {tap.id: tap for tap in taps}
        self.per_class = any(request.scope == "per_class" for request in requests)
        self.samples, self.batches, self.labelled = 0, 0, True
        self.class_counts = [0] * teacher.outputs.num_classes
        self.twins = _global_twins(requests)
        self.accumulators = {
            request.id: make_accumulator(request, _context(teacher, request, self.by_id))
            for request in requests
            if request.id not in self.twins
        }
        self.consumers: dict[tuple[tuple[str, ...], str | None], list[Accumulator]] = {}
        for accumulator in self.accumulators.values():
            if accumulator.parts and accumulator.request.taps:
                here = accumulator.request.taps, accumulator.request.reduction
                self.consumers.setdefault(here, []).append(accumulator)
        self.views = _views(self.consumers)
        self.taps = [tap for tap in taps if tap.id in self.views]

    def absorb(
        self, activations: Mapping[str, Tensor], labels: Tensor | None, samples: int
    ) -> None:
        """Feed one batch of tapped tensors `n ...` to every accumulator."""
        self._count(labels, samples)
        joint: dict[tuple[str, str | None], Tensor] = {}
        for tap in self.taps:  # a tap is widened to float64 once, and reduced once per reduction
            tensor = checked_activation(activations[tap.id], tap, samples, self.batches)
            for reduction, shared in self.views[tap.id].items():
                view = observations(tensor, tap, reduction)
                _feed(self.consumers.get(((tap.id,), reduction), ()), view, labels)
                if shared:
                    joint[tap.id, reduction] = view
        for (tap_ids, reduction), accumulators in self.consumers.items():
            if len(tap_ids) > 1:
                together = torch.cat([joint[tap_id, reduction] for tap_id in tap_ids], -1)
                _feed(accumulators, together, labels)
        self.batches += 1

    def results(self) -> list[tuple[RecordRequest, Result]]:
        """The finished records, in the order requested."""
        found = []
        for request in self.requests:
            twin = self.twins.get(request.id)
            accumulator = self.accumulators[twin or request.id]
            found.append((request, (accumulator.pooled() if twin else accumulator).result()))
        return found

    def _count(self, labels: Tensor | None, samples: int) -> None:
        self.samples += samples
        if labels is None:
            self.labelled = False
            if self.per_class:
                raise StatisticsError(
                    f"batch {self.batches} has no labels, and per-class statistics are asked for",
                    hint="use labelled data, or ask for global statistics only",
                )
            return
        classes = len(self.class_counts)
        check_labels(labels, samples, classes, self.batches)
        batch = torch.bincount(labels.cpu(), minlength=classes).tolist()
        self.class_counts = [a + b for a, b in zip(self.class_counts, batch, strict=True)]


def _views(
    consumers: Iterable[tuple[tuple[str, ...], str | None]],
) -> dict[str, dict[str | None, bool]]:
    """Per tap the reductions wanted, and whether a record of several taps wants them."""
    views: dict[str, dict[str | None, bool]] = {}
    for tap_ids, reduction in consumers:
        for tap_id in tap_ids:
            here = views.setdefault(tap_id, {})
            here[reduction] = here.get(reduction, False) or len(tap_ids) > 1
    return views


def _feed(accumulators: Sequence[Accumulator], features: Tensor, labels: Tensor | None) -> None:
    everyone = torch.zeros(len(features), dtype=torch.int64, device=features.device)
    by_class = everyone if labels is None else labels.to(features.device)
    for accumulator in accumulators:
        per_class = accumulator.request.scope == "per_class"
        accumulator.update(features, by_class if per_class else everyone)


def _check_requests(requests: Sequence[RecordRequest], taps: Sequence[Tap]) -> None:
    names = [request.id for request in requests]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise StatisticsError("a record is requested twice", where=", ".join(twice))
    known = [tap.id for tap in taps]
    unknown = sorted({name for request in requests for name in request.taps} - set(known))
    if unknown:
        raise StatisticsError(
            f"the teacher has no tap {', '.join(unknown)}", hint="taps: " + ", ".join(known)
        )


def _global_twins(requests: Sequence[RecordRequest]) -> dict[str, str]:
    """Global records that need no accumulator: the per-class one of the same name holds them."""
    names = {request.id: request for request in requests}
    twins = {}
    for request in requests:
        twin = replace(request, scope="per_class")
        if request.scope == "global" and names.get(twin.id) == twin and twin.id != request.id:
            twins[request.id] = twin.id
    return twins


def _context(teacher: Teacher, request: RecordRequest, taps: Mapping[str, Tap]) -> Context:
    used = tuple(taps[name] for name in request.taps)
    device = teacher.device
    return Context(
        module=teacher.module,
        taps=used,
        features=feature_count(used, request.reduction),
        groups=teacher.outputs.num_classes if request.scope == "per_class" else 1,
        device=torch.device("cpu") if device.type == "mps" else device,
    )
