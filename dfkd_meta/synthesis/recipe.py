"""A method is a recipe: what it needs from a sidecar, and what the one engine shall do with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from dfkd_meta.batches import NUMBERS, SyntheticBatch, fitting
from dfkd_meta.config import Config, make_config
from dfkd_meta.errors import MethodError, UsageError
from dfkd_meta.registry import Registry
from dfkd_meta.sidecar import Sidecar
from dfkd_meta.synthesis.rounds import Rounds
from dfkd_meta.synthesis.sources.base import Source
from dfkd_meta.synthesis.targets import TargetSampler
from dfkd_meta.synthesis.terms.base import Term
from dfkd_meta.teachers import Teacher, is_own_code, load_own_code, valid_bounds

SHARE = 0.25  # of a time budget for inputs: a student needs steps more than it needs inputs


@dataclass(frozen=True)
class Weighted:
    """A term with its weight in the sum; a weight of 0 switches the term off altogether."""

    term: Term
    weight: float


Augment = Callable[[Tensor, torch.Generator], Tensor]
Perturb = Callable[[int, torch.Generator], AbstractContextManager[None]]


@dataclass(frozen=True)
class Recipe:
    """Everything the engine needs to make inputs.

    ``images`` inputs in batches of ``batch_size``, each batch optimized for ``steps`` steps on the
    weighted sum of ``terms``; ``augment`` is applied to the inputs before the networks see them,
    ``perturb`` is a context opened around the teacher for one batch. ``keep_best`` keeps a batch as
    it was at its lowest loss. ``labeled=False``: inputs are not made for a class. ``mirrored``: the
    user said that an input and its mirror are of one class, so the student may see both.

    Without ``rounds`` all inputs are made first and the student is trained on them afterwards; with
    them, student steps decide how many batches there are, and ``images`` is not used.

    ``student_losses`` is what the student is trained on unless the user says otherwise (None: KD).
    ``given`` are inputs that exist already: nothing is synthesized. ``notes`` is what the user
    should know about this recipe for this teacher.
    """

    targets: TargetSampler
    source: Source
    images: int
    batch_size: int
    terms: dict[str, Weighted] = field(default_factory=dict)
    steps: int = 0
    augment: Augment | None = None
    rounds: Rounds | None = None
    keep_best: bool = False
    labeled: bool = True
    mirrored: bool = False
    perturb: Perturb | None = None
    student_losses: Mapping[str, float] | None = None
    given: SyntheticBatch | None = None
    notes: tuple[str, ...] = ()

    @property
    def fresh(self) -> bool:
        """Whether the student sees new outputs of the source at each step, and there is no pool."""
        return self.rounds is not None and self.rounds.fresh

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

    def components(self) -> dict[str, float | str]:
        """The row of this recipe in the component table of the CMI benchmark (Fang et al. 2021).

        The weight of each component present (summed if several terms share it), and what stands in
        the generator column: the kind of source, when it is no plain pixels.
        """
        row: dict[str, float | str] = {}
        for item in self.terms.values():
            if item.weight and item.term.component:
                row[item.term.component] = float(row.get(item.term.component, 0)) + item.weight
        if self.given is None and self.source.kind != "pixels":
            row["generator"] = self.source.kind
        return row


@dataclass(frozen=True)
class Query:
    """A record to look for in a sidecar; None matches anything, ``role`` is a tensor it holds."""

    kind: str
    scope: str | None = None
    reduction: str | None = None
    role: str | None = None

    def found(self, sidecar: Sidecar) -> bool:
        records = sidecar.find(self.kind, scope=self.scope, reduction=self.reduction)
        return any(self.role is None or self.role in record.tensors for record in records)

    def __str__(self) -> str:
        words = [self.scope, self.reduction and f"{self.reduction}-wise", self.kind]
        text = " ".join(word.replace("_", " ") for word in words if word)
        return f"{text} with {self.role}" if self.role else text


@dataclass(frozen=True)
class MethodContext:
    """What a method builds its recipe from.

    ``generator`` draws the initial weights of whatever a recipe trains.
    """

    teacher: Teacher
    sidecar: Sidecar
    device: torch.device
    generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(0))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return tuple(self.teacher.inputs.shape)

    @property
    def classes(self) -> tuple[int, ...]:
        """The classes to make inputs for: those that the sidecar describes."""
        return tuple(self.sidecar.classes)

    @property
    def bounds(self) -> tuple[Tensor, Tensor]:
        """Lowest and highest values that an input can take, on the device: see ``valid_bounds``."""
        low, high = valid_bounds(self.teacher.inputs)
        return low.to(self.device), high.to(self.device)

    def fitting(self, inputs: int, numbers: int = NUMBERS) -> int:
        """``inputs``, or as many (at least 2) as hold no more than ``numbers`` numbers together."""
        return max(2, fitting(inputs, self.shape, numbers))


@dataclass(frozen=True)
class Method:
    """A registered method.

    ``source`` cites paper and equation; each entry of ``needs`` is a set of alternatives, of which
    the sidecar must hold one; ``in_rounds`` says that the student is trained while synthesizing.
    """

    name: str
    source: str
    needs: tuple[tuple[Query, ...], ...]
    config: type[Config]
    build: Callable[[MethodContext, Any], Recipe]
    in_rounds: bool = False

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
        return self.build(context, make_config(self.config, options, prefix="options."))


methods: Registry[Method] = Registry("method", "dfkd_meta.synthesis.methods")


def find_method(name: str) -> Method:
    """The method of that name, or of ``module:name``, code of the caller's own that registers it.

    Such a name is one that the user typed: nothing that was downloaded names a method. Raises
    UsageError.
    """
    if is_own_code(name):
        load_own_code(name)
    return methods.get(name.rpartition(":")[2])


Builder = Callable[[MethodContext, Any], Recipe]


def method(
    name: str,
    *,
    source: str,
    config: type[Config],
    needs: tuple[tuple[Query, ...], ...] = (),
    in_rounds: bool = False,
) -> Callable[[Builder], Builder]:
    """Decorator that registers a builder ``(context, config) -> Recipe`` under ``name``.

    ``in_rounds`` says whether its recipes have ``rounds``.
    """

    def add(build: Builder) -> Builder:
        methods.register(name)(Method(name, source, needs, config, build, in_rounds))
        return build

    return add
