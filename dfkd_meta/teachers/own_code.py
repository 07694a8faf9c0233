"""The caller's own code, named ``module:attribute`` on the command line and never by a file."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from dfkd_meta.errors import UsageError


def is_own_code(text: str) -> bool:
    """Whether a text looks like ``package.module:attribute``."""
    module, colon, attribute = text.partition(":")
    names = module.split(".") + attribute.split(".")
    return bool(colon) and all(name.isidentifier() for name in names)


def load_own_code(text: str) -> Callable[..., Any]:
    """Import ``module:attribute``, looking into the current directory too, as uvicorn does.

    Raises UsageError when the text has another form, the import fails or nothing callable is there.
    """
    if not is_own_code(text):
        raise UsageError(f"{text!r} is not module:attribute", hint="e.g. my_models:my_net")
    name, _, attribute = text.partition(":")
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(name)
    except Exception as error:  # whatever the caller's module raises is theirs to read
        raise UsageError(
            f"importing {name!r} failed: {type(error).__name__}: {error}", where=text
        ) from error
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise UsageError(f"the module {name!r} has no callable {attribute!r}", where=text)
    return found  # type: ignore[no-any-return]


def parameters_of(text: str) -> Mapping[str, inspect.Parameter]:
    """The parameters of ``module:attribute`` (none where Python cannot tell). Raises UsageError."""
    try:
        return inspect.signature(load_own_code(text)).parameters
    except ValueError:
        return {}


def call_own_code(text: str, arguments: Mapping[str, Any], *, contract: str) -> Any:
    """Call ``module:attribute`` with the arguments.

    An exception inside it is reported as a UsageError whose hint is ``contract``: what such code is
    called with, and what it returns.
    """
    function = load_own_code(text)
    try:
        return function(**arguments)
    except Exception as error:  # as above: a crash of the caller's code is not ours
        raise UsageError(
            f"calling {text} with {dict(arguments)} failed: {type(error).__name__}: {error}",
            where=text,
            hint=contract,
        ) from error
