"""Which layers of teacher and student belong together, found by one seeded forward pass of each."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.dropout import _DropoutNd
from torch.utils.hooks import RemovableHandle

from dfkd_meta.errors import UsageError
from dfkd_meta.sidecar.manifest import Tap
from dfkd_meta.teachers import Teacher

AXES = {1: ["f"], 2: ["t", "f"], 3: ["c", "h", "w"]}
SAMPLES = 2


@dataclass(frozen=True)
class Pair:
    """A place of the teacher and the place of the student that learns from it."""

    teacher: Tap
    student: Tap

    def __str__(self) -> str:
        return f"teacher {_words(self.teacher)} -> student {_words(self.student)}"

    @property
    def is_map(self) -> bool:
        """Whether the features are maps `c h w` (else flat `f` or tokens `t f`)."""
        return len(self.teacher.shape) == 3

    @property
    def positions(self) -> int:
        """The number of positions of a map, or of tokens; 1 for flat features."""
        shape = self.teacher.shape
        return shape[1] * shape[2] if self.is_map else shape[0] if len(shape) == 2 else 1

    @property
    def channels(self) -> tuple[int, int]:
        """How many channels (or features) the student has there, and the teacher."""
        axis = 0 if self.is_map else -1
        return self.student.shape[axis], self.teacher.shape[axis]


def match_pairs(
    teacher: Teacher, student: nn.Module, named: Sequence[tuple[str, str]] | None = None
) -> list[Pair]:
    """Pairs of places in the teacher's order.

    Found by themselves: of maps, the last layer of each size (height, width) that both nets have;
    in nets without maps, the hidden layers in order, spread evenly (the last with the last) where
    their numbers differ. ``named`` gives (teacher, student) places instead, as ``layer2``,
    ``fc3:input`` or, at a later call of a shared module, ``relu:output#1``. Raises UsageError when
    nothing matches, a name is wrong, or the shapes of a named pair differ in more than channels.
    """
    teachers = _watch(teacher.module, teacher.inputs.shape)
    students = _watch(student, teacher.inputs.shape)
    if named is None:
        return _by_themselves(teachers, students)
    pairs = [
        Pair(_find(one, teachers, teacher.module, "teacher"), _find(two, students, student))
        for one, two in named
    ]
    for pair in pairs:
        if not _alike(pair):
            raise UsageError(
                f"the pair {pair} differs in more than its channels",
                hint="these would match: " + _suggest(teachers, students),
            )
    return pairs


@dataclass(frozen=True)
class _Place:
    """A tensor seen in the pass; ``after_layer`` is false before the first weights are applied."""

    tap: Tap
    kind: type[nn.Module]
    after_layer: bool


def _watch(module: nn.Module, shape: Sequence[int]) -> list[_Place]:
    """Every tensor `n ...` that goes into or out of a submodule, in order; the mode comes back."""
    seen: list[_Place] = []
    handles: list[RemovableHandle] = []
    for path, part in module.named_modules():
        if path:
            handles += _listen(path, part, seen)
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    images = torch.randn(SAMPLES, *shape, generator=torch.Generator().manual_seed(0))
    modes = {part: part.training for part in module.modules()}
    try:
        with torch.no_grad():
            module.eval()(images.to(device))
    finally:
        for handle in handles:
            handle.remove()
        for part, mode in modes.items():
            part.training = mode
    return seen


def _listen(path: str, part: nn.Module, seen: list[_Place]) -> list[RemovableHandle]:
    """Hooks that add what passes through one submodule to ``seen``."""

    def note(side: Literal["input", "output"], value: Any) -> None:
        if not isinstance(value, Tensor) or len(value) != SAMPLES or value.ndim - 1 not in AXES:
            return
        size = list(value.shape[1:])
        call = sum((place.tap.module, place.tap.side) == (path, side) for place in seen)
        tap = Tap(
            id=f"{path}:{side}" + (f"#{call}" if call else ""),
            module=path,
            side=side,
            call=call,
            axes=AXES[len(size)],
            shape=size,
            linear_in_input=False,
        )
        begun = bool(seen) and seen[-1].after_layer
        layer = side == "output" and isinstance(part, nn.Linear | _ConvNd)
        seen.append(_Place(tap, type(part), begun or layer))

    def before(_: nn.Module, args: tuple[Any, ...]) -> None:
        note("input", args[0] if args else None)

    def after(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        note("output", output)

    return [part.register_forward_pre_hook(before), part.register_forward_hook(after)]


def _by_themselves(teachers: list[_Place], students: list[_Place]) -> list[Pair]:
    ours, theirs = _maps(teachers), _maps(students)
    if ours or theirs:
        pairs = [Pair(tap, theirs[size]) for size, tap in ours.items() if size in theirs]
    else:
        one, two = _hidden(teachers), _hidden(students)
        count = min(len(one), len(two))
        ends = range(1, count + 1)
        pairs = [Pair(one[i * len(one) // count - 1], two[i * len(two) // count - 1]) for i in ends]
    if not pairs:
        raise UsageError(
            "no layers of teacher and student match: "
            f"{_sizes(teachers, ours)} against {_sizes(students, theirs)}",
            hint="choose a student with maps of the teacher's sizes, or losses on logits "
            "(kd, dkd, dist, mse)",
        )
    return pairs


def _maps(seen: list[_Place]) -> dict[tuple[int, ...], Tap]:
    """The last output `c h w` of each size (height, width), in the order of those places."""
    maps: dict[tuple[int, ...], Tap] = {}
    for place in _outputs(seen, dimensions=3):
        size = tuple(place.tap.shape[1:])
        maps.pop(size, None)
        maps[size] = place.tap
    return maps


def _hidden(seen: list[_Place]) -> list[Tap]:
    """The last flat output of each linear layer and what follows it up to the next one.

    The last linear layer is left out: it gives the logits.
    """
    hidden: list[Tap] = []
    for place in _outputs(seen, dimensions=1):
        if issubclass(place.kind, nn.Linear):
            hidden.append(place.tap)
        elif hidden:
            hidden[-1] = place.tap
    return hidden[:-1]


def _outputs(seen: list[_Place], *, dimensions: int) -> list[_Place]:
    """Outputs after the first weights, without those of dropout: a teacher's features have none."""
    return [
        place
        for place in seen
        if place.after_layer
        and place.tap.side == "output"
        and len(place.tap.shape) == dimensions
        and not issubclass(place.kind, _DropoutNd)
    ]


