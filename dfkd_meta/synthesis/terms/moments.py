"""Terms that match the moments of a batch with recorded ones."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from dfkd_meta.checkpoint import State
from dfkd_meta.sidecar import Sidecar, StatisticRecord, Tap
from dfkd_meta.synthesis.gaussians import ClassGaussians, read_gaussians
from dfkd_meta.synthesis.moments import group_moments
from dfkd_meta.synthesis.terms.base import StepState, Term
from dfkd_meta.teachers import channel_axis

FLOOR = 0.05


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

    def of_batch(self, state: StepState) -> tuple[Tensor, Tensor, Tensor]:
        """Compare the batch with the record, for the groups that the batch holds.

        Returns (groups int64 `p`, batch mean minus recorded mean `p f`, batch variance `p f`;
        divisor n).
        """
        grouping = state.targets.grouping(self.statistics.classes)
        mean = self.statistics.mean
        if self.reduction == "unit" and len(self.tap.shape) > 1:
            first, second = (
                in_file_order(found, self.tap)
                for found in group_moments(state.by_channel(self.tap), grouping)
            )
            shift = first - mean[grouping.present]
            return grouping.present, shift, (second - first.square()).clamp_min(0)
        first, second = self._per_sample(state, mean[grouping.rows])
        shift = grouping.mean @ first
        variance = (grouping.mean @ second - shift.square()).clamp_min(0)
        return grouping.present, shift, variance

    def _per_sample(self, state: StepState, mean: Tensor) -> tuple[Tensor, Tensor]:
        """First and second moment of each sample about its recorded ``mean``: all `n f`."""
        if len(self.tap.shape) == 1:
            deviation = state.activation(self.tap) - mean
            return deviation, deviation.square()
        first, second = state.moments(self.tap)
        deviation = first - mean
        if self.reduction == "pooled":
            return deviation, deviation.square()
        return deviation, second - mean * (first + deviation)


def in_file_order(units: Tensor, tap: Tap) -> Tensor:
    """Values of units `g p c` in the order of a record, that of the tap's axes: `g f`."""
    axis = channel_axis(tap)
    positions = [size for place, size in enumerate(tap.shape) if place != axis]
    return units.reshape(len(units), *positions, -1).movedim(-1, 1 + axis).flatten(1)


@dataclass(frozen=True)
class StandardizedMoments(Term):
    """Distance of batch moments from recorded ones, in units of the recorded spread.

    Mean over records of ``sqrt(mean ((m - mu) / sigma)^2 + (s / sigma - 1)^2)``, the inner mean
    over groups and features, with ``sigma^2 = variance + floor * (mean variance of the group)``:
    free of the scale of a layer, and by the root its pull is as strong near as far, so that one
    weight serves every tap of every teacher. The same shape as DeepInversion's BatchNorm term (Yin
    et al. 2020, eq. 4), taken class by class where the records are.

    Classes with fewer than ``least`` rows are pooled with their neighbors until there are as many:
    each row is still compared with its own class, in units of its spread, and what is matched is
    the mean and the spread of these distances.
    """

    component: ClassVar[str] = "bn"
    records: tuple[RecordedMoments, ...]
    least: int = 1
    floor: float = 0.05

    @property
    def taps(self) -> tuple[Tap, ...]:
        return tuple(record.tap for record in self.records)

    def __call__(self, state: StepState) -> Tensor:
        return torch.stack([self._distance(record, state) for record in self.records]).mean()

    def _distance(self, record: RecordedMoments, state: StepState) -> Tensor:
        groups, shift, variance = record.of_batch(state)
        recorded = record.variance[groups]
        floor = self.floor * recorded.mean(1, keepdim=True) + torch.finfo(recorded.dtype).tiny
        sigma = (recorded + floor).sqrt()
        shift, square = shift / sigma, (variance + floor) / sigma.square()
        grouping = state.targets.grouping(record.statistics.classes)
        share = grouping.pooled_mean(self.least)
        mean = share @ shift
        between = (share @ shift.square() - mean.square()).clamp_min(0)
        spread = (share @ square + between).sqrt() - 1
        distance: Tensor = torch.stack([mean, spread]).norm() / math.sqrt(mean.numel())
        return distance


