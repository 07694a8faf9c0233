"""Terms that match the moments of a batch with recorded ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from dfkd_meta.checkpoint import State
from dfkd_meta.sidecar import Tap
from dfkd_meta.synthesis.terms.base import StepState, Term
from dfkd_meta.synthesis.terms.recorded_moments import Alike, RecordedMoments, beside

FLOOR = 0.05  # of a mean variance, added to each: no feature counts without bound


@dataclass(frozen=True)
class StandardizedMoments(Term):
    """Distance of batch moments from recorded ones, in units of the recorded spread.

    Mean over records of ``sqrt(mean ((m - mu) / sigma)^2 + (s / sigma - 1)^2)``, the inner mean
    over groups and features, with ``sigma^2 = variance + floor * (mean variance of the group)``:
    free of the scale of a layer, and by the root its pull is as strong near as far, so that one
    weight serves every tap of every teacher. The same shape as DeepInversion's BatchNorm term (Yin
    et al. 2020, eq. 4), taken class by class where the records are.

    Classes with fewer than ``least`` rows are pooled with their neighbors into groups of about as
    many: each row is still compared with its own class, in units of its spread, and what is matched
    is the mean and the spread of these distances.
    """

    component: ClassVar[str] = "bn"
    records: tuple[RecordedMoments, ...]
    least: int = 1
    floor: float = FLOOR

    @property
    def taps(self) -> tuple[Tap, ...]:
        return tuple(record.tap for record in self.records)

    def __call__(self, state: StepState) -> Tensor:
        return torch.cat([self._distances(spread, state) for spread in self._spreads]).mean()

    @cached_property
    def _spreads(self) -> list[Spread]:
        return [Spread.of(alike, self.floor) for alike in Alike.among(self.records)]

    def _distances(self, spread: Spread, state: StepState) -> Tensor:
        """One number per record: float32 `r`."""
        groups, shift, variance = spread.alike.of_batch(state)
        sigma = spread.sigma[groups]
        shift, square = shift / sigma, (variance + spread.floor[groups]) / sigma.square()
        share = state.targets.grouping(spread.alike.classes).pooled_mean(self.least)
        mean = share @ shift
        between = (share @ shift.square() - mean.square()).clamp_min(0)
        both = torch.stack([mean, (share @ square + between).sqrt() - 1])
        norms = torch.stack([part.norm() for part in torch.split(both, spread.alike.sizes, 2)])
        return norms / (len(share) * spread.sizes).sqrt()


@dataclass(frozen=True)
class Spread:
    """The recorded spread of records side by side.

    floor, sigma: float32 `g f`, what is added to each record's variance, and the root of the
    variance with it. sizes: float32 `r`, the features of each record.
    """

    alike: Alike
    floor: Tensor
    sigma: Tensor
    sizes: Tensor

    @classmethod
    def of(cls, alike: Alike, floor: float) -> Spread:
        variances = [record.variance for record in alike.records]
        least = beside([floor_under(one, floor).expand_as(one) for one in variances])
        sizes = least.new_tensor(alike.sizes)
        return cls(alike, least, (beside(variances) + least).sqrt(), sizes)


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


def floor_under(variance: Tensor, share: float) -> Tensor:
    """``share`` of the mean variance of each group, and more than 0: `g f` to `g 1`.

    A group counts with ``share`` of the mean over all groups at least: what never varies in one
    class (a layer that it leaves at 0) would have no unit. Where nothing varies at all the unit is
    1.
    """
    overall = variance.mean()
    overall = torch.where(overall > 0, overall, 1.0)
    return share * variance.mean(1, keepdim=True).clamp_min(share * overall)


def plain_norms(shift: Tensor, variance: Tensor, recorded: Tensor) -> Tensor:
    """``||m - mu||_2 + ||v - sigma^2||_2`` over all groups and features (each `g f`)."""
    norm: Tensor = shift.norm() + (variance - recorded).norm()
    return norm


def relative_norms(shift: Tensor, variance: Tensor, recorded: Tensor) -> Tensor:
    """The same in units of the recorded spread: ``||(m - mu) / sigma|| + ||v / sigma^2 - 1||``.

    ``FLOOR`` times the layer's mean variance is added to both variances. For places without
    BatchNorm, whose scales differ by orders of magnitude from layer to layer and net to net.
    """
    extra = floor_under(recorded, FLOOR)
    scale = recorded + extra
    norm: Tensor = (shift / scale.sqrt()).norm() + ((variance + extra) / scale - 1).norm()
    return norm
