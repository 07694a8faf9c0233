"""Architectures of the timm library with safetensors weights."""

from __future__ import annotations

from torch import nn

from dfkd_meta.errors import MissingExtraError, TeacherError
from dfkd_meta.teachers.sources import SourceRequest, sources
from dfkd_meta.teachers.weights import load_weights, read_weights

# These arguments of create_model would make it fetch or unpickle other files.
REFUSED = {
    "pretrained",
    "checkpoint_path",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "cache_dir",
    "pretrained_strict",
    "features_only",
}


@sources.register("timm")
def open_timm(request: SourceRequest) -> nn.Module:
    """Create the architecture without weights and load the verified file into it."""
    try:
        import timm
    except ImportError as error:
        raise MissingExtraError("timm", "timm") from error
    if not timm.is_model(request.architecture):
        raise TeacherError(f"timm has no model {request.architecture!r}", where=request.where)
    refused = sorted(REFUSED & set(request.arguments))
    if refused:
        raise TeacherError(f"timm argument not allowed: {', '.join(refused)}", where=request.where)
    if request.weights is None:
        raise TeacherError("a timm teacher needs one safetensors file", where=request.where)
    try:
        module: nn.Module = timm.create_model(request.architecture, **request.arguments)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise TeacherError(
            f"timm cannot create {request.architecture}: {error}", where=request.where
        ) from error
    load_weights(module, read_weights(request.weights), where=request.where)
    return module
