"""``quantiles``: the ranges that activations take, for quantized students."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from dfkd_meta.errors import StatisticsError
from dfkd_meta.statistics.base import Accumulator, Context, RecordRequest, Result, statistics

LEVELS = (0.0001, 0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999, 0.9999)
SMALLEST, OCTAVES = 2.0**-20, 40  # magnitudes told apart; less is 0, more in the last bucket
SHIFT = 17  # drops all but the first 6 bits of a float32's mantissa: 64 buckets per octave
LARGEST = SMALLEST * 2**OCTAVES * (1 - 2.0**-7)  # there the last bucket begins; it has no end
STEPS = OCTAVES << (23 - SHIFT)  # buckets for one sign
BUCKETS = 2 * STEPS + 1
ROUNDING = 1e-9  # 1 - 0.9 is a little less than 0.1
ACCURACY = 2.0**-7  # relative: half a bucket


@statistics.register("quantiles")
class Quantiles(Accumulator):
    """Quantiles of every feature per group, within 0.8 % of their values; less than 2^-20 is 0.

    Roles: ``probability`` `q`, ``value`` `g f q`: the smallest value that at least this share of
    the observations does not exceed. The parameter ``levels`` names the probabilities; one beyond
    which there would be fewer samples than the minimum group size is left out, and so minimum and
    maximum are never recorded.

    A histogram with 64 buckets for each octave of magnitudes from 2^-20 to 2^20, of either sign
    (the layout of Tene's HdrHistogram; the bucket of a float32 is its leading bits). Counts add, so
    any split and any order of merging give the same. Memory: 41 KB per group and feature. Raises
    StatisticsError for levels outside (0, 1), none that may be recorded, or a quantile beyond 2^20.
    """

    kind = "quantiles"
    parameters = ("levels",)
    examples = ({}, {"levels": [0.3, 0.7]})

    def __init__(self, request: RecordRequest, context: Context) -> None:
        super().__init__(request, context)
        self.levels = sorted({float(level) for level in request.params.get("levels", LEVELS)})
        if not self.levels or not 0 < self.levels[0] <= self.levels[-1] < 1:
            raise StatisticsError(
                f"levels must lie between 0 and 1, got {self.levels}", where=request.id
            )
        self.histogram = _Histogram(context.groups, context.features, context.device)
        self.parts = {"x": self.histogram}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        levels = len(self.levels)
        return {
            "probability": (levels,),
            "value": (self.context.groups, self.context.features, levels),
        }

    def result(self) -> Result:
        least = int(self.histogram.count.min())
        beyond = self.context.min_count * (1 - ROUNDING)
        levels = [level for level in self.levels if min(level, 1 - level) * least >= beyond]
        if not levels:
            raise StatisticsError(
                f"a group of {least} samples has no quantile with {self.context.min_count} "
                "samples on either side",
                where=self.request.id,
                hint="use more data, or leave the record out",
            )
        values = self.histogram.quantiles(levels)
        if np.abs(values).max() >= LARGEST:
            raise StatisticsError(
                f"a quantile lies beyond {LARGEST:,.0f}, where it cannot be told exactly enough",
                where=self.request.id,
                hint=f"leave the record out: --set leave_out='[\"{self.request.id}\"]'",
            )
        return Result(
            {"probability": np.array(levels), "value": values},
            count=self.histogram.count.tolist(),
            params={"relative_accuracy": ACCURACY},
        )

    @classmethod
    def reference(
        cls, features: np.ndarray, groups: np.ndarray, request: RecordRequest, context: Context
    ) -> dict[str, np.ndarray]:
        """Quantiles of the samples themselves, then the middle of the bucket each falls into."""
        least = min(int((groups == group).sum()) for group in range(context.groups))
        levels = [
            level
            for level in request.params.get("levels", LEVELS)
            if round(min(level, 1 - level) * least, 6) >= context.min_count
        ]
        found = []
        for group in range(context.groups):
            rows = np.concatenate(features[groups == group])
            exact = np.quantile(rows, levels, axis=0, method="inverted_cdf").T
            octave = 2 ** np.floor(np.log2(np.abs(exact)))
            part = np.floor((np.abs(exact) / octave - 1) * 64)
            found.append(np.sign(exact) * octave * (1 + (part + 0.5) / 64))
        return {"probability": np.array(levels), "value": np.stack(found)}


class _Histogram:
    """Counts per group, feature and bucket: int64 `g f b`; ``count`` are samples `g`."""

    def __init__(self, groups: int, features: int, device: torch.device) -> None:
        self.count = torch.zeros(groups, dtype=torch.int64, device=device)
        self.buckets = self.count.new_zeros(groups, features, BUCKETS)

    def update_(self, features: Tensor, groups: Tensor) -> None:
        """Absorb samples: features float64 `n p f`, groups int64 `n`."""
        self.count += torch.bincount(groups, minlength=len(self.count))
        number = torch.arange(features.shape[2], device=features.device)
        row = groups.reshape(-1, 1, 1) * features.shape[2] + number
        place = (row * BUCKETS + _bucket(features)).flatten()
        self.buckets.view(-1).index_add_(0, place, torch.ones_like(place))

    def quantiles(self, levels: list[float]) -> np.ndarray:
        """Values float64 `g f q`."""
        cumulative = self.buckets.cumsum(2).cpu()
        total = cumulative[..., -1:]
        wanted = torch.tensor(levels, dtype=torch.float64) * total
        found = torch.searchsorted(cumulative.double(), wanted)
        values: np.ndarray = _middles()[found.clamp(max=BUCKETS - 1)].numpy()
        return values

    def merge_(self, other: _Histogram) -> None:
        """Absorb another part of the same shape."""
        self.count = self.count + other.count
        self.buckets = self.buckets + other.buckets

    def state(self) -> dict[str, Tensor]:
        """The tensors that say everything."""
        return {"count": self.count.clone(), "buckets": self.buckets.clone()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Replace the tensors by saved ones."""
        device = self.count.device
        self.count = state["count"].to(device, torch.int64, copy=True)
        self.buckets = state["buckets"].to(device, torch.int64, copy=True)


def _bucket(values: Tensor) -> Tensor:
    """The bucket of each value, in the order of the values: STEPS is that of zero."""
    bits = values.float().view(torch.int32)
    size = (bits & 0x7FFFFFFF) >> SHIFT  # floats of one sign are ordered as their bits are
    distance = (size - (_first() - 1)).clamp_(0, STEPS)
    return STEPS + torch.where(bits < 0, -distance, distance)


def _first() -> int:
    """The leading bits of the smallest magnitude."""
    return int(torch.tensor(SMALLEST).view(torch.int32)) >> SHIFT


def _middles() -> Tensor:
    """The value in the middle of each bucket, and 0: float64 `b`."""
    edges = (torch.arange(STEPS + 1, dtype=torch.int32) + _first()) << SHIFT
    edges = edges.view(torch.float32).double()
    middle = (edges[:-1] + edges[1:]) / 2
    return torch.cat([-middle.flip(0), middle.new_zeros(1), middle])
