"""What is odd about a teacher, though it can be used: found by trying it on two inputs."""

from __future__ import annotations

import torch

from dfkd_meta.teachers.teacher import Teacher

SAME = 1e-3  # of the largest logit: rounding on any device stays far below


def oddities(teacher: Teacher) -> list[str]:
    """What to warn the user of, in words; empty for a teacher like others.

    The global random state is left as it was.
    """
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, *teacher.inputs.shape, generator=generator)
    devices = [teacher.device] if teacher.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        try:
            images = noise.to(teacher.device).requires_grad_()
            logits, again = teacher(images), teacher(images)
        except RuntimeError as error:  # an input overwritten in place, above all
            reason = str(error).splitlines()[0]
            return [
                f"the teacher fails where gradients to its inputs are asked for: {reason}; most "
                "methods need them"
            ]
    found = []
    if not logits.requires_grad:
        found.append(
            "no gradient flows from the teacher back to its inputs (it rounds, detaches or casts "
            "them): methods that optimize inputs cannot be used"
        )
    if (logits - again).abs().max() > SAME * logits.abs().max():
        found.append(
            "the teacher answers the same inputs differently each time (dropout or noise that is "
            "at work in evaluation mode, too?): no result with it can be repeated"
        )
    return found
