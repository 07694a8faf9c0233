"""The teacher: a frozen module together with what its inputs and outputs mean."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import JsonValue
from torch import Tensor, nn

from dfkd_meta.errors import TeacherError
from dfkd_meta.sidecar.manifest import InputSpec, OutputSpec

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Teacher:
    """A module in evaluation mode without gradients on its weights.

    ``source``, ``architecture`` and ``arguments`` say how to build it again; ``weights`` is the
    safetensors file it was loaded from, if it was, and ``files`` is all it takes to open it again.
    ``factory`` is the caller's own ``module:function`` that built it, if one did.
    """

    module: nn.Module
    source: str
    architecture: str
    arguments: dict[str, JsonValue]
    inputs: InputSpec
    outputs: OutputSpec
    weights: Path | None = None
    files: tuple[Path, ...] = ()
    factory: str | None = None

    def __call__(self, images: Tensor) -> Tensor:
        """Model-normalized images `n ...` -> logits `n classes`; gradients flow to the images."""
        logits: Tensor = self.module(images)
        return logits

    @property
    def home(self) -> Path | None:
        """The folder it was opened from: the real path of that which holds all of ``files``."""
        folders = {path.parent.resolve() for path in self.files}
        return folders.pop() if len(folders) == 1 else None

    @property
    def device(self) -> torch.device:
        """Where the weights are (CPU for a module without any)."""
        return device_of(self.module)

    def to(self, device: torch.device | str) -> Teacher:
        """The same teacher on a device; as in torch the module itself is moved."""
        return dataclasses.replace(self, module=self.module.to(device))


def device_of(module: nn.Module) -> torch.device:
    """Where the weights are (CPU for a module without any)."""
    return next((p.device for p in module.parameters()), torch.device("cpu"))


def channels_last(module: M) -> M:
    """Keep the weights of 2-d convolutions channels-last in memory, and with them all maps.

    Values stay the same. On CPUs poolings and gradients to the input take half the time: LeNet-5
    forward and back to its input 45 ms for 65, a small BatchNorm network 67 ms for 119 (256
    images, one core).
    """
    return _in_memory(module, torch.channels_last)


def suited_layout(module: M, shape: Sequence[int]) -> M:
    """``channels_last``, but for a network that cannot do with it: samples are of ``shape``.

    One that flattens its maps by ``view`` fails. It keeps the layout that torch has by default, and
    a hook brings its inputs into it, whose layout would pass on to its maps.
    """
    training = module.training
    channels_last(module).eval()
    try:
        with torch.no_grad():
            module(torch.zeros(2, *shape, device=device_of(module)))
    except RuntimeError:
        _in_memory(module, torch.contiguous_format)
        module.register_forward_pre_hook(_contiguous_inputs)
    return module.train(training)


def _contiguous_inputs(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    # A clone: of one channel, contiguous() takes either layout for the right one.
    return tuple(
        value.clone(memory_format=torch.contiguous_format) if isinstance(value, Tensor) else value
        for value in args
    )


def _in_memory(module: M, layout: torch.memory_format) -> M:
    for part in module.modules():
        if isinstance(part, (nn.Conv2d, nn.ConvTranspose2d)):  # a 3-d weight has no such format
            part.to(memory_format=layout)  # type: ignore[call-overload]
    return module


def freeze(module: M) -> M:
    """Put a module into evaluation mode, without gradients and without in-place activations.

    An in-place ReLU overwrites the tensor a tap has just kept, so the flag is switched off.
    """
    for part in module.modules():
        if isinstance(getattr(part, "inplace", None), bool):
            part.inplace = False  # type: ignore[assignment]
    return module.eval().requires_grad_(False)


def probe(module: nn.Module, inputs: InputSpec, *, where: str) -> int:
    """Run two all-zero samples through a module and return the number of classes.

    Raises TeacherError when it fails on the stated shape or does not return finite logits `n c`
    of two classes or more (values that are positive and sum to 1 are probabilities). In evaluation
    mode one sample has to do as well: the last batch of a data set may hold no more.
    """
    logits = _try(module, inputs, 2, where)
    if logits.shape[1] < 2:
        raise TeacherError(
            f"the model must return logits n c of two classes or more, got c = {logits.shape[1]}",
            where=where,
            hint="of one logit z, for yes or no, a factory may make the two logits 0 and z",
        )
    if not torch.isfinite(logits).all():
        raise TeacherError("the model returns NaN or infinity for an all-zero input", where=where)
    if (logits >= 0).all() and torch.allclose(logits.sum(1), logits.new_ones(2), atol=1e-4):
        raise TeacherError(
            "the model returns probabilities, not logits",
            where=where,
            hint="leave its last softmax out: a factory may return the part before it",
        )
    if not module.training:  # there BatchNorm needs two
        _try(module, inputs, 1, where)
    return logits.shape[1]


def _try(module: nn.Module, inputs: InputSpec, samples: int, where: str) -> Tensor:
    """The logits of so many all-zero samples. Raises TeacherError."""
    device = device_of(module)
    alone = "a last batch may hold one sample; squeeze() without axes loses it: use flatten(1)"
    try:
        with torch.no_grad():
            logits = module(torch.zeros(samples, *inputs.shape, device=device))
    except Exception as error:  # the model may be the caller's own code
        reason = (str(error) or type(error).__name__).splitlines()[0]
        coarse = {p.dtype for p in module.parameters()} - {torch.float32}
        few = "a single input" if samples == 1 else "inputs"
        hint = alone if samples == 1 else None
        if coarse:
            hint = (
                "inputs are float32, and some weights are not: a factory may return module.float()"
            )
        raise TeacherError(
            f"the model fails on {few} of shape {list(inputs.shape)}: {reason}",
            where=where,
            hint=hint,
        ) from error
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != samples:
        got = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise TeacherError(
            f"the model must return logits n c, got {got} for n = {samples}",
            where=where,
            hint=alone if samples == 1 else "a factory may wrap it in a module that picks them out",
        )
    return logits
