"""Statistics of a teacher's activations: what can be computed, and one streaming pass over data."""

from dfkd_meta.statistics.base import (
    MIN_COUNT,
    Accumulator,
    Context,
    RecordRequest,
    Result,
    make_accumulator,
    statistics,
)
from dfkd_meta.statistics.classes import check_counts, name_classes, unknown_label
from dfkd_meta.statistics.collect import Collection, collect
from dfkd_meta.statistics.observe import feature_count
from dfkd_meta.statistics.requests import Size, forecast

__all__ = [
    "MIN_COUNT",
    "Accumulator",
    "Collection",
    "Context",
    "RecordRequest",
    "Result",
    "Size",
    "check_counts",
    "collect",
    "feature_count",
    "forecast",
    "make_accumulator",
    "name_classes",
    "statistics",
    "unknown_label",
]
