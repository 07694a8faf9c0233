"""``soft_targets``: what the teacher says about each class at a temperature."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from dfkd_meta.errors import StatisticsError
from dfkd_meta.statistics.base import Accumulator, Context, RecordRequest, Result, statistics
from dfkd_meta.statistics.factors import backs_triangle, lower_factor
from dfkd_meta.statistics.running import Full, Running

DEFAULT_TEMPERATURE = 8.0  # Lopes et al. 2017
LEAST_TEMPERATURE = 0.01  # logits divided by far less leave the numbers that records can hold


@statistics.register("soft_targets")
class SoftTargets(Accumulator):
    """Mean softened probability, and mean and covariance root of the softened logits.

    The logits are DIVIDED BY THE TEMPERATURE before everything, as the top-layer record of Lopes
    et al. 2017 is: z = logits / T; ``mean_probability`` `g c` = mean of softmax(z), in [0, 1];
    ``logit_mean`` `g c` = mean of z; ``logit_cholesky`` L `g c c` with L L^T = the population
    covariance of z, left out with the parameter ``covariance`` = false (it takes c^2 values per
    class), and where a group has fewer than 5 samples for each class, which would be in it.
    Accumulated in float64; merge: Chan et al. 1983.
    """

    kind = "soft_targets"
    parameters = ("temperature", "covariance")
    examples = ({}, {"temperature": 4.0}, {"covariance": False})

    def __init__(self, request: RecordRequest, context: Context) -> None:
        super().__init__(request, context)
        self.temperature = float(request.params.get("temperature", DEFAULT_TEMPERATURE))
        if not LEAST_TEMPERATURE <= self.temperature < math.inf:
            raise StatisticsError(
                f"the temperature must be at least {LEAST_TEMPERATURE}, got {self.temperature}",
                where=request.id,
            )
        sizes = context.groups, context.features
        scatters = {"covariance": Full()} if request.params.get("covariance", True) else {}
        self.logits = Running(*sizes, scatters, context.device)
        self.probabilities = Running(*sizes, {}, context.device)
        self.parts = {"logits": self.logits, "probabilities": self.probabilities}

    def update(self, features: Tensor, groups: Tensor) -> None:
        softened = features / self.temperature
        self.logits.update_(softened, groups)
        self.probabilities.update_(softened.softmax(-1), groups)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        groups, classes = self.context.groups, self.context.features
        shapes: dict[str, tuple[int, ...]] = {
            "mean_probability": (groups, classes),
            "logit_mean": (groups, classes),
        }
        if self.logits.scatters:
            shapes["logit_cholesky"] = groups, classes, classes
        return shapes

    def result(self) -> Result:
        arrays = {
            "mean_probability": self.probabilities.mean,
            "logit_mean": self.logits.mean,
        }
        if self.logits.scatters and backs_triangle(self.logits.count, self.context.features):
            arrays["logit_cholesky"] = lower_factor(self.logits.moment("covariance"))
        return Result(
            {role: tensor.cpu().numpy() for role, tensor in arrays.items()},
            count=self.logits.count.tolist(),
            params={"temperature": self.temperature},
        )

    @classmethod
    def reference(
        cls, features: np.ndarray, groups: np.ndarray, request: RecordRequest, context: Context
    ) -> dict[str, np.ndarray]:
        """Needs covariances of full rank: only then is the triangular root unique."""
        softened = features / request.params.get("temperature", DEFAULT_TEMPERATURE)
        powers = np.exp(softened - softened.max(-1, keepdims=True))
        probabilities = powers / powers.sum(-1, keepdims=True)
        rows = [np.concatenate(softened[groups == g]) for g in range(context.groups)]
        arrays = {
            "mean_probability": np.stack(
                [probabilities[groups == g].mean((0, 1)) for g in range(context.groups)]
            ),
            "logit_mean": np.stack([row.mean(0) for row in rows]),
        }
        if request.params.get("covariance", True):
            sigmas = np.stack([np.cov(row, rowvar=False, bias=True) for row in rows])
            arrays["logit_cholesky"] = np.linalg.cholesky(sigmas)
        return arrays
