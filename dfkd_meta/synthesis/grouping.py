"""Which rows of a batch belong to which recorded group, worked out once for all its steps."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Part:
    """Some ``rows`` of a batch, and the ``groups`` among those present that they belong to.

    ``mean`` are the columns of these rows in the matrix that takes the mean over each of these
    groups: float32 `q r`.
    """

    rows: slice
    groups: Tensor
    mean: Tensor


@dataclass(frozen=True)
class Grouping:
    """The rows of a batch by group.

    rows: int64 `n`, the group of each. present: int64 `p`, the groups that the batch holds,
    ascending. count: int64 `p`, the rows of each of these. mean: float32 `p n`, the matrix that
    takes the mean over the rows of each.
    """

    rows: Tensor
    present: Tensor
    count: Tensor
    mean: Tensor
    _pooled: dict[int, Tensor] = field(default_factory=dict, init=False, repr=False)
    _parts: dict[int, list[Part]] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of(cls, rows: Tensor) -> Grouping:
        """From the group of each row, int64 `n`."""
        present, place, count = torch.unique(rows, return_inverse=True, return_counts=True)
        return cls(rows, present, count, shares(place))

    @cached_property
    def members(self) -> list[tuple[int, Tensor]]:
        """Each group with its rows, int64."""
        return [
            (group, (self.rows == group).nonzero().flatten()) for group in self.present.tolist()
        ]

    def pooled_mean(self, least: int) -> Tensor:
        """The matrix that takes the mean over the rows of neighboring groups: float32 `q p`.

        Of values per group; so many of them are pooled that there are about ``least`` rows each.
        """
        if least not in self._pooled:
            self._pooled[least] = shares(pooled(self.count, least), self.count)
        return self._pooled[least]

    def parts(self, size: int) -> list[Part]:
        """The batch cut into parts of ``size`` rows."""
        if size not in self._parts:
            self._parts[size] = [self._part(rows) for rows in cut(len(self.rows), size)]
        return self._parts[size]

    def _part(self, rows: slice) -> Part:
        mean = self.mean[:, rows]
        groups = mean.any(1).nonzero().flatten()
        return Part(rows, groups, mean[groups])


def cut(rows: int, size: int) -> list[slice]:
    """So many rows in slices of ``size``; the last may be shorter."""
    return [slice(start, start + size) for start in range(0, rows, size)]


def pooled(count: Tensor, least: int) -> Tensor:
    """Groups 0, 1, ... of classes with so many rows each: int64 `c` to `c`.

    There are as many groups of ``least`` rows as there can be, and at least one. A class joins the
    group in whose even share of all rows its own begin, so none is left with a few of them.
    """
    before, total = count.cumsum(0) - count, count.sum()
    groups = (total // least).clamp_min(1)
    group: Tensor = torch.unique(before * groups // total, return_inverse=True)[1]
    return group


def shares(place: Tensor, count: Tensor | None = None) -> Tensor:
    """The matrix that takes the mean over each group: int64 `n` -> float32 `g n`.

    ``count`` is how often each of the n counts (default: once).
    """
    share: Tensor = nn.functional.one_hot(place).T.float()
    if count is not None:
        share = share * count
    return share / share.sum(1, keepdim=True)
