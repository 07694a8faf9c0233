"""From the bytes of ``dfkd_meta.json`` to a Manifest, noting every breach of the schema."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ValidationError

from dfkd_meta.sidecar import manifest as limits
from dfkd_meta.sidecar.issues import ValidationReport, pointer, short
from dfkd_meta.sidecar.json_text import JsonError, parse_json, unsorted_objects
from dfkd_meta.sidecar.manifest import FORMAT, FORMAT_VERSION, Manifest, StatisticRecord, Tap
from dfkd_meta.sidecar.migrations import is_outdated, migrate, stated_version

MAJOR, MINOR = map(int, FORMAT_VERSION.split("."))
VERSION = re.compile(r"(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})", re.ASCII)

# pydantic's error types by the family of rule that they break; all others are wrong types.
FAMILIES = {
    "missing": "DM120",
    "literal_error": "DM122",
    "greater_than": "DM123",
    "greater_than_equal": "DM123",
    "less_than": "DM123",
    "less_than_equal": "DM123",
    "finite_number": "DM123",
    "string_pattern_mismatch": "DM124",
    "string_too_short": "DM124",
    "string_too_long": "DM124",
    "too_short": "DM125",
    "too_long": "DM125",
}


def parse_document(data: bytes, report: ValidationReport) -> dict[str, Any] | None:
    """The JSON object in ``data``, migrated to the current version; None when it is refused."""
    try:
        document = parse_json(data)
    except JsonError as error:
        report.add(error.code, "", error.message)
        return None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        report.add(
            "DM108", "/format" if isinstance(document, dict) else "", "not a dfkd-meta manifest"
        )
        return None
    if not _readable(document, report):
        return None
    unsorted = next(unsorted_objects(document), None)
    if unsorted is not None:
        report.add("DM131", unsorted, "the keys are not sorted, here and maybe elsewhere")
    return migrate(document)


def parse_manifest(data: bytes, report: ValidationReport) -> Manifest | None:
    """The manifest in ``data``; None when the schema is broken (every breach is in ``report``)."""
    document = parse_document(data, report)
    if document is None or not _within_limits(document, report):
        return None
    manifest = _build(document, report)
    if manifest is not None:
        for path, name in _unknown_fields(manifest, ""):
            if report.cut:
                break
            report.add("DM130", path + pointer(name), f"the field {short(name)} is unknown")
    return manifest


def _readable(document: dict[str, Any], report: ValidationReport) -> bool:
    """Whether this reader may read on: its own major version, or one that it can migrate."""
    stated = stated_version(document)
    path = "/spec_version" if "format_version" not in document and stated else "/format_version"
    match = VERSION.fullmatch(stated) if isinstance(stated, str) else None
    if match is None:
        report.add("DM109", path, f"the version is {short(stated)}")
        return False
    major, minor = int(match[1]), int(match[2])
    if major > MAJOR:
        report.add("DM110", path, f"format {stated} is newer than {MAJOR}.{MINOR}, known here")
    elif is_outdated(document):
        report.add("DM112", path, f"format {stated} was read as {MAJOR}.{MINOR}")
        return True
    elif major < MAJOR:
        report.add("DM113", path, f"there is no migration from format {stated}")
    elif "format_version" not in document:
        report.add("DM109", path, f"format {stated} says so in format_version")
        return False
    elif minor > MINOR:
        report.add("DM111", path, f"format {stated} is newer than {MAJOR}.{MINOR}, known here")
    return major == MAJOR


def _within_limits(document: dict[str, Any], report: ValidationReport) -> bool:
    """Count entries before the models see them, so that a flood is never validated one by one."""
    teacher, privacy = _object(document.get("teacher")), _object(document.get("privacy"))
    sized = [
        ("/taps", document.get("taps"), limits.MAX_TAPS),
        ("/statistics", document.get("statistics"), limits.MAX_RECORDS),
        ("/teacher/files", teacher.get("files"), limits.MAX_TEACHER_FILES),
        ("/privacy/tracing_strength", privacy.get("tracing_strength"), limits.MAX_RECORDS),
        ("/extensions", document.get("extensions"), limits.MAX_ENTRIES),
    ]
    records = document.get("statistics")
    listed = records if isinstance(records, list) and len(records) <= limits.MAX_RECORDS else []
    for number, record in enumerate(listed):
        tensors = _object(record).get("tensors")
        sized.append((pointer("statistics", number, "tensors"), tensors, limits.MAX_ROLES))
    good = True
    for path, value, most in sized:
        if isinstance(value, list | dict) and len(value) > most:
            report.add("DM107", path, f"{len(value):,} entries; at most {most:,} are allowed")
            good = False
    return good


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _build(document: dict[str, Any], report: ValidationReport) -> Manifest | None:
    """Validate taps and records one by one (so that the findings stay bounded), then the whole."""
    before = len(report.errors)
    models: list[tuple[str, type[BaseModel]]] = [("taps", Tap), ("statistics", StatisticRecord)]
    rest = dict(document)
    for name, model in models:
        items = document.get(name)
        if isinstance(items, list):
            rest[name] = []
            for number, item in enumerate(items):
                if not report.full:
                    _note(model, item, report, name, number)
    _note(Manifest, rest, report)
    if len(report.errors) > before:
        return None
    return Manifest.model_validate(document)


def _note(model: type[BaseModel], value: Any, report: ValidationReport, *path: str | int) -> None:
    try:
        model.model_validate(value)
    except ValidationError as error:
        for found in error.errors(include_url=False, include_context=False):
            parts = found["loc"]
            # pydantic marks a bad key of an object by one more part "[key]".
            if parts[:1] == ("extensions",) and parts[-1] == "[key]":
                parts = parts[:-1]
            code = FAMILIES.get(found["type"], "DM121")
            shown = "" if code == "DM120" else f", not {short(found['input'])}"
            message = f"{found['msg']}{shown}"
            report.add(code, pointer(*path, *parts), message[:400])


def _unknown_fields(block: BaseModel, path: str) -> Iterator[tuple[str, str]]:
    for name in block.model_extra or {}:
        if (path, name) != ("", "$schema"):
            yield path, name
    for name in type(block).model_fields:
        yield from _unknown_below(getattr(block, name), path + pointer(name))


def _unknown_below(value: object, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, BaseModel):
        yield from _unknown_fields(value, path)
    elif isinstance(value, list) and value and isinstance(value[0], BaseModel):
        for number, item in enumerate(value):
            yield from _unknown_fields(item, path + pointer(number))
    elif isinstance(value, dict):
        for name, item in value.items():
            if isinstance(item, BaseModel):
                yield from _unknown_fields(item, path + pointer(name))
