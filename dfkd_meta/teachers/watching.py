"""One seeded forward pass of a network, and every tensor that can be tapped in it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.utils.hooks import RemovableHandle

from dfkd_meta.errors import TeacherError
from dfkd_meta.sidecar.issues import short
from dfkd_meta.sidecar.manifest import InputSpec, Tap
from dfkd_meta.teachers.axes import channel_axis
from dfkd_meta.teachers.taps import first_tensor, version_of
from dfkd_meta.teachers.teacher import device_of

Side = Literal["input", "output"]
FEWEST, MOST = 2, 16  # sample pairs of the affine test: a ReLU must be off for one of them
PROBED = 2**20  # values of all samples, if that leaves FEWEST pairs: 84 x 84 in color have MOST
SHARE = 0.05  # of the channels are affine: fewer ReLUs may happen to be on for all samples
VARIES = 10  # tolerances: a channel that varies by less beside its size is as good as constant
FEWER = 5  # samples of another pass: an axis that is not as long then was not that of samples
AFFINE_TOLERANCE = 1e-4  # float32 rounding through many layers stays below, ReLU (0.45) far above
ROUNDINGS = 16  # the same for coarser numbers, in roundings of theirs
TF32_ROUNDING = 2.0**-10  # what GPUs may make of a float32
MOST_AXES = 4
ALONG_TIME = (
    nn.Conv1d,
    nn.ConvTranspose1d,
    nn.BatchNorm1d,
    nn.AvgPool1d,
    nn.MaxPool1d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveMaxPool1d,
)
WITH_AXES = (_ConvNd, nn.Linear, _BatchNorm, *ALONG_TIME)  # they say which axis has the channels


@dataclass(frozen=True, eq=False)
class Place:
    """A tensor `n ...` that went into or out of a module, at one of its calls.

    ``axes`` names the axes of one sample; ``version`` is that of the tensor when it was seen,
    ``rounding`` the coarsest relative rounding of the pass so far, and ``raw`` how many channels
    the model's input would have in a tensor of so many axes.
    """

    module: nn.Module
    path: str
    side: Side
    call: int
    axes: tuple[str, ...]
    value: Tensor
    version: int
    rounding: float
    raw: int

    @property
    def id(self) -> str:
        """``<module path>:<side>``, with ``#<call>`` for later calls of the same module."""
        return f"{self.path}:{self.side}" + (f"#{self.call}" if self.call else "")

    @property
    def shape(self) -> list[int]:
        """The shape of one sample."""
        return list(self.value.shape[1:])

    @property
    def overwritten(self) -> bool:
        """Whether the model wrote over the tensor later in the pass, so that no tap can keep it."""
        return version_of(self.value) != self.version

    def tap(self, name: str | None = None) -> Tap:
        """The tap that reads here, with its own id or called ``name``.

        ``linear_in_input`` is found numerically: an affine f has f(2b - a) = 2 f(b) - f(a), up to
        the rounding of the coarsest numbers on the way (float32, or those of the model). It is said
        of a tensor too of which only some channels are affine, 5 % or as many as the input has:
        so the input itself passes beside hidden features. Raises TeacherError for a module whose
        name the standard does not allow.
        """
        tolerance = max(AFFINE_TOLERANCE, ROUNDINGS * self.rounding)
        try:
            return Tap(
                id=name or self.id,
                module=self.path,
                side=self.side,
                call=self.call,
                axes=list(self.axes),
                shape=self.shape,
                linear_in_input=self._affine(tolerance),
            )
        except ValidationError as error:
            raise TeacherError(
                f"the standard has no place for the module {short(self.path)}",
                where="the teacher's modules",
                hint="names are up to 200 printable ASCII characters: a factory may rename it",
            ) from error

    def _affine(self, tolerance: float) -> bool:
        """Whether f(2b - a) = 2 f(b) - f(a), of all values `(a b mixed) ...` or of enough channels.

        All of them are judged as one first: sums that cancel in one channel round as large ones do.
        """
        axis = channel_axis(self)
        wide = (
            self.value.double().movedim(1 + axis, -1).reshape(len(self.value), -1, self.shape[axis])
        )
        a, b, mixed = wide.chunk(3)
        gap, size = (part.abs().amax((0, 1)) for part in (mixed - (2 * b - a), wide))
        if gap.max() <= tolerance * size.max():
            return True
        varies = (wide.amax(0) - wide.amin(0)).amax(0) > VARIES * tolerance * size
        affine = int((varies & (gap <= tolerance * size)).sum())
        return affine >= min(self.raw, math.ceil(SHARE * len(size)))


