"""What a network in training sees of a batch: moved, mirrored and mixed images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd_meta.augmentation import draw_blend, draw_paste, flip_some, reach_of, shift_each
from dfkd_meta.batches import SyntheticBatch
from dfkd_meta.distillation.config import TrainingConfig
from dfkd_meta.errors import UsageError
from dfkd_meta.teachers import Teacher

MIRRORED = 0.7  # the share of mirrored images that a teacher must know for them to be used


class Views:
    """Random views of batches, as ``config`` wants them.

    ``flip`` is settled by the first batch where ``config`` leaves it open. Without a ``teacher``,
    who answers for what comes of it, nothing is mixed.
    """

    def __init__(self, config: TrainingConfig, teacher: Teacher | None) -> None:
        self.config = config
        self.teacher = teacher
        self.flip = config.flip

    def __call__(
        self, batch: SyntheticBatch, generator: torch.Generator
    ) -> tuple[Tensor, Tensor | None]:
        """Images `n ...`, and labels as in ``Lesson``.

        Raises UsageError when images are to be jittered and the inputs are none.
        """
        config, images, labels = self.config, batch.images, batch.labels
        images = shift_each(images, self._reach(images), generator)
        if self.flip is None:
            self.flip = self.teacher is not None and _sees_mirrored(self.teacher, images)
        if self.flip:
            images = flip_some(images, generator)
        if self.teacher is None:
            return images, labels
        drawn = (
            draw_blend(len(images), config.mixup, generator),
            draw_paste(images.shape, config.cutmix, generator),
        )
        changes = [change for change in drawn if change is not None]
        if labels is not None and changes:
            labels = F.one_hot(labels, self.teacher.outputs.num_classes).float()
        for change in changes:
            images = change(images)
            labels = None if labels is None else change(labels)
        return images, labels

    def _reach(self, images: Tensor) -> tuple[int, int]:
        """By how many pixels an image may move down and to the right."""
        config = self.config
        if config.jitter is None:
            down, right = reach_of(images.shape, config.shift)
            return (max(1, down), max(1, right)) if config.shift else (0, 0)
        if config.jitter and images.dim() != 4:
            raise UsageError(
                f"jitter moves images, and these inputs have the shape {list(images.shape[1:])}"
            )
        return config.jitter, config.jitter


def _sees_mirrored(teacher: Teacher, images: Tensor) -> bool:
    """Whether images `n c h w` and their mirrors are mostly the same to a teacher."""
    if images.dim() != 4:
        return False
    with torch.no_grad():
        answers = [teacher(view).argmax(1) for view in (images, images.flip(3))]
    return float((answers[0] == answers[1]).float().mean()) >= MIRRORED
