"""``moments``: mean and variance of every feature."""

from __future__ import annotations

import numpy as np

from dfkd_meta.statistics.base import Accumulator, Context, RecordRequest, Result, statistics
from dfkd_meta.statistics.running import Diagonal, Running


@statistics.register("moments")
class Moments(Accumulator):
    """Population mean and variance (divisor n) per feature and group.

    Roles: ``mean`` `g f`, ``variance`` `g f`. An observation is a sample, or with the reduction
    ``channel`` every position of a sample. Accumulated in float64; merge: Chan et al. 1983.
    """

    kind = "moments"

    def __init__(self, request: RecordRequest, context: Context) -> None:
        super().__init__(request, context)
        self.running = Running(
            context.groups, context.features, {"variance": Diagonal()}, context.device
        )
        self.parts = {"x": self.running}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        shape = self.context.groups, self.context.features
        return {"mean": shape, "variance": shape}

    def result(self) -> Result:
        mean, variance = self.running.mean, self.running.moment("variance")
        return Result(
            {"mean": mean.cpu().numpy(), "variance": variance.cpu().numpy()},
            count=self.running.count.tolist(),
        )

    @classmethod
    def reference(
        cls, features: np.ndarray, groups: np.ndarray, request: RecordRequest, context: Context
    ) -> dict[str, np.ndarray]:
        rows = [np.concatenate(features[groups == g]) for g in range(context.groups)]
        return {
            "mean": np.stack([row.mean(0) for row in rows]),
            "variance": np.stack([row.var(0) for row in rows]),
        }
