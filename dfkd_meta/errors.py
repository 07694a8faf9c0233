"""The one error tree: what is wrong, where, and what to do next.

Everything the tool refuses is one of these. A shell prints ``message``, ``where`` and ``hint`` and
exits with ``exit_code``: 1 the file or the run is bad, 2 the command was used wrongly, 3 the
environment is missing something (an extra, the network).
"""

from __future__ import annotations

from typing import ClassVar


class DfkdMetaError(Exception):
    """Base of every error this package raises on purpose.

    ``message`` is one sentence; ``where`` names the folder, layer, statistic or key; ``hint`` is
    the next thing to do or type.
    """

    code: ClassVar[str] = "DM600"
    exit_code: int = 1

    def __init__(self, message: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        """All of it in one line, for tracebacks and logs."""
        place = f" ({self.where})" if self.where else ""
        return self.message + place + (f"; {self.hint}" if self.hint else "")


class TeacherError(DfkdMetaError):
    """A model cannot be built, its weights do not fit, or it misbehaves on an input."""

    code = "DM610"


class DataError(DfkdMetaError):
    """A data set cannot be read, or disagrees with the input specification."""

    code = "DM620"


class StatisticsError(DfkdMetaError):
    """Statistics cannot be computed or released (NaN, a class too small, a wrong shape)."""

    code = "DM630"


class MethodError(DfkdMetaError):
    """A synthesis method cannot run on this teacher and sidecar."""

    code = "DM640"


class HubError(DfkdMetaError):
    """A repository, revision or file on the Hub is missing, refused or changed."""

    code = "DM650"


class UsageError(DfkdMetaError):
    """An argument or a configuration value is wrong."""

    code = "DM660"
    exit_code = 2


class MissingExtraError(DfkdMetaError):
    """An optional package is not installed."""

    code = "DM670"
    exit_code = 3

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"this needs the package {package!r}, which is not installed",
            hint=f"pip install 'dfkd-meta[{extra}]'",
        )


class NetworkError(DfkdMetaError):
    """The Hub cannot be reached."""

    code = "DM671"
    exit_code = 3
