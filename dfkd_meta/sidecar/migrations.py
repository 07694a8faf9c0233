"""The ladder of migrations: one pure function per step, from any older document to the current one.

Steps move and rename; they never look at tensors. A value of an unexpected type is moved as it is:
the models complain about it afterwards, with the place where it now is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Document = dict[str, Any]


def stated_version(document: Document) -> object:
    """What the document says its version is: ``format_version``, or ``spec_version`` before 1.0."""
    return document.get("format_version", document.get("spec_version"))


def is_outdated(document: Document) -> bool:
    """Whether a migration leads away from the version of this document."""
    version = stated_version(document)
    return isinstance(version, str) and version in STEPS


def migrate(document: Document) -> Document:
    """The same document in the current version; the argument stays as it was."""
    current = dict(document)
    while is_outdated(current):
        current = STEPS[str(stated_version(current))](current)
    return current


def from_0_9(document: Document) -> Document:
    """0.9, the founding draft, to 1.0: renames and moves only (``schema/CHANGELOG.md``)."""
    new = {key: _copy(value) for key, value in document.items() if key != "spec_version"}
    new["format_version"] = "1.0"
    _move(new, "layers", new, "taps")
    _move(new.get("provenance"), "profile", new, "profile")
    _move(new.get("teacher"), "weights", new.get("teacher"), "files")
    inputs = new.get("inputs")
    if isinstance(inputs, dict) and isinstance(inputs.get("normalization"), dict):
        rest = dict(inputs.pop("normalization"))
        for name in ("mean", "std"):
            _move(rest, name, inputs, name)
        if rest:
            inputs["normalization"] = rest
    if isinstance(new.get("taps"), list):
        new["taps"] = [_tap_0_9(tap) for tap in new["taps"]]
    if isinstance(new.get("statistics"), dict):
        new["statistics"] = [_record_0_9(*item) for item in new["statistics"].items()]
    return new


def _tap_0_9(layer: object) -> object:
    tap = _copy(layer)
    _move(tap, "linear", tap, "linear_in_input")
    return tap


def _record_0_9(name: str, record: object) -> object:
    if not isinstance(record, dict):
        return record
    new = {**record, "id": name}
    if "layer" in new:
        new["taps"] = [new.pop("layer")]
    return new


def _copy(value: object) -> Any:
    return dict(value) if isinstance(value, dict) else value


def _move(source: Any, old: str, target: Any, new: str) -> None:
    if isinstance(source, dict) and isinstance(target, dict) and old in source:
        target[new] = source.pop(old)


# From the version named to the next one; the last step ends at FORMAT_VERSION.
STEPS: dict[str, Callable[[Document], Document]] = {"0.9": from_0_9}
