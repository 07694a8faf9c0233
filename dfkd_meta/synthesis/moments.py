"""First and second moments of activations, over positions or over the rows of groups.

To match them at every layer moves more memory than the network itself does, so nothing as large as
the maps is written on the way but their gradient: a few samples at a time, which fit into the cache
of a processor, are turned to float32, and back.

What comes out are moments about zero. The variance of a batch that follows from them is off by
about 6e-5 of itself where ``|mean|`` is 50 times the std, by 8e-3 at 500 times.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dfkd_meta.synthesis.grouping import Grouping, cut

BLOCK = 2**17  # numbers: 512 KB in float32


def position_moments(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and mean square over the positions of each sample: `n p c` to two of float32 `n c`."""
    moments: tuple[Tensor, Tensor] = _PositionMoments.apply(maps)  # type: ignore[no-untyped-call]
    return moments


def group_moments(maps: Tensor, grouping: Grouping) -> tuple[Tensor, Tensor]:
    """Mean and mean square of each unit over the rows of each group: `n p c` to two of `g p c`.

    float32, for the groups that the batch holds.
    """
    moments: tuple[Tensor, Tensor] = _GroupMoments.apply(maps, grouping)  # type: ignore[no-untyped-call]
    return moments


class _PositionMoments(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(maps)
        samples, positions, channels = maps.shape
        first = maps.new_empty(samples, channels, dtype=_working(maps))
        second = torch.empty_like(first)
        for rows in cut(samples, _rows(maps)):
            block = maps[rows].to(first.dtype)
            torch.sum(block, 1, out=first[rows])
            torch.sum(block.square(), 1, out=second[rows])
        return first.div_(positions), second.div_(positions)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (maps,) = ctx.saved_tensors
        samples, positions, _ = maps.shape
        constant, slope = (gradient[:, None] / positions for gradient in gradients)
        slope = 2 * slope
        found = torch.empty_like(maps)
        for rows in cut(samples, _rows(maps)):
            block = maps[rows].to(slope.dtype)
            found[rows].copy_(torch.addcmul(constant[rows], block, slope[rows]))
        return found


class _GroupMoments(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, grouping: Grouping) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(maps)
        ctx.grouping = grouping
        shape = (len(grouping.present), *maps.shape[1:])
        first = maps.new_zeros(shape, dtype=_working(maps)).flatten(1)
        second = torch.zeros_like(first)
        for part in grouping.parts(_rows(maps)):
            block = maps[part.rows].to(first.dtype).flatten(1)
            mean = part.mean.to(first.dtype)
            first.index_add_(0, part.groups, mean @ block)
            second.index_add_(0, part.groups, mean @ block.square())
        return first.view(shape), second.view(shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (maps,) = ctx.saved_tensors
        constant, slope = (gradient.flatten(1) for gradient in gradients)
        slope = 2 * slope
        found = torch.empty_like(maps)
        for part in ctx.grouping.parts(_rows(maps)):
            block = maps[part.rows].to(slope.dtype).flatten(1)
            back = part.mean.to(slope.dtype).T
            moved = torch.addcmul(back @ constant[part.groups], block, back @ slope[part.groups])
            found[part.rows].copy_(moved.view(-1, *maps.shape[1:]))
        return found, None


def _working(maps: Tensor) -> torch.dtype:
    """float32, or what is finer in ``maps``."""
    return torch.promote_types(maps.dtype, torch.float32)


def _rows(maps: Tensor) -> int:
    """How many samples are worked on at a time: all of them, elsewhere than on a CPU."""
    return max(1, BLOCK // maps[0].numel()) if maps.device.type == "cpu" else len(maps)
