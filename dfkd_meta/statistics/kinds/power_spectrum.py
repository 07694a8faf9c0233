"""``power_spectrum``: how much the tensor at a tap varies at each spatial frequency."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from dfkd_meta.statistics.base import Accumulator, Context, RecordRequest, Result, statistics
from dfkd_meta.statistics.running import Running, present_groups
from dfkd_meta.teachers import CosineTransform, channel_axis


@statistics.register("power_spectrum")
class PowerSpectrum(Accumulator):
    """Mean power at every frequency, with the co-power of each pair of channels.

    Roles: ``mean`` `g f`, over samples and positions; ``power`` `g p f f`, symmetric: the mean over
    samples of ``X_a(p) X_b(p)``, with X the orthonormal discrete cosine transform (DCT-II) of a
    channel's deviation from its mean over all axes of the tap but the channels'. White noise of
    variance v has power v everywhere. `p` counts frequencies row by row, from 0 on each axis. At a
    tap without positions it is the covariance.

    Signs, and with them shapes, are not recorded: photographs of anything have much the same
    spectrum (Field 1987). Cosines rather than waves, because the edges of a photograph do not meet:
    a Fourier transform sees a jump there, at all frequencies (Ahmed et al. 1974; for images whose
    neighbours correlate the cosines are nearly the principal components). Accumulated in float64;
    merge: Chan et al. 1983.
    """

    kind = "power_spectrum"

    def __init__(self, request: RecordRequest, context: Context) -> None:
        super().__init__(request, context)
        (tap,) = context.taps
        axis = channel_axis(tap)
        grid = tuple(size for place, size in enumerate(tap.shape) if place != axis)
        self.positions = math.prod(grid)
        power = _Power(CosineTransform(grid, context.device, torch.float64))
        self.running = Running(context.groups, context.features, {"power": power}, context.device)
        self.parts = {"x": self.running}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        groups, features = self.context.groups, self.context.features
        power = groups, self.positions, features, features
        return {"mean": (groups, features), "power": power}

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
        """The cosine transform as half of a Fourier transform of the image and its mirror."""
        tap = context.taps[0]
        grid = [
            size for axis, size in zip(tap.axes, tap.shape, strict=True) if axis not in ("c", "f")
        ]
        means, powers = [], []
        for group in range(context.groups):
            rows = features[groups == group].reshape(-1, *grid, features.shape[2])
            means.append(rows.mean(tuple(range(1 + len(grid)))))
            moved = rows - means[-1]
            for axis, size in enumerate(grid, start=1):
                twice = np.fft.fft(np.concatenate([moved, np.flip(moved, axis)], axis), axis=axis)
                shape = [1] * moved.ndim
                shape[axis] = size
                turn = np.exp(-0.5j * np.pi * np.arange(size) / size).reshape(shape)
                moved = (np.take(twice, range(size), axis) * turn).real / math.sqrt(2 * size)
                moved[(slice(None),) * axis + (0,)] /= math.sqrt(2)
            flat = moved.reshape(len(rows), -1, features.shape[2])
            powers.append(np.einsum("npa,npb->pab", flat, flat) / len(rows))
        return {"mean": np.stack(means), "power": np.stack(powers)}


class _Power:
    """Sums of the power of inputs, `p f f`, whose positions follow one another in rows `n p f`."""

    def __init__(self, transform: CosineTransform) -> None:
        self.transform = transform

    def shape(self, features: int) -> tuple[int, ...]:
        return (math.prod(self.transform.grid), features, features)

    def add_(self, target: Tensor, rows: Tensor, groups: Tensor) -> None:
        if rows.shape[1] == 1:  # the same at every position: all its power is at frequency 0
            target[:, 0].index_add_(0, groups, torch.einsum("npa,npb->nab", rows, rows))
            return
        for group in present_groups(groups):
            own = rows[groups == group].reshape(-1, *self.transform.grid, rows.shape[2])
            waves = self.transform(own, 1).reshape(len(own), -1, rows.shape[2])
            target[group] += torch.einsum("npa,npb->pab", waves, waves)
