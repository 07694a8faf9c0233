"""Clusters of the samples of each group, found in one pass over the data."""

from __future__ import annotations

import torch
from torch import Tensor

from dfkd_meta.statistics.base import Assign
from dfkd_meta.statistics.running import present_groups

KEPT = 2_000  # samples per group that clusters are found from
KEPT_NUMBERS = 2**27  # of all groups together: 1 GiB in float64
ROUNDS = 30


class Clusters:
    """A random sample of each group's features, then k-means on it."""

    def __init__(self, tap: str, groups: int, modes: int, seed: int) -> None:
        self.tap = tap
        self.groups = groups
        self.modes = modes
        self.generator = torch.Generator().manual_seed(seed)
        self.kept: dict[int, tuple[Tensor, Tensor]] = {}  # keys `n` and rows `n f` by group

    def memory(self, features: int) -> int:
        return self.groups * self._room(features) * features * 8

    def _room(self, features: int) -> int:
        """How many samples of a group are kept."""
        return min(KEPT, max(1, KEPT_NUMBERS // (self.groups * features)))

    def see(self, features: Tensor, groups: Tensor) -> None:
        """Keep those whose random keys are the largest so far: a uniform sample of each group."""
        keys = torch.rand(len(features), generator=self.generator, dtype=torch.float64)
        room = self._room(features.shape[1])
        for group in present_groups(groups):
            own = (groups == group).cpu()
            mine, rows = keys[own], features[own.to(features.device)]
            if group in self.kept:
                before = self.kept[group]
                mine, rows = torch.cat([before[0], mine]), torch.cat([before[1], rows])
            chosen = mine.topk(min(room, len(mine))).indices
            self.kept[group] = mine[chosen], rows[chosen.to(rows.device)]

    def settle(self) -> Assign:
        some = next(iter(self.kept.values()))[1]
        centers = some.new_full((self.groups, self.modes, some.shape[1]), torch.inf)
        for group, (_, rows) in sorted(self.kept.items()):
            found = k_means(rows, self.modes, self.generator)
            centers[group, : len(found)] = found

        def assign(features: Tensor, groups: Tensor) -> Tensor:
            rows = torch.zeros_like(groups)
            for group in present_groups(groups):
                own = groups == group
                rows[own] = group * self.modes + nearest(features[own], centers[group])
            return rows

        return assign


def nearest(rows: Tensor, centers: Tensor) -> Tensor:
    """The index of the nearest center `k f` of each row `n f`; one at infinity is never it."""
    present = torch.isfinite(centers).all(1).nonzero().flatten()
    if len(present) == 0:
        return torch.zeros(len(rows), dtype=torch.int64, device=rows.device)
    return present[torch.cdist(rows, centers[present]).argmin(1)]


def k_means(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Up to ``count`` centers `k f` of rows `n f`: k-means++ seeds, then Lloyd's rounds."""
    first = int(torch.randint(len(rows), (1,), generator=generator))
    centers = rows[first : first + 1]
    while len(centers) < count:
        away = torch.cdist(rows, centers).amin(1).square()
        if not away.sum() > 0:  # fewer different rows than centers
            break
        chosen = torch.multinomial(away.cpu(), 1, generator=generator)
        centers = torch.cat([centers, rows[chosen.to(rows.device)]])
    for _ in range(ROUNDS):
        own = torch.cdist(rows, centers).argmin(1)
        share = torch.nn.functional.one_hot(own, len(centers)).to(rows)
        size = share.sum(0).unsqueeze(1)
        moved = torch.where(size > 0, share.T @ rows / size.clamp(min=1), centers)
        if torch.equal(moved, centers):
            break
        centers = moved
    return centers
