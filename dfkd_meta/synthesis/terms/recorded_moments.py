"""Recorded means and variances, and how far the moments of a batch are from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from dfkd_meta.sidecar import Sidecar, StatisticRecord, Tap
from dfkd_meta.synthesis.gaussians import ClassGaussians, read_gaussians
from dfkd_meta.synthesis.grouping import Grouping
from dfkd_meta.synthesis.moments import group_moments
from dfkd_meta.synthesis.terms.base import StepState
from dfkd_meta.teachers import channel_axis


@dataclass(frozen=True)
class RecordedMoments:
    """Recorded mean and variance per group at one tap, to compare a batch with.

    ``statistics`` holds mean and variance, float32 `g f`; ``reduction`` says what a feature is.
    """

    tap: Tap
    reduction: str
    statistics: ClassGaussians

    @classmethod
    def read(
        cls, sidecar: Sidecar, record: StatisticRecord, device: torch.device
    ) -> RecordedMoments:
        """From a ``moments`` record."""
        statistics = read_gaussians(sidecar, record, device)
        return cls(sidecar.tap(record.taps[0]), record.reduction or "unit", statistics)

    @property
    def variance(self) -> Tensor:
        """Recorded variance, float32 `g f`."""
        if self.statistics.residual is None:
            raise ValueError("recorded moments hold a variance per feature")
        return self.statistics.residual

    @property
    def of_units(self) -> bool:
        """Whether every place of a map is a feature of its own."""
        return self.reduction == "unit" and len(self.tap.shape) > 1

    def of_batch(self, state: StepState) -> tuple[Tensor, Tensor, Tensor]:
        """As ``Alike.of_batch``, of this record alone."""
        return Alike((self,)).of_batch(state)

    def units(self, state: StepState, grouping: Grouping) -> tuple[Tensor, Tensor]:
        """Mean and mean square of each unit over the rows of each group: two of `p f`."""
        first, second = group_moments(state.by_channel(self.tap), grouping)
        return in_file_order(first, self.tap), in_file_order(second, self.tap)

    def samples(self, state: StepState) -> tuple[Tensor, Tensor | None]:
        """Each sample's features `n f`, and their variance over its positions if that counts."""
        if len(self.tap.shape) == 1:
            return state.activation(self.tap), None
        mean, variance = state.moments(self.tap)
        return mean, None if self.reduction == "pooled" else variance


@dataclass(frozen=True)
class Alike:
    """Records of the same groups with their features side by side, `f` those of all of them.

    They are compared by the operations that one of them takes: a GPU waits for a program that
    starts many small ones.
    """

    records: tuple[RecordedMoments, ...]

    @classmethod
    def among(cls, records: Sequence[RecordedMoments]) -> list[Alike]:
        """All of the records, in as few of these as can be."""
        found: dict[tuple[tuple[int, ...], bool], list[RecordedMoments]] = {}
        for record in records:
            found.setdefault((record.statistics.classes, record.of_units), []).append(record)
        return [cls(tuple(alike)) for alike in found.values()]

    @property
    def classes(self) -> tuple[int, ...]:
        return self.records[0].statistics.classes

    @cached_property
    def sizes(self) -> list[int]:
        """The features of each record."""
        return [record.statistics.mean.shape[1] for record in self.records]

    @cached_property
    def mean(self) -> Tensor:
        """Recorded means, float32 `g f`."""
        return beside([record.statistics.mean for record in self.records])

    def of_batch(self, state: StepState) -> tuple[Tensor, Tensor, Tensor]:
        """Compare the batch with the records, for the groups that the batch holds.

        Returns (groups int64 `p`, batch mean minus recorded mean `p f`, batch variance `p f`;
        divisor n).
        """
        grouping = state.targets.grouping(self.classes)
        if self.records[0].of_units:
            found = [record.units(state, grouping) for record in self.records]
            first, second = (beside(parts) for parts in zip(*found, strict=True))
            shift = first - self.mean[grouping.present]
            return grouping.present, shift, (second - first.square()).clamp_min(0)
        firsts, within = zip(*(record.samples(state) for record in self.records), strict=True)
        deviation = beside(firsts) - self.mean[grouping.rows]
        second = deviation.square()
        if any(variance is not None for variance in within):
            pairs = zip(firsts, within, strict=True)
            second = second + beside([torch.zeros_like(f) if v is None else v for f, v in pairs])
        shift = grouping.mean @ deviation
        variance = (grouping.mean @ second - shift.square()).clamp_min(0)
        return grouping.present, shift, variance


def beside(parts: Sequence[Tensor]) -> Tensor:
    """Features of several records `n f` as those of one."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), 1)


def in_file_order(units: Tensor, tap: Tap) -> Tensor:
    """Values of units `g p c` in the order of a record, that of the tap's axes: `g f`."""
    axis = channel_axis(tap)
    positions = [size for place, size in enumerate(tap.shape) if place != axis]
    return units.reshape(len(units), *positions, -1).movedim(-1, 1 + axis).flatten(1)
