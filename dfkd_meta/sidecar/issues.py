"""What validation finds: issues with a stable code, a severity and a place in the manifest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from dfkd_meta.errors import DfkdMetaError
from dfkd_meta.sidecar.codes import CODES, Severity

# A hostile file can break a rule a million times; a reader wants the first few hundred.
MAX_ISSUES = 500
MAX_PATH = 1_000  # characters: names in a file can be as long as the file


@dataclass(frozen=True)
class Issue:
    """One finding.

    ``path`` is a JSON pointer into ``dfkd_meta.json`` ("" is the whole document), or the name of a
    file when the finding is about a file. ``severity`` and ``hint`` are those of the code.
    """

    code: str
    path: str
    message: str

    @property
    def severity(self) -> Severity:
        return CODES[self.code].severity

    @property
    def hint(self) -> str:
        return CODES[self.code].mend

    def as_dict(self) -> dict[str, Any]:
        return {
            "code": self.code,
            "severity": self.severity,
            "path": self.path,
            "message": self.message,
            "hint": self.hint,
        }


@dataclass
class ValidationReport:
    """Every issue of one sidecar, in the order found.

    ``ok`` means: no error among them, and with ``strict`` no warning either.
    """

    issues: list[Issue] = field(init=False, default_factory=list)
    strict: bool = False
    failed: bool = field(init=False, default=False)  # an error is among the issues
    cut: bool = field(init=False, default=False)  # more was found than is listed

    def add(self, code: str, path: str, message: str) -> None:
        """Note one finding; beyond ``MAX_ISSUES`` only that there are more (DM140)."""
        if len(path) > MAX_PATH:
            path = path[:MAX_PATH] + "..."
        # Notes and warnings must not crowd out the error that makes the file invalid.
        first_error = CODES[code].severity == "error" and not self.failed
        if len(self.issues) < MAX_ISSUES or first_error:
            self.failed |= first_error
            self.issues.append(Issue(code, path, message))
        elif not self.cut:
            self.cut = True
            text = f"only the first {MAX_ISSUES} issues are listed"
            self.issues.append(Issue("DM140", "", text))

    @property
    def full(self) -> bool:
        """Whether further findings are only counted: long loops may stop."""
        return self.cut and self.failed

    def of(self, severity: Severity) -> list[Issue]:
        return [issue for issue in self.issues if issue.severity == severity]

    @property
    def errors(self) -> list[Issue]:
        return self.of("error")

    @property
    def ok(self) -> bool:
        return not self.failed and not (self.strict and self.of("warning"))

    def __iter__(self) -> Iterator[Issue]:
        return iter(self.issues)


class SidecarError(DfkdMetaError):
    """A sidecar that must not be used; ``report`` holds every issue found.

    ``written`` is False for one that was to be written to ``folder`` and was not.
    """

    code = "DM500"

    def __init__(self, folder: str, report: ValidationReport, *, written: bool = True) -> None:
        first = report.errors[0]
        more = len(report.errors) - 1
        hint = f"run 'dfkd-meta validate {folder}' for every issue"
        if first.code == "DM101":
            hint = "a folder with a sidecar is what 'dfkd-meta export' makes"
        state = "is not valid" if written else "would not be valid"
        super().__init__(
            f"the sidecar {state}: {first.code} {first.message}"
            + (f" (and {more} more)" if more else ""),
            where=f"{folder}: {first.path or 'dfkd_meta.json'}",
            hint=hint if written else None,
        )
        self.report = report


def pointer(*parts: str | int) -> str:
    """A JSON pointer (RFC 6901): ``pointer("taps", 0, "id")`` is ``/taps/0/id``."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def short(value: object, limit: int = 80) -> str:
    """``repr`` of a value from a file, cut so that a hostile one cannot flood a terminal."""
    if isinstance(value, dict):
        return f"an object of {len(value)} entries"
    if isinstance(value, list):
        return f"a list of {len(value)} entries"
    text = repr(value[: limit + 1] if isinstance(value, str) else value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