def _find(name: str, seen: list[_Place], module: nn.Module, who: str = "student") -> Tap:
    path = name.partition(":")[0]
    wanted = name if ":" in name else f"{name}:output"
    for place in seen:
        if place.tap.id == wanted:
            return place.tap
    known = [path for path, _ in module.named_modules() if path]
    if path in known:
        there = [place.tap.id for place in seen if place.tap.module == path]
        raise UsageError(
            f"the {who} has no features `n f`, `n t f` or `n c h w` at {name!r}",
            hint="there are: " + ", ".join(there) if there else "a forward pass never gets there",
        )
    near = difflib.get_close_matches(path, known, n=3)
    raise UsageError(
        f"the {who} has no layer {path!r}",
        hint="did you mean " + " or ".join(near) + "?" if near else "known: " + ", ".join(known),
    )


def _alike(pair: Pair) -> bool:
    one, two = pair.teacher.shape, pair.student.shape
    if len(one) != len(two):
        return False
    return one[1:] == two[1:] if len(one) == 3 else one[:-1] == two[:-1]


def _suggest(teachers: list[_Place], students: list[_Place]) -> str:
    try:
        return "; ".join(str(pair) for pair in _by_themselves(teachers, students))
    except UsageError:
        return "no pair of maps, these nets have no size in common"


def _sizes(seen: list[_Place], maps: dict[tuple[int, ...], Tap]) -> str:
    if maps:
        return "maps of " + ", ".join("x".join(str(n) for n in size) for size in maps)
    return f"{len(_hidden(seen))} hidden layers without maps"


def _words(tap: Tap) -> str:
    return f"{tap.id.removesuffix(':output')} {tap.shape}"
