"""Which places of a teacher are worth recording, found by one seeded forward pass."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.utils.hooks import RemovableHandle

from dfkd_meta.errors import TeacherError
from dfkd_meta.sidecar.manifest import Tap
from dfkd_meta.teachers.teacher import Teacher

Side = Literal["input", "output"]
PAIRS = 2  # sample pairs of the affine test
AFFINE_TOLERANCE = 1e-4  # float32 rounding through many layers stays below, ReLU far above


@dataclass(frozen=True)
class _Seen:
    path: str
    side: Side
    call: int
    module: nn.Module
    shape: list[int]
    linear: bool
    is_output: bool = False


def default_taps(teacher: Teacher) -> list[Tap]:
    """The taps of a teacher, in the order a forward pass reaches them.

    They are ``input``; the output of every convolution and linear layer (before the activation, as
    Lopes et al. 2017 record); the input of every BatchNorm; the input of the last such layer (the
    last hidden layer); ``output``, the logits, which stand for the last layer's own output. An id
    is ``<module path>:<side>``, with ``#<call>`` for later calls of the same module. Modules that
    the pass does not reach get no tap.

    ``linear_in_input`` is found numerically: an affine f has f(2b - a) = 2 f(b) - f(a).
    """
    seen = _watch_pass(teacher)
    last = _last_layer(seen)
    first, final = seen[0], seen[-1]
    taps = [_tap("input", first, list(teacher.inputs.axes))]
    for place in seen[1:-1]:
        layer = isinstance(place.module, (_ConvNd, nn.Linear))
        wanted = "output" if layer else "input"
        if place.side == wanted and not place.is_output:
            taps.append(_tap(_tap_id(place), place, _axes(place)))
    if last is not None:
        taps.append(_tap(_tap_id(last), last, _axes(last)))
    return [*taps, _tap("output", final, ["f"])]


def last_hidden_tap(taps: Sequence[Tap]) -> Tap:
    """The last hidden layer among taps in forward order: the last input of a module.

    Raises TeacherError when there is none.
    """
    for tap in reversed(taps):
        if tap.side == "input" and tap.module:
            return tap
    raise TeacherError("no tap is the input of a layer, so there is no last hidden layer")


def _watch_pass(teacher: Teacher) -> list[_Seen]:
    """One forward pass of samples a, b and 2b - a; every place of interest in order, no tensors."""
    watch = _Watch()
    for path, module in teacher.module.named_modules():
        if path and isinstance(module, (_ConvNd, nn.Linear, _BatchNorm)):
            watch.add(path, module)
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, PAIRS, *teacher.inputs.shape, generator=generator)
    images = torch.cat([a, b, 2 * b - a]).to(teacher.device)
    watch.note("", "input", 0, teacher.module, images)
    try:
        with torch.no_grad():
            logits = teacher(images)
    finally:
        watch.close()
    if watch.seen[-1].side == "output" and watch.latest is logits:
        watch.seen[-1] = dataclasses.replace(watch.seen[-1], is_output=True)
    watch.note("", "output", 0, teacher.module, logits)
    return watch.seen


class _Watch:
    """Hooks that note shapes and the affine test, and keep no tensor but the latest."""

    def __init__(self) -> None:
        self.seen: list[_Seen] = []
        self.latest: Tensor | None = None
        self._handles: list[RemovableHandle] = []

    def add(self, path: str, module: nn.Module) -> None:
        calls = 0

        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            value = next(iter((*args, *kwargs.values())), None)
            self.note(path, "input", calls, module, value)

        def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            nonlocal calls
            self.note(path, "output", calls, module, output)
            calls += 1

        self._handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
        self._handles.append(module.register_forward_hook(after))

    def note(self, path: str, side: Side, call: int, module: nn.Module, value: Any) -> None:
        if isinstance(value, Tensor):
            self.latest = value
            shape = list(value.shape[1:])
            self.seen.append(_Seen(path, side, call, module, shape, _affine(value)))

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()


def _last_layer(seen: Sequence[_Seen]) -> _Seen | None:
    layers = [
        place
        for place in seen
        if place.side == "input" and isinstance(place.module, (_ConvNd, nn.Linear))
    ]
    linear = [place for place in layers if isinstance(place.module, nn.Linear)]
    candidates = linear or layers
    return candidates[-1] if candidates else None


def _tap_id(place: _Seen) -> str:
    return f"{place.path}:{place.side}" + (f"#{place.call}" if place.call else "")


def _axes(place: _Seen) -> list[str]:
    """Axis words without the batch: `f`, `c h w`, `t f` for tokens but `c t` for 1-d layers."""
    one_dimensional = isinstance(place.module, (nn.Conv1d, nn.ConvTranspose1d, nn.BatchNorm1d))
    words = {1: "f", 2: "c t" if one_dimensional else "t f", 3: "c h w", 4: "c d h w"}
    if isinstance(place.module, nn.Linear):
        words.update({3: "h w f", 4: "d h w f"})
    axes = words.get(len(place.shape))
    if axes is None:
        raise TeacherError(f"a tensor of shape {place.shape} cannot be tapped")
    return axes.split()


def _tap(tap_id: str, place: _Seen, axes: list[str]) -> Tap:
    return Tap(
        id=tap_id,
        module=place.path,
        side=place.side,
        call=place.call,
        axes=axes,
        shape=place.shape,
        linear_in_input=place.linear,
    )


def _affine(value: Tensor) -> bool:
    """Whether f(2b - a) = 2 f(b) - f(a) for values `(a b mixed) ...` of three equal blocks."""
    if len(value) != 3 * PAIRS:
        return False  # the model regroups samples; nothing can be said
    a, b, mixed = value.to(torch.float64).chunk(3)
    gap = (mixed - (2 * b - a)).abs().max()
    return bool(gap <= AFFINE_TOLERANCE * value.abs().max())
