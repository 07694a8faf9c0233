"""DFQ's form of the BatchNorm term: a divergence between Gaussians."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dfkd_meta.sidecar import Tap
from dfkd_meta.synthesis.terms.base import StepState, Term
from dfkd_meta.synthesis.terms.moments import FLOOR, floor_under
from dfkd_meta.synthesis.terms.recorded_moments import RecordedMoments


@dataclass(frozen=True)
class GaussianDivergence(Term):
    """``KL(N(m, v) || N(mu, sigma^2))`` of batch from record, feature by feature (nats).

    ``((m - mu)^2 + v) / (2 sigma^2) - ln(v / sigma^2) / 2 - 1/2``, mean over features, groups and
    records, so that one weight serves every teacher (Choi et al. 2020 sum over layers and channels;
    the DataFree port replaces it by DeepInversion's norms). ``floor`` times the mean variance of a
    group is added to both variances: a unit that never varies has no finite divergence.
    """

    component: ClassVar[str] = "bn"
    records: tuple[RecordedMoments, ...]
    floor: float = FLOOR

    @property
    def taps(self) -> tuple[Tap, ...]:
        return tuple(record.tap for record in self.records)

    def __call__(self, state: StepState) -> Tensor:
        return torch.stack([self._divergence(record, state) for record in self.records]).mean()

    def _divergence(self, record: RecordedMoments, state: StepState) -> Tensor:
        groups, shift, variance = record.of_batch(state)
        recorded = record.variance[groups]
        floor = floor_under(record.variance, self.floor)[groups]
        here, there = variance + floor, recorded + floor
        return 0.5 * ((shift.square() + here) / there - (here / there).log() - 1).mean()
