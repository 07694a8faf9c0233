"""What a user may type where a teacher and its sidecar are wanted: a folder or a Hub id."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from dfkd_meta.errors import UsageError

_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
_REPO_ID = re.compile(f"{_PART}/{_PART}")
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/-]{0,199}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
EXPECTED = "give a folder that exists, user/repo or user/repo@revision"


@dataclass(frozen=True)
class HubId:
    """A repository on the Hub; ``revision`` is a branch, a tag or a commit (40 hex digits)."""

    repo_id: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{self.repo_id}@{self.revision}" if self.revision else self.repo_id


def parse_source(where: str, *, revision: str | None = None) -> Path | HubId:
    """Tell a folder from a Hub id. A folder that exists wins. Raises UsageError."""
    # os.path answers False where pathlib raises: names too long, "~nobody", no permission.
    folder = os.path.expanduser(where)
    if os.path.isdir(folder):
        if revision is not None:
            raise UsageError("--revision is for the Hub, and this is a folder", where=where)
        return Path(folder)
    if os.path.isfile(folder):
        raise UsageError("this is a file", where=where, hint=EXPECTED)
    return parse_id(where, revision=revision)


def parse_id(text: str, *, revision: str | None = None) -> HubId:
    """Read ``user/repo`` or ``user/repo@revision``. Raises UsageError."""
    repo_id, sign, named = text.partition("@")
    if not is_repo_id(repo_id):
        hint = "user/repo or user/repo@revision" if os.path.isdir(text) else EXPECTED
        raise UsageError(f"{text!r} is not the id of a repository on the Hub", hint=hint)
    if sign and revision is not None and named != revision:
        raise UsageError(f"{text!r} names another revision than --revision {revision}")
    wanted = named if sign else revision
    if wanted is not None and not is_revision(wanted):
        raise UsageError(
            f"{wanted!r} is not a revision", hint="a branch, a tag or a commit of 40 hex digits"
        )
    return HubId(repo_id, wanted)


def is_repo_id(text: str) -> bool:
    """Whether the Hub could have a repository of that name (its own rules, without a request)."""
    return bool(_REPO_ID.fullmatch(text)) and not re.search(r"--|\.\.|\.git$", text)


def is_revision(text: str) -> bool:
    return bool(_REVISION.fullmatch(text)) and ".." not in text


def is_commit(revision: str) -> bool:
    return bool(_COMMIT.fullmatch(revision))
