"""Inputs that a learned discriminator can tell apart: CMI's contrastive term and its memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfkd_meta.checkpoint import State
from dfkd_meta.precision import computing
from dfkd_meta.seeding import layers_draw_from
from dfkd_meta.sidecar import Tap
from dfkd_meta.synthesis.terms.base import StepState, Term
from dfkd_meta.teachers import ActivationTap, Teacher, channel_axis, reduce_features
from dfkd_meta.waiting import sent

KEPT_ELEMENTS = 0.7  # of an input that is no image, in its local view


class FeatureBank:
    """The latest ``capacity`` rows, oldest out first; batches need not divide it.

    Rows are float32 `n d` on the device they come from.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.rows: Tensor | None = None

    def __len__(self) -> int:
        return 0 if self.rows is None else len(self.rows)

    def add(self, rows: Tensor) -> None:
        known = rows[:0] if self.rows is None else self.rows
        self.rows = torch.cat([known, rows])[-self.capacity :].clone()

    def draw(self, count: int, generator: torch.Generator) -> Tensor | None:
        """Up to ``count`` different rows in random order; None while the bank is empty."""
        if self.rows is None or not count:
            return None
        chosen = torch.randperm(len(self.rows), generator=generator)[:count]
        return self.rows[sent(chosen, self.rows.device)]


class InstanceContrast(Term):
    """``-log exp(s_ii / tau) / sum_j exp(s_ij / tau)``, s the cosine of local i and global view j.

    InfoNCE over instances (CMI, Fang et al. 2021): the two views of an input belong
    together, those of other inputs, of this batch and of ``negatives`` drawn from the bank, apart.
    What is compared is the pooled activation at ``places``, all concatenated, behind a two-layer
    head with an Adam of its own. The global view is the engine's; the local one, a random resized
    crop, is drawn here. As in the published code the gradient flows through the local view only,
    drawn rows also stand as anchors, and the loss is the mean over the batch plus the mean over
    those rows.
    """

    component: ClassVar[str] = "cr"

    def __init__(
        self,
        teacher: Teacher,
        places: Sequence[Tap],
        generator: torch.Generator,
        *,
        temperature: float = 0.1,
        negatives: int = 1024,
        capacity: int = 8192,
        learning_rate: float = 1e-3,
        flip: bool = False,
    ) -> None:
        self.teacher = teacher
        self.places = tuple(places)
        self.temperature = temperature
        self.negatives = negatives
        self.learning_rate = learning_rate
        self.flip = flip
        self.bank = FeatureBank(capacity)
        size = sum(tap.shape[channel_axis(tap)] for tap in places)
        with layers_draw_from(generator, torch.device("cpu")):
            head = nn.Sequential(nn.Linear(size, size), nn.ReLU(), nn.Linear(size, 256))
        self.head = head.to(teacher.device)

    @property
    def taps(self) -> tuple[Tap, ...]:
        return self.places

    def parameters(self) -> list[nn.Parameter]:
        return list(self.head.parameters())

    def __call__(self, state: StepState) -> Tensor:
        local, whole = self._views(state)
        count = len(local)
        drawn = self.bank.draw(self.negatives, state.generator)
        if drawn is not None:
            far_local, far_whole = drawn.chunk(2, dim=1)
            local, whole = torch.cat([local, far_local]), torch.cat([whole, far_whole])
        local, whole = F.normalize(self.head(torch.cat([local, whole])), dim=1).chunk(2)
        return info_nce(local, whole, count, self.temperature)

    def end_batch(self, state: StepState) -> None:
        self.bank.add(torch.cat(self._views(state), dim=1).detach())

    def state(self) -> State:
        return {"head": self.head.state_dict(), "bank": self.bank.rows}

    def load_state(self, state: State) -> None:
        self.head.load_state_dict(state["head"])
        rows = state["bank"]
        self.bank.rows = None if rows is None else rows.to(self.teacher.device)

    def _views(self, state: StepState) -> tuple[Tensor, Tensor]:
        """Features `n d` of a new local view, and of the view that the engine showed."""
        whole = self._features(state.activations)
        view = local_view(state.images, state.generator, flip=self.flip)
        computes = computing(state.precision, view.device)
        with ActivationTap(self.teacher.module, self.places) as tap, computes:
            self.teacher(view)
        return self._features(tap.activations), whole

    def _features(self, activations: Mapping[str, Tensor]) -> Tensor:
        return torch.cat(
            [reduce_features(activations[tap.id].float(), tap, "pooled") for tap in self.places],
            dim=1,
        )


def info_nce(local: Tensor, whole: Tensor, count: int, temperature: float) -> Tensor:
    """Cross-entropy (nats) of finding row i of ``whole`` from row i of ``local``.

    Both float32 `n d` with rows of norm 1; the mean over the first ``count`` rows plus the mean
    over the others, if any. ``whole`` takes no gradient.
    """
    logits = local @ whole.detach().T / temperature
    losses = F.cross_entropy(
        logits, torch.arange(len(local), device=local.device), reduction="none"
    )
    total = losses[:count].mean()
    return total + losses[count:].mean() if len(losses) > count else total


def local_view(
    images: Tensor, generator: torch.Generator, *, least: float = 0.25, flip: bool = False
) -> Tensor:
    """A random part of each image, enlarged to its size: `n c h w`, differentiable.

    The part covers a share of the area uniform in [``least``, 1] with a ratio of its sides between
    3/4 and 4/3; with ``flip`` half of them are mirrored. Inputs of another shape have no places:
    there each element is kept with probability 0.7, else taken from another row of the batch.
    """
    count = len(images)
    if images.dim() != 4:
        keep = sent(torch.rand(images.shape, generator=generator), images.device) < KEPT_ELEMENTS
        other = sent(torch.randperm(count, generator=generator), images.device)
        return torch.where(keep, images, images[other])
    area, ratio, across, down, mirror = torch.rand(5, count, generator=generator)
    area = least + (1 - least) * area
    ratio = torch.exp((2 * ratio - 1) * math.log(4 / 3))
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    place = torch.zeros(count, 2, 3)
    place[:, 0, 0] = torch.where(mirror < 0.5, -width, width) if flip else width
    place[:, 1, 1] = height
    place[:, 0, 2] = (2 * across - 1) * (1 - width)
    place[:, 1, 2] = (2 * down - 1) * (1 - height)
    grid = F.affine_grid(sent(place, images.device), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)
