"""One streaming pass of the data through the teacher, feeding every accumulator."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dfkd_meta.errors import StatisticsError
from dfkd_meta.sidecar.manifest import Tap
from dfkd_meta.statistics.base import (
    MIN_COUNT,
    Accumulator,
    Assign,
    RecordRequest,
    Result,
    make_accumulator,
)
from dfkd_meta.statistics.classes import DescribedClasses, check_counts
from dfkd_meta.statistics.observe import (
    check_images,
    checked_activation,
    fingerprint,
)
from dfkd_meta.statistics.requests import (
    check_known,
    check_requests,
    context_for,
    global_twins,
)
from dfkd_meta.teachers import ActivationTap, Teacher, observations


@dataclass(frozen=True)
class Collection:
    """What a pass found.

    ``class_counts``, and ``recognized``, how many samples the teacher gave their label, are None
    when a batch came without labels. ``classes`` are those described, a group each of the records
    by class.
    """

    results: list[tuple[RecordRequest, Result]]
    samples: int
    class_counts: list[int] | None
    recognized: int | None = None
    classes: tuple[int, ...] = ()


def collect(
    teacher: Teacher,
    batches: Iterable[tuple[Tensor, Tensor | None]],
    requests: Sequence[RecordRequest],
    taps: Sequence[Tap],
    *,
    classes: Sequence[int] | None = None,
    min_count: int = MIN_COUNT,
) -> Collection:
    """Compute every requested record in one pass; memory does not grow with the samples.

    Batches: images float32 `n ...`, model-normalized, with labels int64 `n` or None, all of the
    ``classes`` to describe (ascending; default: all of the teacher's). A record whose groups have
    to be found first (``mixture``) takes a pass before: then the batches are asked for twice, an
    iterator will not do, and both times must give the same. Accumulates in float64 on the teacher's
    device (on the CPU where the device has no float64).

    Raises StatisticsError for an image of another shape than the teacher's inputs, NaN or infinite
    activations, labels of other classes or absent where needed, a group under ``min_count``
    samples, and when a pass changed the teacher's weights or buffers.
    """
    before = fingerprint(teacher.module)
    running = _Pass(teacher, requests, taps, min_count, classes)
    if running.scouts:
        if isinstance(batches, Iterator):
            raise StatisticsError(
                "a mixture goes through the data twice, and an iterator gives them once",
                hint="pass a list, or an object whose __iter__ starts anew",
            )
        looked_at = 0
        for batch in _forward(teacher, batches, running.scouted):
            running.look(batch)
            looked_at += batch.samples
            del batch  # or it would be held while the next one is made
        check_counts(looked_at, None, min_count)
        running.settle()
    for batch in _forward(teacher, batches, running.taps):
        running.absorb(batch)
        del batch
    changed = [key for key, digest in fingerprint(teacher.module).items() if digest != before[key]]
    if changed:
        raise StatisticsError(
            "the pass changed the teacher, so its statistics are not those of the file",
            where=", ".join(changed[:5]),
            hint="the module must be in evaluation mode and must not write to its own buffers",
        )
    described = running.described
    check_counts(running.samples, described.sizes if running.per_class else None, min_count)
    known = running.labelled and running.samples > 0
    return Collection(
        running.results(),
        running.samples,
        class_counts=described.counts if known else None,
        recognized=running.recognized if known else None,
        classes=described.classes,
    )


@dataclass(frozen=True)
class _Batch:
    """One batch behind the teacher: logits `n c`, tapped tensors `n ...` and labels."""

    number: int
    logits: Tensor
    activations: Mapping[str, Tensor]
    labels: Tensor | None

    @property
    def samples(self) -> int:
        return len(self.logits)

    def units(self, tap: Tap) -> Tensor:
        """All units of a tap: float64 `n f`."""
        tensor = checked_activation(self.activations[tap.id], tap, self.samples, self.number)
        return observations(tensor, tap, "unit").squeeze(1)


def _forward(
    teacher: Teacher, batches: Iterable[tuple[Tensor, Tensor | None]], taps: Sequence[Tap]
) -> Iterator[_Batch]:
    with torch.no_grad(), ActivationTap(teacher.module, taps) as tap:
        for number, (images, labels) in enumerate(batches):
            check_images(teacher, images, number)
            logits = teacher(images.to(teacher.device))
            labels = None if labels is None else labels.to(teacher.device)
            yield _Batch(number, logits, tap.activations, labels)
            tap.activations = {}


class _Pass:
    """The accumulators of one pass, and what they have seen."""

    def __init__(
        self,
        teacher: Teacher,
        requests: Sequence[RecordRequest],
        taps: Sequence[Tap],
        min_count: int,
        classes: Sequence[int] | None = None,
    ) -> None:
        check_requests(requests, taps)
        self.requests = list(requests)
        self.by_id = {tap.id: tap for tap in taps}
        self.per_class = any(request.scope == "per_class" for request in requests)
        self.samples, self.labelled, self.recognized = 0, True, 0
        self.described = DescribedClasses(teacher.outputs.num_classes, classes)
        self.twins = global_twins(requests)
        groups = len(self.described.classes)
        self.accumulators = {
            request.id: make_accumulator(
                request,
                context_for(teacher, request, self.by_id, classes=groups, min_count=min_count),
            )
            for request in requests
            if request.id not in self.twins
        }
        self.consumers: dict[tuple[tuple[str, ...], str | None], list[Accumulator]] = {}
        for accumulator in self.accumulators.values():
            if accumulator.parts and accumulator.request.taps:
                here = accumulator.request.taps, accumulator.request.reduction
                self.consumers.setdefault(here, []).append(accumulator)
        self.views = _views(self.consumers)
        self.scouts = {
            name: scout
            for name, accumulator in self.accumulators.items()
            if (scout := accumulator.scout()) is not None
        }
        for name, scout in self.scouts.items():
            check_known([scout.tap], self.by_id, where=name)
        self.finer: dict[str, Assign] = {}  # what the scouts found, by record
        looked_at = {scout.tap for scout in self.scouts.values()}
        self.scouted = [tap for tap in taps if tap.id in looked_at]
        self.taps = [tap for tap in taps if tap.id in self.views or tap.id in looked_at]

    def look(self, batch: _Batch) -> None:
        """Show a batch to every scout."""
        self._check_labels(batch)
        for name, scout in self.scouts.items():
            features = batch.units(self.by_id[scout.tap])
            scout.see(features, self._groups(self.accumulators[name], features, batch.labels))

    def settle(self) -> None:
        """Have every scout make up its mind."""
        self.finer = {name: scout.settle() for name, scout in self.scouts.items()}

    def absorb(self, batch: _Batch) -> None:
        """Feed a batch to every accumulator."""
        self._count(batch)
        joint: dict[tuple[str, str | None], Tensor] = {}
        for tap in self.taps:  # a tap is widened to float64 once, and reduced once per reduction
            if tap.id not in self.views:
                continue
            tensor = checked_activation(batch.activations[tap.id], tap, batch.samples, batch.number)
            for reduction, shared in self.views[tap.id].items():
                view = observations(tensor, tap, reduction)
                self._feed(((tap.id,), reduction), view, batch)
                if shared:
                    joint[tap.id, reduction] = view
        for tap_ids, reduction in self.consumers:
            if len(tap_ids) > 1:
                together = torch.cat([joint[tap_id, reduction] for tap_id in tap_ids], -1)
                self._feed((tap_ids, reduction), together, batch)

    def results(self) -> list[tuple[RecordRequest, Result]]:
        """The finished records, in the order requested."""
        found = []
        for request in self.requests:
            twin = self.twins.get(request.id)
            accumulator = self.accumulators[twin or request.id]
            found.append((request, (accumulator.pooled() if twin else accumulator).result()))
        return found

    def _feed(self, place: tuple[tuple[str, ...], str | None], view: Tensor, batch: _Batch) -> None:
        for accumulator in self.consumers.get(place, ()):
            groups = self._groups(accumulator, view, batch.labels)
            name = accumulator.request.id
            if name in self.finer:
                groups = self.finer[name](batch.units(self.by_id[self.scouts[name].tap]), groups)
            accumulator.update(view, groups)

    def _groups(self, accumulator: Accumulator, features: Tensor, labels: Tensor | None) -> Tensor:
        """The group of each sample: that of its class, or the one group of a global record."""
        if labels is not None and accumulator.request.scope == "per_class":
            return self.described.groups(labels.to(features.device))
        return torch.zeros(len(features), dtype=torch.int64, device=features.device)

    def _count(self, batch: _Batch) -> None:
        self._check_labels(batch)
        self.samples += batch.samples
        if batch.labels is None:
            self.labelled = False
            return
        self.described.count(batch.labels)
        self.recognized += int((batch.logits.argmax(1).cpu() == batch.labels.cpu()).sum())

    def _check_labels(self, batch: _Batch) -> None:
        if batch.labels is not None:
            self.described.check(batch.labels, batch.samples, batch.number)
        elif self.per_class:
            raise StatisticsError(
                f"batch {batch.number} has no labels, and per-class statistics are asked for",
                hint="use labelled data, or ask for global statistics only",
            )


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
