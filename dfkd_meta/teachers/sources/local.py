"""The caller's own factory or class (``module:factory``) with safetensors weights."""

from __future__ import annotations

from torch import nn

from dfkd_meta.errors import TeacherError
from dfkd_meta.teachers.build import build_own
from dfkd_meta.teachers.sources import SourceRequest, sources
from dfkd_meta.teachers.weights import load_weights, read_weights


@sources.register("local")
@sources.register("hub_mixin")
def open_local(request: SourceRequest) -> nn.Module:
    """Call the factory with the arguments and load the weights, when there are any.

    ``hub_mixin`` differs in where the arguments were found only: the class is the caller's.
    """
    if request.factory is None:
        raise TeacherError(
            f"the model {request.architecture!r} is built by code that a file cannot bring along",
            where=request.where,
            hint="name code of yours that builds it: --factory module:function",
        )
    if request.files and request.weights is None:
        raise TeacherError(
            f"one safetensors file is needed, there are {len(request.files)} files",
            where=request.where,
            hint="save all weights in one file, and export again",
        )
    module = build_own(request.factory, request.arguments)
    if request.weights is not None:
        load_weights(module, read_weights(request.weights), where=request.where)
    return module
