"""A second device on a machine that has none: tensors that say ``other:0``, computed on the CPU.

Within :func:`other_device` everything that a GPU refuses is refused: tensors of two devices in one
operation, a generator of the other device, reading memory as numpy. No number and no speed is told
by it, only whether everything is on the device where it belongs, and what a program waits for: it
is ahead of a GPU until something is read back (``read_back``).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only

NAME = "other"
aten = torch.ops.aten
COPIES = {aten.copy_.default, aten._to_copy.default}
# Their indices may be on the CPU while the tensor is not.
INDEXED = {
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
}
# The size of what comes out, or a number, is for the program to know.
READING = {
    aten._local_scalar_dense.default,
    aten._unique2.default,
    aten.bincount.default,
    aten.equal.default,
    aten.masked_select.default,
    aten.nonzero.default,
}
read_back: list[str] = []  # the operations, since a test has last cleared it


@contextmanager
def other_device() -> Iterator[torch.device]:
    """The device, while it can be used: in a process in which no backward pass was before it."""
    _register()
    with _Everywhere():
        yield torch.device(NAME, 0)


class OnOther(Tensor):
    """A tensor of the device; ``held`` has its numbers."""

    held: Tensor

    @staticmethod
    def __new__(cls: type[OnOther], held: Tensor) -> OnOther:
        made: OnOther = Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=torch.device(NAME, 0),
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        copy = self.detach().clone()
        if isinstance(self, torch.nn.Parameter):
            return torch.nn.Parameter(copy, self.requires_grad)
        return copy.requires_grad_(self.requires_grad)

    def tolist(self) -> Any:
        read_back.append("tolist")
        return self.held.tolist()

    def data_ptr(self) -> int:
        return self.held.data_ptr()


class _Everywhere(TorchDispatchMode):
    """So that what makes tensors, and has none among its arguments, is seen as well."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})


def _compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """``func`` on the CPU, after what a device would refuse has been refused."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    here = any(isinstance(tensor, OnOther) for tensor in tensors)
    if here and func not in COPIES:
        _refuse_mixed(func, args, tensors)
    device = kwargs.get("device")
    if func is aten.copy_.default:
        here_after = isinstance(args[0], OnOther)
    else:
        here_after = here if device is None else torch.device(device).type == NAME
    if here_after and kwargs.get("generator") is not None:
        raise RuntimeError(f"{func}: the generator is not of device {NAME}")
    if device is not None and torch.device(device).type == NAME:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    if here and (func in READING or (func in COPIES and not here_after)):
        read_back.append(str(func))
    if here and func in INDEXED and any(_is_mask(index) for index in args[1]):
        read_back.append(f"{func} by a mask")  # how many places it names is looked up first
    inner_args, inner_kwargs = tree_map_only(OnOther, lambda t: t.held, (args, kwargs))
    found = func(*inner_args, **inner_kwargs)
    if not here_after:
        # A tensor that comes to the CPU has memory of its own.
        return found.clone() if here and isinstance(found, Tensor) else found
    return return_and_correct_aliasing(func, args, kwargs, tree_map_only(Tensor, OnOther, found))


def _is_mask(index: Any) -> bool:
    return isinstance(index, Tensor) and index.dtype == torch.bool


def _refuse_mixed(func: Any, args: Any, tensors: list[Tensor]) -> None:
    """Of the CPU, an operation on the device takes single numbers, and indices."""
    indices: list[Any] = []
    if func in INDEXED and isinstance(args[0], OnOther):
        indices = tree_leaves(args[1])
    for tensor in tensors:
        single = tensor.dim() == 0
        if isinstance(tensor, OnOther) or single or any(tensor is index for index in indices):
            continue
        raise RuntimeError(f"{func}: tensors of two devices, {tensor.device} and {NAME}")


@cache
def _register() -> torch.library.Library:
    """Make the device known to torch, once. What the library registers goes when it does."""
    backend_registration._setup_privateuseone_for_python_backend(NAME)
    library = torch.library.Library("aten", "IMPL")

    # Indexing by a list asks for these where no mode is looking.
    def empty_strided(size: Any, stride: Any, *, dtype: Any = None, **_: Any) -> Tensor:
        return OnOther(torch.empty_strided(size, stride, dtype=dtype))

    def copy_from(source: Tensor, target: OnOther, non_blocking: bool = False) -> OnOther:
        target.held.copy_(source)
        return target

    library.impl("empty_strided", empty_strided, "PrivateUse1")
    library.impl("_copy_from", copy_from, "PrivateUse1")
    return library
