"""Per-class Gaussians read from records, and draws from them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from dfkd_meta.sidecar import Sidecar, StatisticRecord
from dfkd_meta.waiting import sent


@dataclass(frozen=True)
class ClassGaussians:
    """One Gaussian per group, over the features of one tap.

    mean: float32 `g f`. Exactly one of: cholesky float32 `g f f` (covariance L L^T), or factor
    float32 `g k f` (covariance F^T F + diag(residual), residual float32 `g f`), or neither
    (covariance diag(residual)). classes: the class of each group; empty when the only group is
    global.
    """

    mean: Tensor
    residual: Tensor | None = None
    factor: Tensor | None = None
    cholesky: Tensor | None = None
    classes: tuple[int, ...] = ()

    def rows(self, labels: Tensor) -> Tensor:
        """The group of each label (int64 `n` -> int64 `n`); 0 for global statistics."""
        return group_rows(self.classes, labels)

    def sample(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Independent draws, one per label: int64 `n` -> float32 `n f`."""
        groups = self.rows(labels)
        known = groups.cpu()  # read once: nothing below waits for a GPU
        order = known.argsort(stable=True)
        present, counts = torch.unique(known, return_counts=True)
        parts = [
            self._deviations(group, count, generator)
            for group, count in zip(present.tolist(), counts.tolist(), strict=True)
        ]
        deviations = torch.cat(parts)[sent(order.argsort(), groups.device)]
        return self.mean[groups] + deviations

    @property
    def mean_variance(self) -> float:
        """Variance of a feature, averaged over groups and features: the scale of a distance."""
        if self.cholesky is not None:
            return float(self.cholesky.square().sum(2).mean())
        variance = torch.zeros_like(self.mean)
        if self.factor is not None:
            variance = variance + self.factor.square().sum(1)
        if self.residual is not None:
            variance = variance + self.residual
        return float(variance.mean())

    def _deviations(self, group: int, count: int, generator: torch.Generator) -> Tensor:
        def noise(size: int) -> Tensor:
            return sent(torch.randn(count, size, generator=generator), self.mean.device)

        features = self.mean.shape[1]
        if self.cholesky is not None:
            return noise(features) @ self.cholesky[group].T
        deviations = torch.zeros(count, features, device=self.mean.device)
        if self.factor is not None:
            deviations += noise(self.factor.shape[1]) @ self.factor[group]
        if self.residual is not None:
            deviations += noise(features) * self.residual[group].sqrt()
        return deviations


