"""Which layers of teacher and student belong together, found by one seeded forward pass of each."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.dropout import _DropoutNd

from dfkd_meta.errors import UsageError
from dfkd_meta.sidecar.manifest import InputSpec, Tap
from dfkd_meta.teachers import Teacher, channel_axis
from dfkd_meta.teachers.watching import Place, watch_pass

MAP = ("c", "h", "w")
MOST_AXES = 3  # of a sample: losses have no projection for more


@dataclass(frozen=True)
class Pair:
    """A place of the teacher and the place of the student that learns from it."""

    teacher: Tap
    student: Tap

    def __str__(self) -> str:
        return f"teacher {_words(self.teacher)} -> student {_words(self.student)}"

    @property
    def axes(self) -> tuple[str, ...]:
        """The axes of a sample: maps `c h w`, sequences `c t`, tokens `t f`, flat `f` ..."""
        return tuple(self.teacher.axes)

    @property
    def is_map(self) -> bool:
        """Whether the features are maps `c h w`."""
        return self.axes == MAP

    @property
    def positions(self) -> int:
        """The number of positions, of maps or tokens; 1 for flat features."""
        return math.prod(self.teacher.shape) // self.channels[1]

    @property
    def channels(self) -> tuple[int, int]:
        """How many channels (or features) the student has there, and the teacher."""
        axis = channel_axis(self.teacher)
        return self.student.shape[axis], self.teacher.shape[axis]


def match_pairs(
    teacher: Teacher, student: nn.Module, named: Sequence[tuple[str, str]] | None = None
) -> list[Pair]:
    """Pairs of places in the teacher's order.

    Found by themselves: of maps, the last layer of each size (height, width) that both nets have;
    in nets without maps, the hidden layers in order, spread evenly (the last with the last) where
    their numbers differ. ``named`` gives (teacher, student) places instead, as ``layer2``,
    ``fc3:input`` or, at a later call of a shared module, ``relu:output#1``. What a net overwrites
    in place is no place of it. Raises UsageError when nothing matches, a name is wrong, or the
    shapes of a named pair differ in more than channels.
    """
    teachers = _watch(teacher.module, teacher.inputs)
    students = _watch(student, teacher.inputs)
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


def _watch(module: nn.Module, inputs: InputSpec) -> list[Place]:
    """Every tensor that goes into or out of a submodule in evaluation mode; the mode comes back."""
    modes = {part: part.training for part in module.modules()}
    try:
        places = watch_pass(module.eval(), inputs)[1:-1]
    finally:
        for part, mode in modes.items():
            part.training = mode
    return [place for place in places if len(place.shape) <= MOST_AXES]


def _by_themselves(teachers: list[Place], students: list[Place]) -> list[Pair]:
    ours, theirs = _maps(teachers), _maps(students)
    if ours or theirs:
        both = [(place, theirs[size]) for size, place in ours.items() if size in theirs]
    else:
        one, two = _hidden(teachers), _hidden(students)
        count = min(len(one), len(two))
        ends = range(1, count + 1)
        both = [(one[i * len(one) // count - 1], two[i * len(two) // count - 1]) for i in ends]
    if not both:
        raise UsageError(
            "no layers of teacher and student match: "
            f"{_sizes(teachers, ours)} against {_sizes(students, theirs)}",
            hint="choose a student with maps of the teacher's sizes, or losses on logits "
            "(kd, dkd, dist, mse); zskt drops its own with --set options.attention_weight=0",
        )
    return [Pair(one.tap(), two.tap()) for one, two in both]


def _maps(seen: list[Place]) -> dict[tuple[int, ...], Place]:
    """The last output `c h w` of each size (height, width), in the order of those places."""
    maps: dict[tuple[int, ...], Place] = {}
    for place in _outputs(seen):
        if place.axes == MAP and not place.overwritten:
            size = tuple(place.shape[1:])
            maps.pop(size, None)
            maps[size] = place
    return maps


def _hidden(seen: list[Place]) -> list[Place]:
    """The last flat output of each linear layer and what follows it up to the next one.

    The last linear layer is left out: it gives the logits.
    """
    hidden: list[Place | None] = []
    for place in _outputs(seen):
        if len(place.shape) > 1:
            continue
        if isinstance(place.module, nn.Linear):
            hidden.append(None)
        if hidden and not place.overwritten:
            hidden[-1] = place
    return [place for place in hidden[:-1] if place is not None]


def _outputs(seen: list[Place]) -> list[Place]:
    """Outputs after the first weights, without those of dropout: a teacher's features have none."""
    layers = (i for i, place in enumerate(seen) if isinstance(place.module, nn.Linear | _ConvNd))
    return [
        place
        for place in seen[next(layers, len(seen)) :]
        if place.side == "output" and not isinstance(place.module, _DropoutNd)
    ]


def _find(name: str, seen: list[Place], module: nn.Module, who: str = "student") -> Tap:
    path = name.partition(":")[0]
    wanted = name if ":" in name else f"{name}:output"
    there = [place for place in seen if place.path == path]
    for place in there:
        if place.id == wanted and place.overwritten:
            raise UsageError(
                f"the {who} overwrites {name!r} in place, so it cannot be compared",
                hint="replace the in-place operation after it by one that returns a new tensor",
            )
        if place.id == wanted:
            return place.tap()
    known = [path for path, _ in module.named_modules() if path]
    if path in known:
        ids = ", ".join(place.id for place in there)
        raise UsageError(
            f"the {who} has no features of one to three axes at {name!r}",
            hint=f"there are: {ids}" if ids else "a forward pass never gets there",
        )
    near = difflib.get_close_matches(path, known, n=3)
    raise UsageError(
        f"the {who} has no layer {path!r}",
        hint="did you mean " + " or ".join(near) + "?" if near else "known: " + ", ".join(known),
    )


def _alike(pair: Pair) -> bool:
    axis = channel_axis(pair.teacher)
    one, two = (list(tap.shape) for tap in (pair.teacher, pair.student))
    if len(one) != len(two):
        return False
    del one[axis], two[axis]
    return one == two


def _suggest(teachers: list[Place], students: list[Place]) -> str:
    try:
        return "; ".join(str(pair) for pair in _by_themselves(teachers, students))
    except UsageError:
        return "no pair of maps, these nets have no size in common"


def _sizes(seen: list[Place], maps: dict[tuple[int, ...], Place]) -> str:
    if maps:
        return "maps of " + ", ".join("x".join(str(n) for n in size) for size in maps)
    return f"{len(_hidden(seen))} hidden layers without maps"


def _words(tap: Tap) -> str:
    return f"{tap.id.removesuffix(':output')} {tap.shape}"
