"""The JSON Schema (2020-12) of the manifest, generated from the models and the table of kinds.

It says what a schema language can say: types, ranges, required fields, and the roles and
parameters of each kind. What needs tensors or two distant fields is the validator's part.
"""

from __future__ import annotations

from typing import Any

from dfkd_meta.sidecar.json_text import dump_json
from dfkd_meta.sidecar.kinds import KINDS, Kind, Param
from dfkd_meta.sidecar.manifest import Manifest

SCHEMA_ID = "https://dfkd-meta.github.io/schema/v1.0/dfkd_meta.schema.json"
WEIGHT_FILE = r"^[A-Za-z0-9_][A-Za-z0-9._-]*\.(safetensors|json)$"
Schema = dict[str, Any]


def generate_schema() -> bytes:
    """The schema as canonical JSON."""
    schema = _without_prose(Manifest.model_json_schema(mode="validation"))
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["$id"] = SCHEMA_ID
    schema["title"] = "dfkd-meta sidecar manifest, format 1.0"
    schema["required"] = sorted({*schema["required"], "format", "format_version"})
    blocks = schema["$defs"]
    blocks["StatisticRecord"]["allOf"] = [_scope_rule()] + [_kind_rule(k) for k in KINDS.values()]
    blocks["Privacy"]["allOf"] = [_mechanism_rule()]
    blocks["WeightFile"]["properties"]["path"]["pattern"] = WEIGHT_FILE
    schema["properties"]["extensions"]["propertyNames"] = {"pattern": "^x-"}
    return dump_json(schema)


def _without_prose(schema: Any) -> Any:
    """Titles and docstrings left out: rewording a comment must not change a frozen schema."""
    if isinstance(schema, list):
        return [_without_prose(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept: Schema = {}
    for name, value in schema.items():
        if name in ("properties", "$defs"):  # here names are the manifest's own
            kept[name] = {field: _without_prose(rule) for field, rule in value.items()}
        elif name not in ("title", "description"):
            kept[name] = _without_prose(value)
    return kept


def _scope_rule() -> Schema:
    return {
        "if": {"properties": {"scope": {"const": "per_class"}}, "required": ["scope"]},
        "then": {
            "properties": {"classes": {"type": "array", "minItems": 1, "uniqueItems": True}},
            "required": ["classes"],
        },
        "else": {"properties": {"classes": {"type": "null"}}},
    }


def _mechanism_rule() -> Schema:
    return {
        "if": {"properties": {"mechanism": {"const": "gaussian"}}, "required": ["mechanism"]},
        "then": {
            "properties": {
                "clip_bound": {"type": "number"},
                "covers": {"minItems": 1},
                "delta": {"type": "number"},
                "epsilon": {"type": "number"},
            },
            "required": ["clip_bound", "covers", "delta", "epsilon"],
        },
        "else": {
            "properties": {
                "covers": {"maxItems": 0},
                "delta": {"type": "null"},
                "epsilon": {"type": "null"},
            }
        },
    }


def _kind_rule(kind: Kind) -> Schema:
    """What a record of this kind must hold, if it is of the version known here."""
    stated = {"kind": {"const": kind.name}, "kind_version": {"const": kind.version}}
    properties: Schema = {"scope": {"enum": list(kind.scopes)}, "tensors": _roles_rule(kind)}
    required = ["tensors"]
    if kind.taps is not None:
        properties["taps"] = {"minItems": kind.taps, "maxItems": kind.taps}
    elif kind.has_features:
        properties["taps"] = {"minItems": 1}
    if kind.taps or kind.has_features:
        required.append("taps")
    if kind.has_features:
        properties["reduction"] = {"enum": list(kind.reductions)}
        required.append("reduction")
    if kind.needs_count:
        properties["count"] = {"type": "array", "minItems": 1}
        required.append("count")
    if kind.params:
        params = {name: _param_rule(rule) for name, rule in kind.params.items()}
        properties["params"] = {"properties": params, "required": sorted(params)}
        required.append("params")
    return {
        "if": {"properties": stated, "required": ["kind"]},
        "then": {"properties": properties, "required": sorted(required)},
    }


def _roles_rule(kind: Kind) -> Schema:
    axes = {
        name: {"properties": {"axes": {"const": role.axes}}} for name, role in kind.roles.items()
    }
    sets = [{"required": sorted(wanted)} for wanted in kind.alternatives]
    return {"properties": axes, "anyOf": sets}


def _param_rule(rule: Param) -> Schema:
    if rule.choices:
        return {"enum": list(rule.choices)}
    if rule.names:
        return {"type": "array", "items": {"type": "string", "minLength": 1}}
    schema: Schema = {"type": "number"}
    if rule.above is not None:
        schema["exclusiveMinimum"] = rule.above
    if rule.most is not None:
        schema["maximum"] = rule.most
    return schema
