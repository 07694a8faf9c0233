"""The discrete cosine transform along the positions of a tensor."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

LONG = 1_024  # longer axes are transformed by way of Fourier's: a matrix would hold size^2 numbers


class CosineTransform:
    """The orthonormal DCT-II along neighbouring axes, of the sizes ``grid``.

    An isometry, so that its inverse is its transpose; both are differentiable. Axes up to ``LONG``
    are multiplied by a matrix, longer ones sorted for a fast Fourier transform (Makhoul 1980).
    """

    def __init__(self, grid: Sequence[int], device: torch.device, dtype: torch.dtype) -> None:
        self.grid = tuple(grid)
        self._matrices = [_matrix(n, device, dtype) if n <= LONG else None for n in self.grid]

    def __call__(self, x: Tensor, first: int) -> Tensor:
        """Positions to frequencies; axis ``first`` of ``x`` is that of the first size."""
        for axis, matrix in enumerate(self._matrices, start=first):
            moved = x.transpose(axis, -1)
            moved = _fast(_wide(moved)) if matrix is None else moved @ matrix.T
            x = moved.transpose(axis, -1)
        return x

    def inverse(self, waves: Tensor, first: int) -> Tensor:
        """Frequencies to positions."""
        for axis, matrix in enumerate(self._matrices, start=first):
            moved = waves.transpose(axis, -1)
            moved = _fast_inverse(_wide(moved)) if matrix is None else moved @ matrix
            waves = moved.transpose(axis, -1)
        return waves


def _matrix(size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The transform as a matrix `k x`."""
    frequency = torch.arange(size, dtype=torch.float64)[:, None]
    place = torch.arange(size, dtype=torch.float64)
    matrix = math.sqrt(2 / size) * torch.cos(math.pi * frequency * (2 * place + 1) / (2 * size))
    matrix[0] /= math.sqrt(2)
    return matrix.to(device, dtype)


def _wide(x: Tensor) -> Tensor:
    """At least float32: in less than that there are no complex numbers."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _fast(x: Tensor) -> Tensor:
    """The transform of the last axis."""
    size = x.shape[-1]
    folded = torch.cat([x[..., ::2], x[..., 1::2].flip(-1)], dim=-1)
    turned: Tensor = torch.fft.fft(folded) * _turn(size, x)
    return turned.real * _scale(size, x)


def _fast_inverse(waves: Tensor) -> Tensor:
    """Its inverse."""
    size = waves.shape[-1]
    plain = waves / _scale(size, waves)
    mirrored = torch.cat([torch.zeros_like(plain[..., :1]), plain[..., 1:].flip(-1)], dim=-1)
    folded = torch.fft.ifft(torch.complex(plain, -mirrored) / _turn(size, waves)).real
    half = (size + 1) // 2
    ends = torch.cat([folded[..., :half], folded[..., half:].flip(-1)], dim=-1)
    place = torch.arange(size, device=waves.device)
    return ends[..., place // 2 + place % 2 * half]


def _turn(size: int, like: Tensor) -> Tensor:
    angle = torch.arange(size, device=like.device, dtype=like.dtype) * (-math.pi / (2 * size))
    return torch.polar(torch.ones_like(angle), angle)


def _scale(size: int, like: Tensor) -> Tensor:
    scale = torch.full((size,), math.sqrt(2 / size), device=like.device, dtype=like.dtype)
    scale[0] = math.sqrt(1 / size)
    return scale
