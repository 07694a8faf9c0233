"""The one training loop, for teachers and for students, on real or on synthetic inputs."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from pydantic import Field
from torch import Tensor, nn

from dfkd_meta.augmentation import mix_pairs, shift_each
from dfkd_meta.batches import SyntheticBatch
from dfkd_meta.config import Config
from dfkd_meta.distillation.losses import losses
from dfkd_meta.errors import MethodError
from dfkd_meta.progress import Progress, Silent
from dfkd_meta.seeding import layers_draw_from
from dfkd_meta.teachers import Teacher


class TrainingConfig(Config):
    """How a network is trained.

    ``loss`` names a registered loss; ``shift`` moves each image by up to that fraction of its size
    (at least one pixel, 0 for none); ``mix`` blends that share of a batch pairwise (needs a
    teacher, who labels the blends); learning rate follows one cycle (Smith & Topin 2018).
    """

    loss: str = "kd"
    steps: int = Field(4_000, ge=1)
    batch_size: int = Field(256, ge=2, le=2**20)
    learning_rate: float = Field(3e-3, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    temperature: float = Field(4.0, gt=0)
    shift: float = Field(1 / 16, ge=0, lt=0.5)
    mix: float = Field(0.5, ge=0, le=1)


def fit(
    student: nn.Module,
    stream: Iterator[SyntheticBatch],
    config: TrainingConfig,
    generator: torch.Generator,
    *,
    teacher: Teacher | None = None,
    progress: Progress | None = None,
) -> nn.Module:
    """Train ``student`` in place on ``config.steps`` batches and return it in eval mode.

    The last weights are kept: there is no selection of a best step. Raises MethodError when the
    loss becomes NaN or infinite, UsageError when the loss lacks what it needs.
    """
    loss_of = losses.get(config.loss)
    optimizer = torch.optim.AdamW(
        student.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    # One cycle needs a step to warm up and one to cool down.
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=max(config.steps, 2)
    )
    student.train()
    steps = (progress or Silent()).track(range(config.steps), total=config.steps, what="training")
    device = next(student.parameters()).device
    with layers_draw_from(generator, device):
        for step in steps:
            batch = next(stream)
            images = _augment(batch.images, config, generator, mix=teacher is not None)
            taught = _teach(teacher, images)
            loss = loss_of(student(images), taught, batch.labels, config.temperature)
            if not torch.isfinite(loss):
                raise MethodError(
                    f"the training loss became {loss.item()} at step {step}",
                    hint="lower the learning rate: --set training.learning_rate=...",
                )
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
    return student.eval()


def _augment(
    images: Tensor, config: TrainingConfig, generator: torch.Generator, *, mix: bool
) -> Tensor:
    reach = max(1, round(config.shift * images.shape[-1])) if config.shift else 0
    images = shift_each(images, reach, generator)
    return mix_pairs(images, config.mix, generator) if mix else images


@torch.no_grad()
def _teach(teacher: Teacher | None, images: Tensor) -> Tensor | None:
    return None if teacher is None else teacher(images)