@dataclass(frozen=True)
class MomentNorms(Term):
    """``sum_l ||m_l - mu_l||_2 + ||v_l - sigma^2_l||_2`` over layers, on whole-batch moments.

    DeepInversion's feature term as its published code computes it: norms, not their squares.
    ``relative`` divides each feature by its recorded spread (see ``relative_norms``).
    """

    component: ClassVar[str] = "bn"
    records: tuple[RecordedMoments, ...]
    relative: bool = False

    @property
    def taps(self) -> tuple[Tap, ...]:
        return tuple(record.tap for record in self.records)

    def __call__(self, state: StepState) -> Tensor:
        norms = relative_norms if self.relative else plain_norms
        total = state.logits.new_zeros(())
        for record in self.records:
            groups, shift, variance = record.of_batch(state)
            total = total + norms(shift, variance, record.variance[groups])
        return total


@dataclass
class MomentumNorms(Term):
    """``MomentNorms`` with each batch's moments blended into those of the batches before it.

    Compared with the record is ``(1 - r) m + r M``, M the moving average of finished batches with
    the same rate r = ``momentum``, so that batches together, not each alone, match the statistics
    (FastDFKD, Fang et al. 2022; the first batch is compared as it is). The published
    code feeds the average with the last inner step; here it is the batch that was kept.
    """

    component: ClassVar[str] = "bn"
    records: tuple[RecordedMoments, ...]
    momentum: float = 0.9
    relative: bool = False
    averages: list[tuple[Tensor, Tensor]] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        if any(record.statistics.classes for record in self.records):
            raise ValueError("a moving average is kept of whole batches: global records only")

    @property
    def taps(self) -> tuple[Tap, ...]:
        return tuple(record.tap for record in self.records)

    def __call__(self, state: StepState) -> Tensor:
        norms = relative_norms if self.relative else plain_norms
        total = state.logits.new_zeros(())
        for record, (shift, variance) in zip(self.records, self._blended(state), strict=True):
            total = total + norms(shift, variance, record.variance)
        return total

    def end_batch(self, state: StepState) -> None:
        self.averages = [
            (shift.clone(), variance.clone()) for shift, variance in self._blended(state)
        ]

    def state(self) -> State:
        return {"averages": [list(pair) for pair in self.averages]}

    def load_state(self, state: State) -> None:
        devices = [record.variance.device for record in self.records]
        self.averages = [
            (shift.to(device), variance.to(device))
            for (shift, variance), device in zip(state["averages"], devices, strict=False)
        ]

    def _blended(self, state: StepState) -> list[tuple[Tensor, Tensor]]:
        """Per record: mean minus recorded mean `1 f` and variance `1 f`, with the past in them."""
        moments = [record.of_batch(state)[1:] for record in self.records]
        if not self.averages:
            return moments
        keep = self.momentum
        return [
            ((1 - keep) * shift + keep * past_shift, (1 - keep) * variance + keep * past_variance)
            for (shift, variance), (past_shift, past_variance) in zip(
                moments, self.averages, strict=True
            )
        ]


def plain_norms(shift: Tensor, variance: Tensor, recorded: Tensor) -> Tensor:
    """``||m - mu||_2 + ||v - sigma^2||_2`` over all groups and features (each `g f`)."""
    norm: Tensor = shift.norm() + (variance - recorded).norm()
    return norm


def relative_norms(shift: Tensor, variance: Tensor, recorded: Tensor) -> Tensor:
    """The same in units of the recorded spread: ``||(m - mu) / sigma|| + ||v / sigma^2 - 1||``.

    ``FLOOR`` times the layer's mean variance is added to both variances. For places without
    BatchNorm, whose scales differ by orders of magnitude from layer to layer and net to net.
    """
    extra = FLOOR * recorded.mean(1, keepdim=True) + torch.finfo(recorded.dtype).tiny
    scale = recorded + extra
    norm: Tensor = (shift / scale.sqrt()).norm() + ((variance + extra) / scale - 1).norm()
    return norm
