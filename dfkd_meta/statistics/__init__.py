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
from dfkd_meta.statistics.classes import check_counts, in_words, unknown_label
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
    "in_words",
    "make_accumulator",
    "statistics",
    "unknown_label",
]
