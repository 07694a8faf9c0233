"""What a statistic is: a request, an accumulator with a merge law, and the registry of kinds.

One statistic is one file in ``dfkd_meta/statistics/kinds``: a class with ``@statistics.register``.
Plug-ins register through the entry-point group ``dfkd_meta.statistics.kinds``.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Protocol, Self

import numpy as np
import torch
from torch import Tensor, nn

from dfkd_meta.errors import StatisticsError
from dfkd_meta.registry import Registry
from dfkd_meta.sidecar.checks.evidence import frequencies_at
from dfkd_meta.sidecar.kinds import KINDS
from dfkd_meta.sidecar.manifest import Tap

MIN_COUNT = 11  # no group of fewer samples is released, unless the publisher says otherwise
MAX_ID = 160  # a tensor is named <id>/<role>, and names of the standard end at 200

Reduction = Literal["unit", "channel", "pooled"]
Scope = Literal["global", "per_class"]


@dataclass(frozen=True)
class RecordRequest:
    """One record to compute: what, where, and over which groups."""

    kind: str
    taps: tuple[str, ...] = ()
    reduction: Reduction | None = None
    scope: Scope = "global"
    params: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The record's name, e.g. ``moments/conv1:output/channel/per_class``."""
        if not self.taps:
            return self.kind
        parts = [self.kind, "+".join(self.taps), self.reduction or "", self.scope]
        name = "/".join(part for part in parts if part)
        if len(name) <= MAX_ID:
            return name
        return f"{name[: MAX_ID - 17]}~{hashlib.sha256(name.encode()).hexdigest()[:16]}"


@dataclass(frozen=True)
class Context:
    """What an accumulator may know: the teacher's module (read only) and the sizes of its input.

    ``min_count`` is the smallest group of samples that may be released.
    """

    module: nn.Module
    taps: tuple[Tap, ...] = ()
    features: int = 0
    groups: int = 1
    min_count: int = MIN_COUNT
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


@dataclass(frozen=True)
class Result:
    """A finished record: samples per group, parameters and one float64 array per role.

    ``stored`` names, per role, the key of the teacher's state that holds the same numbers, so that
    the exporter may point there instead of copying.
    """

    arrays: dict[str, np.ndarray]
    count: list[int] | None = None
    params: dict[str, Any] = field(default_factory=dict)
    stored: dict[str, str] = field(default_factory=dict)

    @property
    def smallest_group(self) -> int:
        """Samples of the smallest group that this describes, modes included; 0 without counts."""
        modes = self.arrays.get("mode_count")
        return min(self.count or [0]) if modes is None else int(modes[modes > 0].min())


