"""The arithmetic under the statistics: (n, mean, M2) per group in float64 with Chan's merge.

M2 is the centered second moment ``sum (x - mean)(x - mean)^T``, kept whole, as its diagonal, or as
its product with a fixed test matrix. Each is a sum over rows of something quadratic in the row, so
Chan's correction ``n_a n_b / n delta delta^T`` is just one more row, ``sqrt(n_a n_b / n) delta``.
Raw moments in float32 would lose the variance: 0.0205 for a true 0.01006 at mean 100, sd 0.1.

Source: Chan, Golub, LeVeque 1983, "Algorithms for computing the sample variance", eq. 1.5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor


class Scatter(Protocol):
    """A way to hold M2: adds rows `n p f` that are already centered, by group `n`."""

    def shape(self, features: int) -> tuple[int, ...]:
        """Its shape for one group."""

    def add_(self, target: Tensor, rows: Tensor, groups: Tensor) -> None:
        """Add the rows' share to ``target`` `g ...` in place."""


class Diagonal:
    """The diagonal of M2: `g f`."""

    def shape(self, features: int) -> tuple[int, ...]:
        return (features,)

    def add_(self, target: Tensor, rows: Tensor, groups: Tensor) -> None:
        target.index_add_(0, groups, _over_positions(rows.square()))


class Full:
    """All of M2: `g f f`."""

    def shape(self, features: int) -> tuple[int, ...]:
        return (features, features)

    def add_(self, target: Tensor, rows: Tensor, groups: Tensor) -> None:
        for group in present_groups(groups):
            own = rows[groups == group].flatten(0, 1)
            target[group].addmm_(own.T, own)


class Sketch:
    """M2 times a fixed test matrix `f l`: `g f l`.

    With ``blocks`` of features, one product for each block's rows of the matrix, side by side:
    `g f (b l)`. Their sum is the whole product; apart, blocks can be scaled afterwards.
    """

    def __init__(self, test_matrix: Tensor, blocks: Sequence[slice] = (slice(None),)) -> None:
        self.test_matrix = test_matrix
        self.blocks = tuple(blocks)

    def shape(self, features: int) -> tuple[int, ...]:
        return (features, len(self.blocks) * self.test_matrix.shape[1])

    def add_(self, target: Tensor, rows: Tensor, groups: Tensor) -> None:
        for group in present_groups(groups):
            own = rows[groups == group].flatten(0, 1)
            seen = [own[:, block] @ self.test_matrix[block] for block in self.blocks]
            target[group].addmm_(own.T, torch.cat(seen, -1))


def _over_positions(rows: Tensor) -> Tensor:
    return rows.squeeze(1) if rows.shape[1] == 1 else rows.sum(1)  # a sum of one still costs a pass


def present_groups(groups: Tensor) -> list[int]:
    """Which numbers there are among the groups int64 `n`, in their order."""
    present: list[int] = torch.bincount(groups).nonzero().flatten().tolist()
    return present


class Running:
    """Count, mean and any number of scatters per group.

    State: ``count`` int64 `g` (samples), ``observations`` int64 `g` (samples times positions),
    ``mean`` float64 `g f`, and each scatter under its name, float64 `g ...`.
    """

    def __init__(
        self, groups: int, features: int, scatters: Mapping[str, Scatter], device: torch.device
    ) -> None:
        self.scatters = dict(scatters)
        self.count = torch.zeros(groups, dtype=torch.int64, device=device)
        self.observations = torch.zeros_like(self.count)
        self.mean = torch.zeros(groups, features, dtype=torch.float64, device=device)
        self.m2 = {
            name: self.mean.new_zeros((groups, *scatter.shape(features)))
            for name, scatter in self.scatters.items()
        }

    def update_(self, features: Tensor, groups: Tensor) -> None:
        """Absorb samples: features float64 `n p f`, groups int64 `n`."""
        count = torch.bincount(groups, minlength=len(self.count))
        observations = count * features.shape[1]
        sums = torch.zeros_like(self.mean).index_add_(0, groups, _over_positions(features))
        mean = sums / observations.clamp(min=1).unsqueeze(1)
        centered = features - mean[groups].unsqueeze(1)
        for name, scatter in self.scatters.items():
            scatter.add_(self.m2[name], centered, groups)
        self._absorb_(count, observations, mean)

    def merge_(self, other: Running) -> None:
        """Absorb another part of the same shape."""
        for name, scatter in self.m2.items():
            scatter += other.m2[name]
        self._absorb_(other.count, other.observations, other.mean)

    def _absorb_(self, count: Tensor, observations: Tensor, mean: Tensor) -> None:
        total = self.observations + observations
        share = observations / total.clamp(min=1).double()
        delta = mean - self.mean
        rows = delta * (self.observations * share).sqrt().unsqueeze(1)  # n_a n_b / n
        both = torch.nonzero((self.observations > 0) & (observations > 0)).flatten()
        for name, scatter in self.scatters.items():
            scatter.add_(self.m2[name], rows[both].unsqueeze(1), both)
        self.mean += delta * share.unsqueeze(1)
        self.count += count
        self.observations = total

    def fold_(self, source: int, target: int) -> None:
        """Move all samples of one group into another."""
        if source == target:
            return
        moved = [torch.zeros_like(t) for t in (self.count, self.observations, self.mean)]
        for part, own in zip(moved, (self.count, self.observations, self.mean), strict=True):
            part[target] = own[source]
            own[source] = 0
        for m2 in self.m2.values():
            m2[target] += m2[source]
            m2[source] = 0
        self._absorb_(*moved)

    def moment(self, name: str) -> Tensor:
        """A scatter over the number of observations: population moments, divisor n."""
        scatter = self.m2[name]
        divisor = self.observations.clamp(min=1).reshape(-1, *[1] * (scatter.ndim - 1))
        return scatter / divisor

    def state(self) -> dict[str, Tensor]:
        """The tensors that say everything."""
        own = {"count": self.count, "observations": self.observations, "mean": self.mean}
        return {key: tensor.clone() for key, tensor in {**own, **self.m2}.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Replace the tensors by saved ones."""
        device = self.mean.device
        self.count = state["count"].to(device, torch.int64, copy=True)
        self.observations = state["observations"].to(device, torch.int64, copy=True)
        self.mean = state["mean"].to(device, torch.float64, copy=True)
        self.m2 = {name: state[name].to(device, torch.float64, copy=True) for name in self.m2}
