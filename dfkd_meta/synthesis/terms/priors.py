"""Terms on the inputs alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dfkd_meta.synthesis.terms.base import StepState, Term


@dataclass(frozen=True)
class TotalVariation(Term):
    """Sum over four neighbor directions of the 2-norm of the differences, over the whole batch.

    The prior of DeepInversion (Yin et al. 2020) with its published weights' scale. Inputs
    `n c h w`; anything else has no neighbors and costs nothing. Taken before the batch is rolled,
    so that no edge meets the opposite one; the published code takes it after.
    """

    def __call__(self, state: StepState) -> Tensor:
        x = state.images
        if x.dim() != 4:
            return x.new_zeros(())
        differences = (
            x[..., :, 1:] - x[..., :, :-1],
            x[..., 1:, :] - x[..., :-1, :],
            x[..., 1:, 1:] - x[..., :-1, :-1],
            x[..., 1:, :-1] - x[..., :-1, 1:],
        )
        return torch.stack([d.norm() for d in differences]).sum()


@dataclass(frozen=True)
class L2Norm(Term):
    """2-norm of the whole batch of inputs (Yin et al. 2020)."""

    def __call__(self, state: StepState) -> Tensor:
        norm: Tensor = torch.linalg.vector_norm(state.images)
        return norm
