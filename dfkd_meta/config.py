"""Configurations: frozen pydantic models filled from defaults, a TOML file and ``key=value``."""

from __future__ import annotations

import copy
import json
import tomllib
from collections.abc import Mapping, Sequence
from datetime import date, time
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import to_jsonable_python

from dfkd_meta.errors import UsageError


class Config(BaseModel):
    """Base of every configuration: immutable; an unknown key, NaN and infinity are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


C = TypeVar("C", bound=Config)


def load_config(
    model: type[C],
    *,
    file: Path | None = None,
    assignments: Sequence[str] = (),
    override: Mapping[str, Any] | None = None,
) -> C:
    """Build ``model`` from its defaults, a TOML file, ``a.b=value`` assignments, then ``override``.

    Tables are merged key by key, so that a file or an assignment changes only what it names.

    Values of assignments are read as TOML (``0.5``, ``true``, ``[1, 2]``); what is not TOML is a
    string. Raises UsageError that names the key, what it holds and what was expected.
    """
    values = _defaults(model)
    if file is not None:
        _merge(values, read_toml(file, "configuration"))
    for assignment in assignments:
        _merge(values, _parse_assignment(assignment))
    _merge(values, override or {})
    return make_config(model, values)


def make_config(model: type[C], values: Mapping[str, Any], *, prefix: str = "") -> C:
    """Validate a mapping against a configuration model; ``prefix`` is where users type its keys.

    Raises UsageError.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        key = prefix + ".".join(str(part) for part in first["loc"])
        if first["type"] == "value_error":  # of a rule of ours, which says it all
            text = first["msg"].removeprefix("Value error, ")
            raise UsageError(f"option {key!r}: {text}" if key else text) from None
        if first["type"] == "missing":
            raise UsageError(f"option {key!r} is missing", hint=f"--set {key}=...") from None
        if first["type"] == "extra_forbidden":
            raise UsageError(
                f"there is no option {key!r}",
                hint="known: " + ", ".join(sorted(model_at(model, first["loc"][:-1]).model_fields)),
            ) from None
        raise UsageError(f"option {key!r}: {first['msg']}, got {first['input']!r}") from None


def model_at(model: type[BaseModel], place: tuple[int | str, ...]) -> type[BaseModel]:
    """The model within ``model`` that the keys of ``place`` lead to."""
    for part in place:
        field = model.model_fields.get(str(part))
        model = _model_in(field.annotation) or model if field else model
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)


def described(
    model: type[Config], prefix: str = "", values: Config | None = None
) -> list[dict[str, Any]]:
    """Every option as ``option`` (dotted key), ``type`` and ``default`` (as an assignment has it).

    A default that is empty: the option must be given. ``values`` hold the defaults of a
    configuration inside another, which may differ from its own.
    """
    rows: list[dict[str, Any]] = []
    for name, field in model.model_fields.items():
        if values is None:
            inner = field.get_default(call_default_factory=True)
        else:
            inner = getattr(values, name)
        if isinstance(inner, Config):
            rows += described(type(inner), f"{prefix}{name}.", inner)
            continue
        default = "" if field.is_required() else json.dumps(to_jsonable_python(inner))
        rows.append({"option": prefix + name, "type": _words(field.annotation), "default": default})
    return rows


def _words(kind: Any) -> str:
    """A type as people write it, without constraints: ``float | null``, ``list[int]``."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _words(parts[0])
    if origin is Literal:
        return " | ".join(json.dumps(part) for part in parts)
    if origin in (Union, UnionType):
        return " | ".join(_words(part) for part in parts)
    if origin is not None:
        inner = ", ".join("..." if part is ... else _words(part) for part in parts)
        return f"{origin.__name__}[{inner}]"
    return "null" if kind is NoneType else getattr(kind, "__name__", str(kind))


def _defaults(model: type[Config]) -> dict[str, Any]:
    """The default of every option that has one; configurations inside as plain tables."""
    given = {
        name: field.get_default(call_default_factory=True)
        for name, field in model.model_fields.items()
        if not field.is_required()
    }
    return {
        name: value.model_dump() if isinstance(value, Config) else copy.deepcopy(value)
        for name, value in given.items()
    }


def read_toml(file: Path, what: str) -> dict[str, Any]:
    """The tables of a TOML file, ``what`` the user calls it. Raises UsageError."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read the {what}: {error.strerror}", where=str(file)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"the {what} is not TOML: {error}", where=str(file)) from error


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted keys, such as an assignment takes."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        nested = isinstance(value, Mapping)
        flat.update(flatten(value, f"{prefix}{key}.") if nested else {prefix + key: value})
    return flat


def _parse_assignment(text: str) -> dict[str, Any]:
    key, sign, value = text.partition("=")
    if not sign or not key.strip():
        raise UsageError(f"{text!r} is not key=value", hint="e.g. --set temperature=4")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        parsed = value
    if isinstance(parsed, (date, time)):  # no option is one; texts may look like one
        parsed = value
    *tables, name = key.strip().split(".")
    nested: dict[str, Any] = {name: parsed}
    for table in reversed(tables):
        nested = {table: nested}
    return nested


def _merge(into: dict[str, Any], new: Mapping[str, Any]) -> None:
    for key, value in new.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value
