"""Architectures of this package: always safe, nothing else to install."""

from __future__ import annotations

from torch import nn

from dfkd_meta.errors import TeacherError
from dfkd_meta.teachers.build import build_model, build_skeleton
from dfkd_meta.teachers.sources import SourceRequest, sources
from dfkd_meta.teachers.weights import check_weights, load_weights, read_weights


@sources.register("builtin")
def open_builtin(request: SourceRequest) -> nn.Module:
    """Build and load; shapes are compared before any memory for the module is taken."""
    if request.weights is None:
        raise TeacherError(
            f"{request.architecture} needs one safetensors weight file", where=request.where
        )
    tensors = read_weights(request.weights)
    skeleton = build_skeleton(request.architecture, request.arguments)
    check_weights(skeleton, tensors, where=request.where)
    module = build_model(request.architecture, request.arguments, seed=0)
    load_weights(module, tensors, where=request.where)
    return module
