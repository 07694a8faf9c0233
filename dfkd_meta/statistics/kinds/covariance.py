"""``covariance``: mean and a square root of the covariance, whole or of low rank."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from dfkd_meta.errors import StatisticsError
from dfkd_meta.statistics.base import Accumulator, Context, RecordRequest, Result, statistics
from dfkd_meta.statistics.factors import (
    backed_rows,
    backs_triangle,
    lower_factor,
    nystrom_eigenpairs,
    sketch_matrix,
    split_residual,
    top_eigenpairs,
)
from dfkd_meta.statistics.running import Diagonal, Full, Running, Scatter, Sketch

EXACT_FEATURES = 1024  # up to here M2 is kept whole: 8 MiB per group in float64
DEFAULT_RANK = 40
OVERSAMPLING = 10  # the sketch has 2 rank + this many columns


@statistics.register("covariance")
class Covariance(Accumulator):
    """Population covariance (divisor n) per group, as a square root of it.

    Roles: ``mean`` `g f` and either ``cholesky`` L `g f f` (Sigma = L L^T; exists for singular
    Sigma too), or ``factor`` F `g k f` and ``residual_variance`` r `g`: Sigma ~ F^T F + r I, trace
    exact (probabilistic PCA, see ``factors.split_residual``). It is the factor with the parameter
    ``rank``, beyond ``exact_up_to`` features, and where a group has fewer than 5 samples for each
    row of the triangle, which would hold them. Where a sample is one observation, a group has one
    row for every 5 of its samples at most, and rows of zeros where others have more.

    Up to ``exact_up_to`` (1,024) features M2 is exact. Beyond, M2 is kept as its product with a
    seeded orthonormal test matrix of 2 rank + 10 columns, with exact per-feature variances: memory
    f l instead of f^2. Merge: Chan's; the sketch is linear in M2, so it merges as exactly as M2.
    """

    kind = "covariance"
    parameters = ("rank", "exact_up_to", "seed")
    examples = ({}, {"rank": 2}, {"rank": 2, "exact_up_to": 4})

    def __init__(self, request: RecordRequest, context: Context) -> None:
        super().__init__(request, context)
        features = context.features
        self.sketched = features > int(request.params.get("exact_up_to", EXACT_FEATURES))
        rank = request.params.get("rank", DEFAULT_RANK if self.sketched else None)
        if rank is not None and int(rank) < 1:
            raise StatisticsError(f"rank must be at least 1, got {rank}", where=request.id)
        self.rank = None if rank is None else min(int(rank), features)
        scatters: dict[str, Scatter] = {"covariance": Full()}
        if self.sketched:
            self.test_matrix = _sketch_matrix(request, features).to(context.device)
            scatters = {"variance": Diagonal(), "sketch": Sketch(self.test_matrix)}
        self.running = Running(context.groups, features, scatters, context.device)
        self.parts = {"x": self.running}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        groups, features = self.context.groups, self.context.features
        mean = {"mean": (groups, features)}
        if self.rank is None:
            return mean | {"cholesky": (groups, features, features)}
        return mean | {"factor": (groups, self.rank, features), "residual_variance": (groups,)}

    def result(self) -> Result:
        arrays, params = {"mean": self.running.mean}, {}
        count, features = self.running.count, self.context.features
        if self.rank is None and (self.by_position or backs_triangle(count, features)):
            arrays["cholesky"] = lower_factor(self.running.moment("covariance"))
        else:
            factor, arrays["residual_variance"] = self._low_rank(self.rank or features)
            arrays["factor"], params = factor, {"rank": factor.shape[1]}
            if self.sketched:
                params["sketch_size"] = self.test_matrix.shape[1]
        return Result(
            {role: tensor.cpu().numpy() for role, tensor in arrays.items()},
            count=self.running.count.tolist(),
            params=params,
        )

    def _low_rank(self, rank: int) -> tuple[Tensor, Tensor]:
        if self.sketched:
            trace = self.running.moment("variance").sum(-1)
            pairs = nystrom_eigenpairs(self.running.moment("sketch"), self.test_matrix, rank)
        else:
            covariance = self.running.moment("covariance")
            trace = covariance.diagonal(dim1=-2, dim2=-1).sum(-1)
            pairs = top_eigenpairs(covariance, rank)
        if self.by_position:
            return split_residual(*pairs, trace)
        most = backed_rows(self.running.count)
        factor, residual = split_residual(*pairs, trace, most)
        return factor[:, : int(most.max())], residual

    @classmethod
    def reference(
        cls, features: np.ndarray, groups: np.ndarray, request: RecordRequest, context: Context
    ) -> dict[str, np.ndarray]:
        """Needs covariances of full rank: only then is the triangular root unique.

        And at least 5 samples for each feature, as the triangle does.
        """
        found = []
        for group in range(context.groups):
            rows = np.concatenate(features[groups == group])
            sigma = np.cov(rows, rowvar=False, bias=True).reshape(rows.shape[1], rows.shape[1])
            found.append({"mean": rows.mean(0), **_reference_root(sigma, request)})
        return {role: np.stack([arrays[role] for arrays in found]) for role in found[0]}


def _sketch_matrix(request: RecordRequest, features: int) -> Tensor:
    rank = int(request.params.get("rank", DEFAULT_RANK))
    seed = int(request.params.get("seed", 0))
    return sketch_matrix(features, 2 * rank + OVERSAMPLING, seed)


def _reference_root(sigma: np.ndarray, request: RecordRequest) -> dict[str, np.ndarray]:
    features = len(sigma)
    sketched = features > int(request.params.get("exact_up_to", EXACT_FEATURES))
    if not sketched and "rank" not in request.params:
        return {"cholesky": np.linalg.cholesky(sigma)}
    rank, trace = int(request.params.get("rank", DEFAULT_RANK)), np.trace(sigma)
    if sketched:
        sigma = seen_through(_sketch_matrix(request, features).numpy(), sigma)
    vectors, values, _ = np.linalg.svd(sigma)
    residual = (trace - values[:rank].sum()) / max(features - rank, 1)
    rows = np.sqrt(np.maximum(values[:rank] - residual, 0))[:, None] * vectors.T[:rank]
    return {"factor": largest_positive(rows), "residual_variance": np.array(residual)}


def seen_through(omega: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """For references: what a sketch with the columns of omega `f l` keeps of sigma `f f`."""
    sketch = sigma @ omega
    kept: np.ndarray = sketch @ np.linalg.pinv(omega.T @ sketch, hermitian=True) @ sketch.T
    return kept


def largest_positive(rows: np.ndarray) -> np.ndarray:
    """For references: each row `k f` with the sign that makes its largest entry positive."""
    signs = [np.sign(row[np.abs(row).argmax()]) or 1 for row in rows]
    turned: np.ndarray = rows * np.array(signs)[:, None]
    return turned
