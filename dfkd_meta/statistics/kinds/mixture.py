"""``mixture``: several Gaussians of low rank per group, found in the teacher's own features."""

from __future__ import annotations

from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from dfkd_meta.errors import StatisticsError
from dfkd_meta.statistics.base import (
    Accumulator,
    Context,
    RecordRequest,
    Result,
    Scout,
    statistics,
)
from dfkd_meta.statistics.clusters import Clusters
from dfkd_meta.statistics.factors import (
    backed_rows,
    nystrom_eigenpairs,
    sketch_matrix,
    top_eigenpairs,
)
from dfkd_meta.statistics.kinds.covariance import OVERSAMPLING, largest_positive, seen_through
from dfkd_meta.statistics.observe import feature_count
from dfkd_meta.statistics.running import (
    Diagonal,
    Full,
    Running,
    Scatter,
    Sketch,
)

MODES = 10
RANK = 20
EXACT_FEATURES = 128  # one scatter per mode: kept whole only where that is small


@statistics.register("mixture")
class Mixture(Accumulator):
    """Up to ``modes`` Gaussians per group, each with its weight, mean and leading covariance.

    Roles: ``weight`` `g m` (shares of the group's samples), ``mean`` `g m f`, ``factor`` F
    `g m k f` with covariance ~ F^T F (rows sqrt(lambda_i) v_i, of unbiased directions but divisor
    n; the variance beside them is not recorded), ``mode_count`` `g m`. k is ``rank``, or less: a
    mode has one row for every 5 of its samples at most, and rows of zeros where others have more.

    The modes are clusters of the group's samples in the features of ``cluster_tap`` (the last
    hidden layer, say; default: this tap), which a pass of its own finds: k-means (Lloyd 1982) from
    k-means++ seeds (Arthur & Vassilvitskii 2007) on a random 2,000 samples of each group, seeded by
    ``seed``. A mode of fewer than the minimum group size is folded into the one whose mean is
    nearest; modes come in order of size, and absent ones have weight 0.

    Several taps are described together: their features one after the other, so that one draw gives
    all of them. Leading is then what leads when every tap is scaled to a total variance of 1 within
    the mode; the factor is in the taps' own units.

    Beyond ``exact_up_to`` (128) features the scatter is kept as its product with a seeded test
    matrix of 2 rank + 10 columns, as in ``covariance``, tap by tap, since the scales are known at
    the end. float64. Merge: Chan's. Raises StatisticsError when modes or rank are below 1.
    """

    kind = "mixture"
    parameters = ("modes", "rank", "seed", "cluster_tap", "exact_up_to")
    pools = False
    examples = ({"modes": 1, "rank": 2}, {"modes": 1, "rank": 2, "exact_up_to": 4})

    def __init__(self, request: RecordRequest, context: Context) -> None:
        super().__init__(request, context)
        params = request.params
        self.modes, rank = int(params.get("modes", MODES)), int(params.get("rank", RANK))
        if self.modes < 1 or rank < 1:
            raise StatisticsError(
                f"modes {self.modes} and rank {rank} must be at least 1", where=request.id
            )
        features, seed = context.features, int(params.get("seed", 0))
        self.rank = min(rank, features)
        self.sketched = features > int(params.get("exact_up_to", EXACT_FEATURES))
        self.blocks = _blocks(request, context)
        scatters: dict[str, Scatter] = {"covariance": Full()}
        if self.sketched:
            columns = 2 * self.rank + OVERSAMPLING
            self.test_matrix = sketch_matrix(features, columns, seed).to(context.device)
            # A product per tap: the scales of the taps are known at the end.
            scatters = {"sketch": Sketch(self.test_matrix, self.blocks)}
            if len(self.blocks) > 1:
                scatters["variance"] = Diagonal()
        rows = context.groups * self.modes
        self.running = Running(rows, features, scatters, context.device)
        self.parts = {"x": self.running}

    def scout(self) -> Scout | None:
        """Finds the modes; groups become ``group * modes + mode``. One mode needs no finding."""
        if self.modes == 1:
            return None
        params = self.request.params
        tap = str(params.get("cluster_tap", self.request.taps[0]))
        return Clusters(tap, self.context.groups, self.modes, int(params.get("seed", 0)))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        groups, features = self.context.groups, self.context.features
        modes = groups, self.modes
        return {
            "weight": modes,
            "mean": (*modes, features),
            "factor": (*modes, self.rank, features),
            "mode_count": modes,
        }

    def result(self) -> Result:
        running = self._without_small_modes()
        groups, modes = self.context.groups, self.modes
        count = running.count.reshape(groups, modes)
        total = count.sum(1, keepdim=True).clamp(min=1)
        factor = _backed(self._factor(running), running.count)
        arrays = {
            "weight": count.double() / total,
            "mean": running.mean.reshape(groups, modes, -1),
            "factor": factor.reshape(groups, modes, *factor.shape[1:]),
            "mode_count": count.double(),
        }
        order = count.sort(dim=1, descending=True, stable=True).indices
        order = order[:, : max(1, int((count > 0).sum(1).max()))]  # none that is absent everywhere
        rows = torch.arange(groups, device=order.device).unsqueeze(1)
        return Result(
            {role: tensor[rows, order].cpu().numpy() for role, tensor in arrays.items()},
            count=count.sum(1).tolist(),
            params={"rank": factor.shape[1]},
        )

    def _without_small_modes(self) -> Running:
        """A copy in which every mode of a group has the minimum count, as far as it goes."""
        running = Running(
            len(self.running.count),
            self.context.features,
            self.running.scatters,
            self.running.count.device,
        )
        running.load_state(self.running.state())
        for group in range(self.context.groups):
            own = torch.arange(group * self.modes, (group + 1) * self.modes)
            while True:
                present = own[running.count[own].cpu() > 0]
                if len(present) < 2:
                    break
                least = int(present[running.count[present].argmin().cpu()])
                if int(running.count[least]) >= self.context.min_count:
                    break
                others = present[present != least]
                away = (running.mean[others] - running.mean[least]).square().sum(1)
                running.fold_(least, int(others[away.argmin().cpu()]))
        return running

    def _factor(self, running: Running) -> Tensor:
        """The leading rows `g k f` of a square root of the covariance, every tap counting alike."""
        scale = self._scale(running)
        if self.sketched:
            found = running.moment("sketch")
            products = found.reshape(*found.shape[:2], len(self.blocks), -1)
            shares = scale[:, [block.start for block in self.blocks]]
            sketch = torch.einsum("gftl,gt->gfl", products, shares)
            pairs = nystrom_eigenpairs(scale.unsqueeze(-1) * sketch, self.test_matrix, self.rank)
        else:
            scaled = scale.unsqueeze(-1) * running.moment("covariance") * scale.unsqueeze(-2)
            pairs = top_eigenpairs(scaled, self.rank)
        values, vectors = pairs
        return values.sqrt().unsqueeze(-1) * vectors / scale.unsqueeze(-2)

    def _scale(self, running: Running) -> Tensor:
        """What brings each tap to a total variance of 1: `g f`; 1 where there is one tap only."""
        if len(self.blocks) == 1:
            return torch.ones_like(running.mean)
        if self.sketched:
            variance = running.moment("variance")
        else:
            variance = running.moment("covariance").diagonal(dim1=-2, dim2=-1)
        scale = torch.empty_like(variance)
        for block in self.blocks:
            total = variance[:, block].sum(1, keepdim=True)
            scale[:, block] = torch.where(total > 0, total, 1.0).rsqrt()
        return scale

    @classmethod
    def reference(
        cls, features: np.ndarray, groups: np.ndarray, request: RecordRequest, context: Context
    ) -> dict[str, np.ndarray]:
        """One mode per group: a mixture of several is tested on data with known modes."""
        found = []
        for group in range(context.groups):
            rows = np.concatenate(features[groups == group])
            root = _reference_root(np.cov(rows, rowvar=False, bias=True), request)
            found.append(
                {
                    "weight": np.ones(1),
                    "mean": rows.mean(0)[None],
                    "factor": largest_positive(root)[None],
                    "mode_count": np.array([(groups == group).sum()]),
                }
            )
        return {role: np.stack([arrays[role] for arrays in found]) for role in found[0]}


def _backed(factor: Tensor, count: Tensor) -> Tensor:
    """The factors `g k f` without the rows that too few samples, `g`, stand behind."""
    rows = backed_rows(count)
    factor = factor[:, : int(rows.max())]
    backed = torch.arange(factor.shape[1], device=rows.device) < rows.unsqueeze(1)
    return factor * backed.unsqueeze(-1)


def _blocks(request: RecordRequest, context: Context) -> list[slice]:
    """Where the features of each tap lie."""
    if len(context.taps) < 2:
        return [slice(0, context.features)]
    sizes = [feature_count([tap], request.reduction) for tap in context.taps]
    return [slice(end - size, end) for end, size in zip(accumulate(sizes), sizes, strict=True)]


def _reference_root(sigma: np.ndarray, request: RecordRequest) -> np.ndarray:
    rank, features = int(request.params["rank"]), len(sigma)
    if features > int(request.params.get("exact_up_to", EXACT_FEATURES)):
        omega = sketch_matrix(features, 2 * rank + OVERSAMPLING, 0).numpy()
        sigma = seen_through(omega, sigma)
    vectors, values, _ = np.linalg.svd(sigma)
    root: np.ndarray = np.sqrt(values[:rank])[:, None] * vectors.T[:rank]
    return root
