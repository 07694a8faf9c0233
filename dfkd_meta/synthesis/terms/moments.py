"""Terms that match the moments of a batch with recorded ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dfkd_meta.sidecar import Sidecar, StatisticRecord, Tap
from dfkd_meta.synthesis.gaussians import ClassGaussians, read_gaussians
from dfkd_meta.synthesis.recipe import StepState
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

    def of_batch(self, state: StepState) -> tuple[Tensor, Tensor, Tensor]:
        """Compare the batch with the record, for the groups that the batch holds.

        Returns (groups int64 `p`, batch mean minus recorded mean `p f`, batch variance `p f`;
        divisor n). Deviations are taken from the recorded mean first, which keeps float32 exact.
        """
        rows = self.statistics.rows(state.targets.labels)
        groups, place = torch.unique(rows, return_inverse=True)
        first, second = self._per_sample(state.activations[self.tap.id], rows)
        share = torch.zeros(len(groups), len(rows), device=rows.device)
        share[place, torch.arange(len(rows), device=rows.device)] = 1
        share /= share.sum(1, keepdim=True)
        shift = share @ first
        return groups, shift, (share @ second - shift.square()).clamp_min(0)

    def _per_sample(self, activation: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """First and second moment of each sample about its recorded mean: two of `n f`."""
        mean = self.statistics.mean[rows]
        if self.reduction == "unit" or activation.dim() == 2:
            deviation = activation.flatten(1) - mean
            return deviation, deviation.square()
        positions = activation.movedim(1 + channel_axis(self.tap), 1).flatten(2)  # n c p
        if self.reduction == "pooled":
            deviation = positions.mean(2) - mean
            return deviation, deviation.square()
        deviations = positions - mean[:, :, None]
        return deviations.mean(2), deviations.square().mean(2)


@dataclass(frozen=True)
class StandardizedMoments:
    """Distance of batch moments from recorded ones, in units of the recorded spread.

    Mean over records, groups and features of ``((m - mu) / sigma)^2 + (s / sigma - 1)^2``, with
    ``sigma^2 = variance + floor * (mean variance of the group)``: free of the scale of a layer, so
    that one weight serves every tap of every teacher. The same shape as DeepInversion's BatchNorm
    term (Yin et al. 2020, eq. 4), taken class by class where the records are.
    """

    records: tuple[RecordedMoments, ...]
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
        spread = (variance + floor).sqrt() / sigma - 1
        return ((shift / sigma).square() + spread.square()).mean()


@dataclass(frozen=True)
class MomentNorms:
    """``sum_l ||m_l - mu_l||_2 + ||v_l - sigma^2_l||_2`` over layers, on whole-batch moments.

    DeepInversion's feature term as its published code computes it: norms, not their squares.
    """

    records: tuple[RecordedMoments, ...]

    @property
    def taps(self) -> tuple[Tap, ...]:
        return tuple(record.tap for record in self.records)

    def __call__(self, state: StepState) -> Tensor:
        total = state.logits.new_zeros(())
        for record in self.records:
            groups, shift, variance = record.of_batch(state)
            total = total + shift.norm() + (variance - record.variance[groups]).norm()
        return total
