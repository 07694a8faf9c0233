"""Data sets, for those who have them: training a teacher, exporting, evaluating."""

from dfkd_meta.data.batching import batches, count_batches, real_pool
from dfkd_meta.data.classes import match_classes
from dfkd_meta.data.dataset import ArrayDataset, Dataset, Subset
from dfkd_meta.data.opening import data_paths, open_data

__all__ = [
    "ArrayDataset",
    "Dataset",
    "Subset",
    "batches",
    "count_batches",
    "data_paths",
    "match_classes",
    "open_data",
    "real_pool",
]