class Part(Protocol):
    """A mergeable piece of an accumulator's state; every tensor's first axis is the group."""

    def update_(self, features: Tensor, groups: Tensor) -> None:
        """Absorb samples: features float64 `n p f`, groups int64 `n`."""

    def merge_(self, other: Any) -> None:
        """Absorb another part of the same shape."""

    def state(self) -> dict[str, Tensor]:
        """The tensors that say everything."""

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Replace the tensors by saved ones."""


Assign = Callable[[Tensor, Tensor], Tensor]


class Scout(Protocol):
    """Looks at the data in a pass of its own, before the pass that counts.

    ``tap`` is where it looks. What it learns divides each group into finer ones.
    """

    tap: str

    def see(self, features: Tensor, groups: Tensor) -> None:
        """Look at samples: features float64 `n f` (all units of the tap), groups int64 `n`."""

    def settle(self) -> Assign:
        """The rule it found: features `n f` and groups `n` to finer groups `n`."""

    def memory(self, features: int) -> int:
        """The most bytes that it keeps of a tap with so many units."""


class Accumulator(ABC):
    """A statistic being computed in one pass, in float64, with memory independent of the samples.

    Laws: a fresh accumulator is the identity of ``merge``; updating with any split of the samples
    and merging the pieces in any order gives what one update gives (up to float64 rounding); every
    state tensor has the group as its first axis. A statistic that is read from the weights has no
    parts and ignores ``update``.
    """

    kind: ClassVar[str]
    parameters: ClassVar[tuple[str, ...]] = ()  # names that a request's params may have
    pools: ClassVar[bool] = True  # whether the global statistic follows from those of all groups
    examples: ClassVar[tuple[Mapping[str, Any], ...]] = ({},)  # params that the contract tests try

    def __init__(self, request: RecordRequest, context: Context) -> None:
        self.request = request
        self.context = context
        self.parts: dict[str, Part] = {}

    @property
    def by_position(self) -> bool:
        """Whether a sample is many observations, so that rows of a root hold no sample."""
        positions = [frequencies_at(tap) for tap in self.context.taps]
        return self.request.reduction == "channel" and max(positions, default=1) > 1

    def scout(self) -> Scout | None:
        """A fresh look-out, for a statistic whose groups have to be found first; None for others.

        With one, ``update`` is given the finer groups that it assigns.
        """
        return None

    def update(self, features: Tensor, groups: Tensor) -> None:
        """Absorb samples: features float64 `n p f` (p observations each), groups int64 `n`."""
        for part in self.parts.values():
            part.update_(features, groups)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each role to come, known before any sample: the largest it can be.

        A statistic with parts has to say it; of others it is read off the result.
        """
        return {role: array.shape for role, array in self.result().arrays.items()}

    @abstractmethod
    def result(self) -> Result:
        """The record as computed so far."""

    @classmethod
    @abstractmethod
    def reference(
        cls, features: np.ndarray, groups: np.ndarray, request: RecordRequest, context: Context
    ) -> dict[str, np.ndarray]:
        """The same roles by plain numpy on all samples at once: slow, and written independently."""

    def merge(self, other: Self) -> None:
        """Absorb another accumulator of the same request. Raises StatisticsError otherwise."""
        if self.request != other.request or self.context.groups != other.context.groups:
            raise StatisticsError(
                "only accumulators of one request and the same groups can be merged",
                where=f"{self.request.id} and {other.request.id}",
            )
        for name, part in self.parts.items():
            part.merge_(other.parts[name])

    def state(self) -> dict[str, Tensor]:
        """Everything needed to go on later: tensors `g ...` that safetensors can hold."""
        return {
            f"{name}.{key}": tensor
            for name, part in self.parts.items()
            for key, tensor in part.state().items()
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a saved state. Raises StatisticsError when names or shapes differ."""
        mine = {key: tensor.shape for key, tensor in self.state().items()}
        if mine != {key: tensor.shape for key, tensor in state.items()}:
            raise StatisticsError("the saved state is of another request", where=self.request.id)
        for name, part in self.parts.items():
            prefix = f"{name}."
            part.load_state(
                {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
            )

    def pooled(self) -> Self:
        """The global accumulator over the same samples: all groups merged into one."""
        request = replace(self.request, scope="global")
        context = replace(self.context, groups=1)
        total = type(self)(request, context)
        state = self.state()
        for group in range(self.context.groups):
            part = type(self)(request, context)
            part.load_state({key: tensor[group : group + 1] for key, tensor in state.items()})
            total.merge(part)
        return total


statistics: Registry[type[Accumulator]] = Registry("statistic", "dfkd_meta.statistics.kinds")


def make_accumulator(request: RecordRequest, context: Context) -> Accumulator:
    """A fresh accumulator.

    Raises UsageError (unknown kind), StatisticsError (wrong taps or parameters).
    """
    accumulator = statistics.get(request.kind)
    wanted = KINDS[request.kind].taps if request.kind in KINDS else None
    if wanted is not None and wanted != len(request.taps):
        raise StatisticsError(
            f"{request.kind} is taken at {wanted} tap(s), the request names {len(request.taps)}",
            where=request.id,
        )
    if len(request.taps) > 1 and request.reduction == "channel":
        raise StatisticsError(
            f"layers differ in their positions, so several have no channel-wise {request.kind}",
            where=request.id,
            hint="use the reduction unit or pooled",
        )
    if unknown := sorted(set(request.params) - set(accumulator.parameters)):
        raise StatisticsError(
            f"{request.kind} has no parameter {unknown[0]!r}",
            where=request.id,
            hint="it has: " + (", ".join(accumulator.parameters) or "none"),
        )
    try:
        return accumulator(request, context)
    except (TypeError, ValueError) as error:  # a text where a number is needed
        raise StatisticsError(
            f"parameters that {request.kind} cannot take: {dict(request.params)} ({error})",
            where=request.id,
        ) from error
