"""Classes that data name, matched with those that a model knows."""

from __future__ import annotations

import numpy as np

from dfkd_meta.data.dataset import Dataset
from dfkd_meta.errors import DataError
from dfkd_meta.sidecar.manifest import OutputSpec


def match_classes(dataset: Dataset, outputs: OutputSpec) -> None:
    """Number the labels of data that name their classes as the model does.

    By name, where the model names its classes; else there must be as many, so that a class without
    images shifts no other. Names of which the model has none at all count by their order. Raises
    DataError.
    """
    named, known = dataset.class_names, outputs.label_names
    if named is None or dataset.labels is None:
        return
    unknown = [name for name in named if name not in (known or ())]
    if known is not None and not unknown:
        numbers = np.array([known.index(name) for name in named], np.int64)
        dataset.labels, dataset.class_names = numbers[dataset.labels], list(known)
    elif known is not None and len(unknown) < len(named):
        raise DataError(
            f"the model knows no class {unknown[0]!r}",
            where=dataset.name,
            hint="name the folders as it does: " + ", ".join(known[:10]),
        )
    elif len(named) != outputs.num_classes:
        raise DataError(
            f"the data name {len(named)} classes, the model has {outputs.num_classes}",
            where=dataset.name,
            hint="a class without images takes an empty folder, so that all others keep their "
            "numbers",
        )
