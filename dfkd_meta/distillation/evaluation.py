"""How good a model is: accuracy on real data, agreement with its teacher on any inputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dfkd_meta.batches import fitting
from dfkd_meta.data import Dataset, batches, count_batches, match_classes
from dfkd_meta.errors import DataError
from dfkd_meta.progress import Progress, Silent
from dfkd_meta.sidecar.manifest import InputSpec, OutputSpec
from dfkd_meta.teachers import Teacher, device_of

COMPARED = 10_000  # inputs that two networks are compared on where there are more
AT_ONCE = 500  # inputs that a network is shown together; fewer of large ones


def require_evaluable(dataset: Dataset, inputs: InputSpec, outputs: OutputSpec) -> None:
    """Raise the DataError of ``accuracy`` before the model is made: labels, classes, one sample.

    Classes that the data name get the numbers that the model gives them.
    """
    match_classes(dataset, outputs)
    _require_classes(_require_labels(dataset), outputs.num_classes, where=dataset.name)
    next(batches(dataset, inputs, batch_size=1))


def accuracy(
    module: nn.Module,
    dataset: Dataset,
    inputs: InputSpec,
    progress: Progress | None = None,
) -> float:
    """Top-1 accuracy in [0, 1] over the whole data set, in evaluation mode.

    Raises DataError when the data have no labels, no samples or a label the model has no class for.
    """
    right, count = class_counts(module, dataset, inputs, progress)
    return float(right.sum()) / float(count.sum())


def class_counts(
    module: nn.Module,
    dataset: Dataset,
    inputs: InputSpec,
    progress: Progress | None = None,
) -> tuple[Tensor, Tensor]:
    """Correct answers and samples of each class, both int64 `classes`. Raises as ``accuracy``."""
    known = _require_labels(dataset)
    device, batch_size = device_of(module), at_once(inputs.shape)
    found: list[Tensor] = []
    stream = batches(dataset, inputs, batch_size=batch_size)
    total = count_batches(dataset, batch_size)
    with _evaluating(module):
        classes = 0
        for images, _ in (progress or Silent()).track(stream, total=total, what="evaluating"):
            logits = module(images.to(device))
            classes = logits.shape[1]
            found.append(logits.argmax(1).cpu())
    _require_classes(known, classes, where=dataset.name)
    labels = torch.from_numpy(known)
    right = labels[torch.cat(found) == labels]
    return torch.bincount(right, minlength=classes), torch.bincount(labels, minlength=classes)


def at_once(shape: Sequence[int]) -> int:
    """How many inputs of this shape a network is shown together: fewer of large ones."""
    return fitting(AT_ONCE, shape)


def some_of(images: Tensor, most: int = COMPARED) -> Tensor:
    """Images `n ...`, or ``most`` of them, evenly spread, where there are more."""
    if len(images) <= most:
        return images
    return images[torch.linspace(0, len(images) - 1, most).long()]


def agreement(student: nn.Module | Teacher, teacher: nn.Module | Teacher, images: Tensor) -> float:
    """The fraction of model-normalized images `n ...` to which both give the same class.

    Raises DataError when there are none.
    """
    if not len(images):
        raise DataError("there are no images to compare on")
    found = [answers(net, images) for net in (student, teacher)]
    return float((found[0] == found[1]).float().mean())


def answers(net: nn.Module | Teacher, images: Tensor) -> Tensor:
    """The class that a network gives each of some model-normalized images `n ...`: int64 `n`."""
    module = net.module if isinstance(net, Teacher) else net
    parts = images.split(at_once(images.shape[1:]))  # type: ignore[no-untyped-call]
    with _evaluating(module):
        found = [module(part.to(device_of(module))).argmax(1) for part in parts]
    return torch.cat(found).cpu()


def _require_labels(dataset: Dataset) -> NDArray[np.int64]:
    if dataset.labels is None:
        raise DataError("measuring accuracy needs labels", where=dataset.name)
    if not len(dataset):
        raise DataError("there are no samples to evaluate on", where=dataset.name)
    return dataset.labels


def _require_classes(labels: NDArray[np.int64], classes: int, *, where: str) -> None:
    if (largest := int(labels.max())) >= classes:
        raise DataError(
            f"the data have a class {largest}, the model knows 0 to {classes - 1}", where=where
        )


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; the mode the module was in comes back."""
    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        module.train(training)
