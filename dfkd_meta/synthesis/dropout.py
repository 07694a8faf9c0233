"""Dropout masks that stay the same for all steps of a batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from dfkd_meta.errors import MethodError

BY_CHANNEL = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)  # these drop whole channels


@contextmanager
def fixed_dropout(
    module: nn.Module, keep: Mapping[str, float], generator: torch.Generator
) -> Iterator[None]:
    """While open, the named dropout layers drop, each input always the same units.

    One Bernoulli mask per input and layer, drawn when the layer is first reached; what is kept is
    divided by its keep probability, as torch does in training (inverted dropout). The module stays
    in evaluation mode. ``keep``: module path to keep probability in [0, 1]. Raises MethodError when
    a path is no dropout layer of a known kind.
    """
    layers = {path: _dropout_layer(module, path) for path in keep}
    handles = [
        layer.register_forward_hook(_FixedMask(keep[path], generator))
        for path, layer in layers.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _FixedMask:
    """A forward hook: multiplies the output by a mask drawn at its first call."""

    def __init__(self, keep: float, generator: torch.Generator) -> None:
        self.keep = keep
        self.generator = generator
        self.masks: dict[torch.Size, Tensor] = {}

    def __call__(self, layer: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        shape = output.shape
        if isinstance(layer, BY_CHANNEL):
            shape = torch.Size([*shape[:2], *[1] * (len(shape) - 2)])
        if shape not in self.masks:
            kept = torch.rand(shape, generator=self.generator) < self.keep
            self.masks[shape] = (kept / max(self.keep, torch.finfo().tiny)).to(output)
        return output * self.masks[shape]


def _dropout_layer(module: nn.Module, path: str) -> nn.Module:
    layer = dict(module.named_modules()).get(path)
    if isinstance(layer, (nn.Dropout, *BY_CHANNEL)):
        return layer
    found = type(layer).__name__ if isinstance(layer, _DropoutNd) else "no dropout layer"
    raise MethodError(
        f"the sidecar names a dropout layer where the teacher has {found}",
        where=f"module {path!r}",
        hint="use a method without dropout, such as lopes_all_layers",
    )
