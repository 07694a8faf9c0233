"""Building a fresh module from JSON arguments: a built-in architecture, or the caller's own."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import JsonValue, ValidationError, validate_call
from torch import nn
from torch.nn.parameter import is_lazy

from dfkd_meta.errors import TeacherError
from dfkd_meta.teachers.architectures import architectures
from dfkd_meta.teachers.own_code import call_own_code


def build_model(architecture: str, arguments: Mapping[str, JsonValue], *, seed: int) -> nn.Module:
    """Build a module with random weights; the global random state is left as it was.

    Raises UsageError for an unknown architecture (the nearest names are listed) and TeacherError
    for an argument that is missing, unknown, of the wrong type or out of range.
    """
    factory = architectures.get(architecture)
    build = validate_call(config={"strict": True})(factory)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        try:
            return build(**arguments)
        except ValidationError as error:
            raise _bad_argument(architecture, error) from error
        except (
            RuntimeError,
            OverflowError,
            TypeError,
        ) as error:  # torch's words for sizes out of reach
            reason = str(error).splitlines()[0]
            raise TeacherError(f"{architecture} cannot be built: {reason}") from error


def build_skeleton(architecture: str, arguments: Mapping[str, JsonValue]) -> nn.Module:
    """The same module without memory for its weights (device ``meta``): to compare shapes first."""
    with torch.device("meta"):
        return build_model(architecture, arguments, seed=0)


def build_own(
    factory: str, arguments: Mapping[str, JsonValue], *, option: str = "arguments"
) -> nn.Module:
    """What the caller's own ``module:function`` makes of the arguments.

    ``option`` is what the user sets more of them with. Raises UsageError when it cannot be imported
    or fails, TeacherError when it makes no module.
    """
    contract = f"it returns a torch.nn.Module; arguments are given by --set {option}.NAME=VALUE"
    module = call_own_code(factory, arguments, contract=contract)
    if not isinstance(module, nn.Module):
        raise TeacherError(f"{factory} returned {type(module).__name__}, not a torch.nn.Module")
    try:
        module.register_forward_pre_hook(lambda *_: None).remove()
    except RuntimeError as error:
        raise TeacherError(
            f"{factory} returned a module that cannot be watched: {error}",
            hint="return the module as it is before torch.jit.script",
        ) from error
    if any(is_lazy(value) for value in (*module.parameters(), *module.buffers())):
        raise TeacherError(
            f"{factory} returned a module with weights that have no shape yet",
            hint="pass a batch of zeros through it before it is returned",
        )
    return module


def count_parameters(module: nn.Module) -> int:
    """The number of learnable values; buffers such as BatchNorm statistics do not count."""
    return sum(parameter.numel() for parameter in module.parameters())


def _bad_argument(architecture: str, error: ValidationError) -> TeacherError:
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    reason = {
        "unexpected_keyword_argument": "there is no such argument",
        "missing_argument": "it is required",
    }.get(first["type"], first["msg"])
    return TeacherError(
        f"{architecture} cannot be built: argument {name!r}: {reason}",
        where=f"teacher.arguments.{name}",
        hint="every architecture takes num_classes, shape and width",
    )
