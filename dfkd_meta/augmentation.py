"""Random changes that keep what an image shows: used while synthesizing and while training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd_meta.waiting import sent


def shift_each(images: Tensor, reach: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Move every image by its own offset, uniform in [-reach, reach] down and to the right.

    images `n c h w`; the border is repeated outwards. Other shapes are returned as they are.
    """
    if not any(reach) or images.dim() != 4:
        return images
    count, _, height, width = images.shape
    padded = F.pad(images, (reach[1], reach[1], reach[0], reach[0]), mode="replicate")
    down, right = (
        sent(torch.randint(0, 2 * most + 1, (count, 1), generator=generator), images.device)
        for most in reach
    )
    rows = down + torch.arange(height, device=images.device)
    columns = right + torch.arange(width, device=images.device)
    sample = torch.arange(count, device=images.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[sample, rows[:, :, None], columns[:, None, :]].permute(
        0, 3, 1, 2
    )


def reach_of(shape: Sequence[int], share: float) -> tuple[int, int]:
    """By how many pixels ``share`` of its size moves an image `... h w`, down and to the right.

    Inputs without rows and columns do not move.
    """
    if len(shape) < 3:
        return 0, 0
    return round(share * shape[-2]), round(share * shape[-1])


def roll_batch(images: Tensor, reach: int, generator: torch.Generator) -> Tensor:
    """Roll the batch by one offset in [-reach, reach] along both axes (DeepInversion's jitter).

    images `n c h w`; other shapes are returned as they are.
    """
    if reach == 0 or images.dim() != 4:
        return images
    down, right = torch.randint(-reach, reach + 1, (2,), generator=generator).tolist()
    return images.roll((down, right), dims=(2, 3))


def flip_some(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image with probability 1/2, left to right.

    images `n c h w`; other shapes are returned as they are.
    """
    if images.dim() != 4:
        return images
    mirrored = sent(torch.rand(len(images), generator=generator), images.device) < 0.5
    return torch.where(mirrored[:, None, None, None], images.flip(3), images)


@dataclass(frozen=True)
class Blend:
    """Which rows of a batch are blended: the first ``m``, with other rows among them.

    partner: int64 `m`. weight: float32 `m` in [0, 1], that of a row itself.
    """

    partner: Tensor
    weight: Tensor

    def __call__(self, rows: Tensor) -> Tensor:
        """Rows float32 `n ...` (inputs, or class probabilities) with the first m blended."""
        count = len(self.weight)
        weight = sent(self.weight, rows.device).view(-1, *(1,) * (rows.dim() - 1))
        partner = rows[sent(self.partner, rows.device)]
        return torch.cat([weight * rows[:count] + (1 - weight) * partner, rows[count:]])


def draw_blend(rows: int, share: float, generator: torch.Generator) -> Blend | None:
    """Blend the first ``share`` of ``rows`` rows with the same rows in another order.

    Each becomes ``w x_i + (1 - w) x_j`` with its own w uniform in [0, 1] (mixup, Zhang et al. 2018,
    with a flat weight). None when that would be fewer than two rows.
    """
    count = int(rows * share)
    if count < 2:
        return None
    partner = torch.randperm(count, generator=generator)
    return Blend(partner, torch.rand(count, generator=generator))


@dataclass(frozen=True)
class Paste:
    """Which rows of a batch show a rectangle of another: the last ``m``, with others among them.

    partner: int64 `m`. shown: bool `m 1 h w`, where a row shows its partner.
    """

    partner: Tensor
    shown: Tensor

    def __call__(self, rows: Tensor) -> Tensor:
        """Images `n c h w`, or class probabilities `n c`, weighted by what is seen of each."""
        before, own = rows[: -len(self.partner)], rows[-len(self.partner) :]
        shown, partner = sent(self.shown, rows.device), own[sent(self.partner, rows.device)]
        if rows.dim() == 4:
            return torch.cat([before, torch.where(shown, partner, own)])
        return torch.cat([before, torch.lerp(own, partner, shown.float().mean((2, 3)))])


def draw_paste(shape: torch.Size, share: float, generator: torch.Generator) -> Paste | None:
    """Give the last ``share`` of images `n c h w` a rectangle of the same images in another order.

    The rectangle has the proportions of the image, an area uniform in [0, 1] of its own, and lies
    anywhere within it (CutMix, Yun et al. 2019, whose rectangles may reach over the border). None
    for other shapes, or fewer than two images.
    """
    count = int(shape[0] * share)
    if count < 2 or len(shape) != 4:
        return None
    partner = torch.randperm(count, generator=generator)
    side = torch.rand(count, generator=generator).sqrt()
    down, right = (_stretch(size, side, generator) for size in shape[2:])
    return Paste(partner, (down[:, :, None] & right[:, None, :]).unsqueeze(1))


def _stretch(size: int, side: Tensor, generator: torch.Generator) -> Tensor:
    """Which of ``size`` places lie in a stretch of about ``side * size``: bool `m size`."""
    length = (side * size).round()
    first = (torch.rand(len(side), generator=generator) * (size - length + 1)).floor()
    place = torch.arange(size)
    return (place >= first[:, None]) & (place < (first + length)[:, None])