def watch_pass(
    module: nn.Module, inputs: InputSpec, kinds: tuple[type[nn.Module], ...] = (nn.Module,)
) -> list[Place]:
    """Pass samples a, b and 2b - a through a network in the mode it is in; every place, in order.

    The first place is the model's input, the last its output, and between them are the inputs and
    outputs of all submodules of these ``kinds``: those tensors of floats that have an axis of
    samples and one to four others.
    """
    generator = torch.Generator().manual_seed(0)
    pairs = min(MOST, max(FEWEST, PROBED // math.prod(inputs.shape) // 3))
    a, b = torch.randn(2, pairs, *inputs.shape, generator=generator)
    images = torch.cat([a, b, 2 * b - a]).to(device_of(module))
    fewer = {place.id for place in _watched(module, inputs, kinds, images[:FEWER])}
    return [place for place in _watched(module, inputs, kinds, images) if place.id in fewer]


def _watched(
    module: nn.Module, inputs: InputSpec, kinds: tuple[type[nn.Module], ...], images: Tensor
) -> list[Place]:
    """Every place of one pass whose first axis is as long as there are ``images``."""
    watch = _Watch(len(images), inputs)
    for path, part in module.named_modules():
        if path and isinstance(part, kinds):
            watch.add(path, part)
    # A copy: the model may overwrite what it is given.
    watch.note("", "input", 0, module, images.clone(), inputs.axes)
    try:
        with torch.no_grad():
            logits = module(images.clone())
    finally:
        watch.close()
    watch.note("", "output", 0, module, logits)
    return watch.places


class _Watch:
    """Hooks that note every tensor that passes through some modules."""

    def __init__(self, samples: int, inputs: InputSpec) -> None:
        self.samples = samples
        self.inputs = inputs
        self.places: list[Place] = []
        self._axes: dict[tuple[int, ...], tuple[str, ...]] = {}
        self._rounding = 0.0
        self._handles: list[RemovableHandle] = []

    def add(self, path: str, module: nn.Module) -> None:
        calls = 0

        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self.note(path, "input", calls, module, first_tensor(args, kwargs))

        def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            nonlocal calls
            self.note(path, "output", calls, module, output)
            calls += 1

        self._handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
        self._handles.append(module.register_forward_hook(after))

    def note(
        self,
        path: str,
        side: Side,
        call: int,
        module: nn.Module,
        value: Any,
        axes: Sequence[str] | None = None,
    ) -> None:
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return
        self._rounding = max(self._rounding, _rounding(value))
        samples = 1 < value.ndim <= 1 + MOST_AXES and len(value) == self.samples
        if path and (not samples or 0 in value.shape):
            return
        shape = tuple(value.shape[1:])
        words = tuple(axes or self._words(module, shape))
        self._axes[shape] = words
        taken = self.inputs.shape
        raw = math.prod(taken) if len(shape) == 1 else taken[channel_axis(self.inputs)]
        version, rounding = version_of(value), self._rounding
        self.places.append(Place(module, path, side, call, words, value, version, rounding, raw))

    def _words(self, module: nn.Module, shape: tuple[int, ...]) -> Sequence[str]:
        """The axes of a tensor at a module: what has none of its own keeps those of the shape."""
        if not isinstance(module, WITH_AXES) and len(shape) > 1 and shape in self._axes:
            return self._axes[shape]
        return _axes(module, len(shape))

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()


def _axes(module: nn.Module, dimensions: int) -> list[str]:
    """Axis words without the batch: `f`, `c h w`, `t f` for tokens but `c t` for 1-d layers."""
    two = "c t" if isinstance(module, ALONG_TIME) else "t f"
    words = {1: "f", 2: two, 3: "c h w", 4: "c d h w"}
    if isinstance(module, nn.Linear):
        words.update({3: "h w f", 4: "d h w f"})
    return words[dimensions].split()


def _rounding(value: Tensor) -> float:
    """The relative rounding of a tensor's numbers, as its device may compute them."""
    own = torch.finfo(value.dtype).eps
    return max(own, TF32_ROUNDING) if value.is_cuda else own
