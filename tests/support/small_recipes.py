"""Every method at a size that takes a fraction of a second."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from dfkd_meta.consumer.run import Distillation, Outcome
from dfkd_meta.progress import Silent
from dfkd_meta.synthesis.recipe import Recipe, methods
from tests.support.published import blobs

IMAGES, BATCH = 13, 9


def write_blobs(folder: Path) -> Path:
    """The training and test data of ``published`` as one .npz file that every command can read."""
    arrays: dict[str, Any] = {}
    for split in ("train", "test"):
        data = blobs(split)
        arrays[f"{split}_images"] = data.read(slice(None)).numpy()
        arrays[f"{split}_labels"] = data.labels
    path = folder / "blobs.npz"
    np.savez(path, **arrays)
    return path


def options_for(name: str, data: Path) -> dict[str, Any]:
    """The options without which a method cannot run."""
    return {"data": str(data)} if "data" in methods.get(name).config.model_fields else {}


def teacher_for(name: str) -> str:
    """An architecture that a method can do with: one with BatchNorm, unless it needs dropout."""
    return "hinton800" if "dropout" in str(methods.get(name).needs) else "digits_cnn"


def ended(run: Distillation) -> Outcome:
    """What comes out of a run once all of it is done."""
    for _ in run.advance(Silent()):
        pass
    return run.outcome()


def shrunk(recipe: Recipe) -> Recipe:
    """The same recipe with few images, two steps and short rounds."""
    rounds = recipe.rounds
    if rounds is not None:
        rounds = dataclasses.replace(
            rounds, student_steps=min(rounds.student_steps, 2), warm_up=min(rounds.warm_up, 1)
        )
    return dataclasses.replace(
        recipe,
        images=IMAGES,
        batch_size=BATCH,
        steps=min(recipe.steps, 2),
        rounds=rounds,
    )