@dataclass(frozen=True)
class ClassMixtures:
    """Several Gaussians per group: one of them is chosen by its weight for each draw.

    weight: float32 `g m`. modes: the Gaussians of all groups, one group after the other, numbered 0
    to g m - 1. classes: the class of each group; empty when the only group is global.
    """

    weight: Tensor
    modes: ClassGaussians
    classes: tuple[int, ...] = ()

    def sample(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Independent draws, one per label: int64 `n` -> float32 `n f`."""
        groups = group_rows(self.classes, labels)
        chosen = torch.multinomial(self.weight.cpu()[groups.cpu()], 1, generator=generator)
        count = self.weight.shape[1]
        return self.modes.sample(groups * count + sent(chosen.flatten(), groups.device), generator)


@dataclass(frozen=True)
class JointMixtures:
    """Mixtures over several taps: one draw says what an input is at each of them.

    sizes: features of each tap, in the order in which ``mixtures`` has them.
    """

    mixtures: ClassMixtures
    sizes: dict[str, int]

    def sample(self, labels: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Independent draws, one per label: int64 `n` -> float32 `n f` by tap id."""
        drawn = self.mixtures.sample(labels, generator)
        return {tap: drawn[:, place] for tap, place in self._places.items()}

    def mean_variance(self, tap: str) -> float:
        """Variance of a feature of one tap within a mode, averaged over modes and features."""
        factor = self.mixtures.modes.factor
        if factor is None:
            raise ValueError("modes of a mixture have factors")
        return float(factor[..., self._places[tap]].square().sum(1).mean())

    @property
    def _places(self) -> dict[str, slice]:
        ends = accumulate(self.sizes.values())
        pairs = zip(self.sizes.items(), ends, strict=True)
        return {tap: slice(end - size, end) for (tap, size), end in pairs}


def group_rows(classes: tuple[int, ...], labels: Tensor) -> Tensor:
    """The group of each label (int64 `n` -> int64 `n`); 0 for global statistics."""
    if not classes:
        return torch.zeros_like(labels)
    table = torch.full((max(classes) + 1,), -1, device=labels.device)
    table[list(classes)] = torch.arange(len(classes), device=labels.device)
    return table[labels]


def of_input(
    sidecar: Sidecar, kind: str, *, scope: str, reduction: str | None = None
) -> list[StatisticRecord]:
    """The records of a kind that describe the model's input itself, and nothing else."""
    found = sidecar.find(kind, scope=scope, reduction=reduction)
    return [r for r in found if len(r.taps) == 1 and sidecar.tap(r.taps[0]).is_model_input]


def read_tensor(
    sidecar: Sidecar, record: StatisticRecord, role: str, device: torch.device
) -> Tensor:
    """A recorded array as a tensor of its own, with the axes the record states."""
    return torch.tensor(sidecar.array(record, role), dtype=torch.float32, device=device)


def read_gaussians(
    sidecar: Sidecar, record: StatisticRecord, device: torch.device, *, residual: bool = True
) -> ClassGaussians:
    """The Gaussians of a ``covariance``, ``moments`` or ``soft_targets`` record.

    The variance that a low-rank factor leaves out is spread evenly (``residual_variance``), or unit
    by unit when a unit-wise ``moments`` record of the same tap and groups says where it lies;
    ``residual=False`` leaves it out. A ``soft_targets`` record describes logits / temperature.
    """
    classes = tuple(record.classes or ())

    def array(role: str) -> Tensor:
        return read_tensor(sidecar, record, role, device)

    if record.kind == "moments":
        return ClassGaussians(array("mean"), array("variance"), classes=classes)
    if record.kind == "soft_targets":
        return ClassGaussians(
            array("logit_mean"), cholesky=array("logit_cholesky"), classes=classes
        )
    mean = array("mean")
    if "cholesky" in record.tensors:
        return ClassGaussians(mean, cholesky=array("cholesky"), classes=classes)
    factor = array("factor")
    left_out = _left_out(sidecar, record, factor, array("residual_variance")) if residual else None
    return ClassGaussians(mean, residual=left_out, factor=factor, classes=classes)


def read_mixtures(sidecar: Sidecar, record: StatisticRecord, device: torch.device) -> ClassMixtures:
    """The mixtures of a ``mixture`` record; what its factors leave out is not drawn."""
    weight, mean, factor = (
        read_tensor(sidecar, record, role, device) for role in ("weight", "mean", "factor")
    )
    modes = ClassGaussians(
        mean.flatten(0, 1), factor=factor.flatten(0, 1), classes=tuple(range(weight.numel()))
    )
    return ClassMixtures(weight, modes, tuple(record.classes or ()))


def read_joint(sidecar: Sidecar, device: torch.device) -> JointMixtures | None:
    """The unit-wise, class-wise ``mixture`` over the most taps; None if none has several."""
    found = sidecar.find("mixture", scope="per_class", reduction="unit")
    record = max(found, key=lambda record: len(record.taps), default=None)
    if record is None or len(record.taps) < 2:
        return None
    sizes = {name: math.prod(sidecar.tap(name).shape) for name in record.taps}
    return JointMixtures(read_mixtures(sidecar, record, device), sizes)


def _left_out(sidecar: Sidecar, record: StatisticRecord, factor: Tensor, even: Tensor) -> Tensor:
    """Variance per feature that the factor leaves out: float32 `g f`."""
    for other in sidecar.find("moments", tap=record.taps[0], scope=record.scope, reduction="unit"):
        if other.classes == record.classes:
            variance = read_tensor(sidecar, other, "variance", factor.device)
            return (variance - factor.square().sum(1)).clamp_min(0)
    return even[:, None].expand(-1, factor.shape[2])
