"""``power_spectrum``: how much the tensor at a tap varies at each spatial frequency."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from dfkd_meta.statistics.base import Accumulator, Context, RecordRequest, Result, statistics
from dfkd_meta.statistics.running import Running
from dfkd_meta.teachers import channel_axis


@statistics.register("power_spectrum")
class PowerSpectrum(Accumulator):
    """Mean power at every frequency, with the co-power of each pair of channels.

    Roles: ``mean`` `g f`, over samples and positions; ``power`` `g p f f`, symmetric: the mean over
    samples of ``Re(X_a(p) conj X_b(p))``, with X the discrete Fourier transform of a channel's
    deviation from its mean, over all axes of the tap but the channels', divided by the square root
    of the number of positions (white noise of variance v has power v everywhere). `p` runs over the
    half that determines the rest (the last axis up to its Nyquist frequency), row by row. At a tap
    without positions it is the covariance.

    Phases, and with them places and shapes, are not recorded: photographs of anything have much the
    same spectrum (Field 1987). Accumulated in float64; merge: Chan et al. 1983.
    """

    kind = "power_spectrum"

    def __init__(self, request: RecordRequest, context: Context) -> None:
        super().__init__(request, context)
        (tap,) = context.taps
        axis = channel_axis(tap)
        grid = tuple(size for place, size in enumerate(tap.shape) if place != axis)
        self.positions = math.prod(grid)
        self.running = Running(
            context.groups, context.features, {"power": _Power(grid)}, context.device
        )
        self.parts = {"x": self.running}

    def update(self, features: Tensor, groups: Tensor) -> None:
        self.running.update_(features, groups)

    def result(self) -> Result:
        power = self.running.moment("power") * self.positions
        return Result(
            {"mean": self.running.mean.cpu().numpy(), "power": power.cpu().numpy()},
            count=self.running.count.tolist(),
        )

    @classmethod
    def reference(
        cls, features: np.ndarray, groups: np.ndarray, request: RecordRequest, context: Context
    ) -> dict[str, np.ndarray]:
        grid = [
            size
            for axis, size in zip(context.taps[0].axes, context.taps[0].shape, strict=True)
            if axis not in ("c", "f")
        ]
        means, powers = [], []
        for group in range(context.groups):
            rows = features[groups == group].reshape(-1, *grid, features.shape[2])
            axes = tuple(range(1, 1 + len(grid)))
            means.append(rows.mean((0, *axes)))
            moved = np.fft.fftn(rows - means[-1], axes=axes) if grid else rows - means[-1]
            if grid:
                moved = moved[..., : grid[-1] // 2 + 1, :]
            flat = moved.reshape(len(rows), -1, features.shape[2])
            power = np.einsum("npa,npb->pab", flat, flat.conj()).real
            powers.append(power / len(rows) / math.prod(grid))
        return {"mean": np.stack(means), "power": np.stack(powers)}


class _Power:
    """Sums of the power of images, `p f f`, whose positions follow one another in rows `n p f`."""

    def __init__(self, grid: tuple[int, ...]) -> None:
        self.grid = grid

    def shape(self, features: int) -> tuple[int, ...]:
        half = math.prod(self.grid[:-1]) * (self.grid[-1] // 2 + 1) if self.grid else 1
        return (half, features, features)

    def add_(self, target: Tensor, rows: Tensor, groups: Tensor) -> None:
        if rows.shape[1] == 1:  # the same at every position: all its power is at frequency 0
            target[:, 0].index_add_(0, groups, torch.einsum("npa,npb->nab", rows, rows))
            return
        for group in torch.bincount(groups).nonzero().flatten().tolist():
            own = rows[groups == group].reshape(-1, *self.grid, rows.shape[2])
            if self.grid:
                axes = tuple(range(1, 1 + len(self.grid)))
                own = torch.fft.rfftn(own, dim=axes, norm="ortho")
            waves = own.reshape(len(own), -1, rows.shape[2])
            target[group] += torch.einsum("npa,npb->pab", waves, waves.conj()).real
