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
from dfkd_meta.teachers.taps import version_of
from dfkd_meta.teachers.teacher import Teacher

Side = Literal["input", "output"]
PAIRS = 2  # sample pairs of the affine test
AFFINE_TOLERANCE = 1e-4  # float32 rounding through many layers stays below, ReLU (0.45) far above
ROUNDINGS = 16  # the same for coarser numbers, in roundings of theirs
TF32_ROUNDING = 2.0**-10  # what GPUs may make of a float32
MOST_AXES = 4


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
    """The taps of a teacher, in the order a forward pass reaches them, the last hidden layer late.

    They are ``input``; the output of every convolution and linear layer (before the activation, as
    Lopes et al. 2017 record); the input of every BatchNorm; the input of the last layer (the last
    hidden layer); ``output``, the logits, which stand for the last layer's own output. The last
    layer is the last one called if it has an output for each class, else the last linear one, or
    else the last one. An id is ``<module path>:<side>``, with ``#<call>`` for later calls of the
    same module. There is no tap where none can be: at modules that the pass does not reach, tensors
    without an axis of samples or with more than four others, and tensors that the model overwrites
    in place.

    ``linear_in_input`` is found numerically: an affine f has f(2b - a) = 2 f(b) - f(a), up to the
    rounding of the coarsest numbers on the way (float32, or those of the teacher).
    """
    seen = _watch_pass(teacher)
    last = _last_layer(seen, teacher.outputs.num_classes)
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
    """One forward pass of samples a, b and 2b - a; every place that can be tapped, in order."""
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
    watch.note("", "output", 0, teacher.module, logits)
    return watch.found()


class _Watch:
    """Hooks that note shapes and the affine test of every tensor, and whether it stays as it is."""

    def __init__(self) -> None:
        self._seen: list[tuple[_Seen, Tensor, int]] = []
        self._rounding = 0.0
        self._handles: list[RemovableHandle] = []

    def add(self, path: str, module: nn.Module) -> None:
        calls = 0

        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            value = next((v for v in (*args, *kwargs.values()) if isinstance(v, Tensor)), None)
            self.note(path, "input", calls, module, value)

        def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            nonlocal calls
            self.note(path, "output", calls, module, output)
            calls += 1

        self._handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
        self._handles.append(module.register_forward_hook(after))

    def note(self, path: str, side: Side, call: int, module: nn.Module, value: Any) -> None:
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return
        self._rounding = max(self._rounding, _rounding(value))
        if not path or (len(value) == 3 * PAIRS and 1 < value.ndim <= 1 + MOST_AXES):
            linear = _affine(value, max(AFFINE_TOLERANCE, ROUNDINGS * self._rounding))
            place = _Seen(path, side, call, module, list(value.shape[1:]), linear)
            self._seen.append((place, value, version_of(value)))

    def found(self) -> list[_Seen]:
        """The model's input and output, and between them every tensor that was not overwritten."""
        (first, *_), *between, (final, logits, _) = self._seen
        kept = [
            dataclasses.replace(place, is_output=place.side == "output" and value is logits)
            for place, value, version in between
            if version_of(value) == version
        ]
        return [first, *kept, final]

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()


def _last_layer(seen: Sequence[_Seen], classes: int) -> _Seen | None:
    layers = [
        place
        for place in seen
        if place.side == "input" and isinstance(place.module, (_ConvNd, nn.Linear))
    ]
    if not layers or _outputs(layers[-1].module) == classes:
        return layers[-1] if layers else None
    linear = [place for place in layers if isinstance(place.module, nn.Linear)]
    return (linear or layers)[-1]


def _outputs(layer: nn.Module) -> int:
    outputs = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
    return int(outputs)  # type: ignore[arg-type]


def _tap_id(place: _Seen) -> str:
    return f"{place.path}:{place.side}" + (f"#{place.call}" if place.call else "")


def _axes(place: _Seen) -> list[str]:
    """Axis words without the batch: `f`, `c h w`, `t f` for tokens but `c t` for 1-d layers."""
    one_dimensional = isinstance(place.module, (nn.Conv1d, nn.ConvTranspose1d, nn.BatchNorm1d))
    words = {1: "f", 2: "c t" if one_dimensional else "t f", 3: "c h w", 4: "c d h w"}
    if isinstance(place.module, nn.Linear):
        words.update({3: "h w f", 4: "d h w f"})
    return words[len(place.shape)].split()


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


def _affine(value: Tensor, tolerance: float) -> bool:
    """Whether f(2b - a) = 2 f(b) - f(a) for values `(a b mixed) ...` of three equal blocks."""
    a, b, mixed = value.to(torch.float64).chunk(3)
    gap = (mixed - (2 * b - a)).abs().max()
    return bool(gap <= tolerance * value.abs().max())


def _rounding(value: Tensor) -> float:
    """The relative rounding of a tensor's numbers, as its device may compute them."""
    own = torch.finfo(value.dtype).eps
    return max(own, TF32_ROUNDING) if value.is_cuda else own
