"""A method is a recipe: what it needs from a sidecar, and what the one engine shall do with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from dfkd_meta.config import Config, make_config
from dfkd_meta.errors import MethodError, UsageError
from dfkd_meta.registry import Registry
from dfkd_meta.sidecar import Sidecar, Tap
from dfkd_meta.synthesis.sources import PixelSource
from dfkd_meta.synthesis.targets import Targets, TargetSampler
from dfkd_meta.teachers import Teacher


@dataclass(frozen=True)
class StepState:
    """What a term sees at one step: the inputs, what the teacher made of them, and the aim.

    images: float32 `n ...`, model-normalized, before augmentation. logits: float32 `n c`.
    activations: tap id -> tensor `n ...` of the augmented inputs.
    """

    images: Tensor
    logits: Tensor
    activations: Mapping[str, Tensor]
    targets: Targets


class Term(Protocol):
    """A loss term: a scalar from a step, and the taps it needs to see."""

    @property
    def taps(self) -> tuple[Tap, ...]: ...

    def __call__(self, state: StepState) -> Tensor: ...


@dataclass(frozen=True)
class Weighted:
    """A term with its weight in the sum; a weight of 0 switches the term off altogether."""

    term: Term
    weight: float


Augment = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class Recipe:
    """Everything the engine needs to make inputs.

    ``images`` inputs in batches of ``batch_size``, each batch optimized for ``steps`` Adam steps of
    size ``learning_rate`` on the weighted sum of ``terms``; ``augment`` is applied to the inputs
    before the teacher sees them.
    """

    targets: TargetSampler
    source: PixelSource
    images: int
    batch_size: int
    terms: dict[str, Weighted] = field(default_factory=dict)
    steps: int = 0
    learning_rate: float = 0.1
    betas: tuple[float, float] = (0.9, 0.999)
    augment: Augment | None = None

    def reweighted(self, weights: Mapping[str, float]) -> Recipe:
        """The same recipe with some weights replaced. Raises UsageError on an unknown term."""
        for name in weights:
            if name not in self.terms:
                raise UsageError(
                    f"this method has no term {name!r}",
                    hint="its terms: " + (", ".join(self.terms) or "none"),
                )
        terms = {
            name: replace(weighted, weight=weights.get(name, weighted.weight))
            for name, weighted in self.terms.items()
        }
        return replace(self, terms=terms)


@dataclass(frozen=True)
class Query:
    """A record to look for in a sidecar; None matches anything, ``role`` is a tensor it holds."""

    kind: str
    tap: str | None = None
    scope: str | None = None
    reduction: str | None = None
    role: str | None = None

    def found(self, sidecar: Sidecar) -> bool:
        records = sidecar.find(self.kind, tap=self.tap, scope=self.scope, reduction=self.reduction)
        return any(self.role is None or self.role in record.tensors for record in records)

    def __str__(self) -> str:
        words = [self.scope, self.reduction and f"{self.reduction}-wise", self.kind]
        text = " ".join(word.replace("_", " ") for word in words if word)
        text += f" with {self.role}" if self.role else ""
        return f"{text} at tap {self.tap!r}" if self.tap else text


@dataclass(frozen=True)
class MethodContext:
    """What a method builds its recipe from."""

    teacher: Teacher
    sidecar: Sidecar
    device: torch.device

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return tuple(self.teacher.inputs.shape)


@dataclass(frozen=True)
class Method:
    """A registered method.

    ``source`` cites paper and equation; each entry of ``needs`` is a set of alternatives, of which
    the sidecar must hold one.
    """

    name: str
    source: str
    needs: tuple[tuple[Query, ...], ...]
    config: type[Config]
    build: Callable[[MethodContext, Any], Recipe]

    def missing(self, sidecar: Sidecar) -> list[str]:
        """What the sidecar lacks for this method, in words; empty when it can run."""
        return [
            " or ".join(str(query) for query in alternatives)
            for alternatives in self.needs
            if not any(query.found(sidecar) for query in alternatives)
        ]

    def recipe(self, context: MethodContext, options: Mapping[str, Any]) -> Recipe:
        """The recipe under ``options``. Raises MethodError, UsageError (unknown option)."""
        lacking = self.missing(context.sidecar)
        if lacking:
            works = [
                name for name in methods.names() if not methods.get(name).missing(context.sidecar)
            ]
            raise MethodError(
                f"method {self.name!r} needs what this sidecar does not hold: {'; '.join(lacking)}",
                where=str(context.sidecar.folder),
                hint="methods that work with it: " + ", ".join(works),
            )
        return self.build(context, make_config(self.config, options))


methods: Registry[Method] = Registry("method", "dfkd_meta.synthesis.methods")

Builder = Callable[[MethodContext, Any], Recipe]


def method(
    name: str, *, source: str, config: type[Config], needs: tuple[tuple[Query, ...], ...] = ()
) -> Callable[[Builder], Builder]:
    """Decorator that registers a builder ``(context, config) -> Recipe`` under ``name``."""

    def add(build: Builder) -> Builder:
        methods.register(name)(Method(name, source, needs, config, build))
        return build

    return add
