"""Taps: what passes through named places of a teacher, kept while a context manager is open."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from dfkd_meta.errors import TeacherError
from dfkd_meta.sidecar.manifest import Tap
from dfkd_meta.teachers.axes import channel_axis


class ActivationTap:
    """Keeps the tapped tensors of the latest forward pass, attached to the graph.

    ``with ActivationTap(module, taps) as tap: module(x); tap.activations["conv1:output"]``. The
    hooks return None, so the pass itself is unchanged, and they are gone afterwards, also when the
    pass fails. Raises TeacherError when a tap names no module, is not reached by the pass, or when
    the model overwrites a tapped tensor in place.
    """

    def __init__(self, module: nn.Module, taps: Sequence[Tap]) -> None:
        self.module = module
        self.taps = list(taps)
        self.activations: dict[str, Tensor] = {}
        self._modules = dict(module.named_modules())
        self._versions: dict[str, int] = {}
        self._calls: dict[tuple[str, str], int] = {}
        self._handles: list[RemovableHandle] = []
        for tap in self.taps:
            if tap.module not in self._modules:
                near = difflib.get_close_matches(tap.module, self._modules, n=3)
                raise TeacherError(
                    f"the teacher has no module {tap.module!r}",
                    where=f"tap {tap.id}",
                    hint="did you mean " + " or ".join(near) + "?" if near else None,
                )

    def __enter__(self) -> ActivationTap:
        self._handles.append(self.module.register_forward_pre_hook(self._begin))
        for path, side in dict.fromkeys((tap.module, tap.side) for tap in self.taps):
            self._watch(path, side)
        self._handles.append(self.module.register_forward_hook(self._finish))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _watch(self, path: str, side: str) -> None:
        module = self._modules[path]
        here = [tap for tap in self.taps if (tap.module, tap.side) == (path, side)]

        def keep(value: Any) -> None:
            call = self._calls.get((path, side), 0)
            self._calls[path, side] = call + 1
            for tap in here:
                if tap.call == call:
                    self._keep(tap, value)

        def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            keep(first_tensor(args, kwargs))

        def after(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            keep(output)

        if side == "input":
            handle = module.register_forward_pre_hook(before, with_kwargs=True)
        else:
            handle = module.register_forward_hook(after)
        self._handles.append(handle)

    def _keep(self, tap: Tap, value: Any) -> None:
        if not isinstance(value, Tensor):
            raise TeacherError(
                f"the {tap.side} is {type(value).__name__}, not a tensor", where=f"tap {tap.id}"
            )
        self.activations[tap.id] = value
        self._versions[tap.id] = version_of(value)

    def _begin(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self.activations = {}
        self._calls.clear()

    def _finish(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        for tap in self.taps:
            if tap.id not in self.activations:
                raise TeacherError(
                    f"a forward pass never reaches module {tap.module!r} (call {tap.call})",
                    where=f"tap {tap.id}",
                )
            if version_of(self.activations[tap.id]) != self._versions[tap.id]:
                hint = "replace the in-place operation after it by one that returns a new tensor"
                if tap.is_model_input:
                    hint = "a factory may wrap the model in a module that passes on x.clone()"
                raise TeacherError(
                    "the model overwrites this tensor in place, so it cannot be tapped",
                    where=f"tap {tap.id}",
                    hint=hint,
                )


def observations(activation: Tensor, tap: Tap, reduction: str | None) -> Tensor:
    """Turn a tapped tensor `n ...` into `n p f`: p observations per sample (a view if possible).

    ``unit``: `n 1 f`, every element a feature. ``channel``: `n positions c`, as BatchNorm counts.
    ``pooled``: `n 1 c`, the mean over positions. See ``channel_axis`` for which axis holds the
    channels. Raises TeacherError for a tensor whose shape is not the tap's, ValueError for another
    reduction.
    """
    if list(activation.shape[1:]) != list(tap.shape):
        raise TeacherError(
            f"the tensor has shape {list(activation.shape[1:])}, the tap says {tap.shape}",
            where=f"tap {tap.id}",
        )
    if reduction not in ("unit", "channel", "pooled"):
        raise ValueError(f"reduction {reduction!r}")
    if reduction == "unit" or activation.ndim == 2:
        return activation.flatten(1).unsqueeze(1)
    by_channel = activation.movedim(1 + channel_axis(tap), -1).flatten(1, -2)  # n positions c
    return by_channel if reduction == "channel" else by_channel.mean(1, keepdim=True)


def reduce_features(activation: Tensor, tap: Tap, reduction: str) -> Tensor:
    """The ``observations`` in one list, `(n p) f`: those of one sample in adjacent rows."""
    return observations(activation, tap, reduction).flatten(0, 1)


def first_tensor(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """What a module is given: the first tensor among its arguments."""
    return next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)


def version_of(tensor: Tensor) -> int:
    """How often a tensor was written to; 0 for inference tensors, which keep no count."""
    return 0 if tensor.is_inference() else tensor._version
