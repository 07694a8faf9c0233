"""Every way a request to the Hub fails, and the one sentence and hint a user gets for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

# The HTTP client whose errors huggingface_hub 2.x lets through.
from httpx2 import HTTPError, TransportError
from huggingface_hub import errors as hub

from dfkd_meta.errors import DfkdMetaError, HubError, NetworkError

FAILURES = (
    HTTPError,
    hub.EntryNotFoundError,
    hub.RevisionResolutionError,
    hub.XetDownloadError,
    OSError,
    ValueError,
    RuntimeError,
)


@dataclass(frozen=True)
class Attempt:
    """What was being asked of which repository when it failed."""

    endpoint: str
    repo_id: str
    revision: str | None = None
    writing: bool = False

    @property
    def where(self) -> str:
        return f"{self.endpoint}/{self.repo_id}" + (f"@{self.revision}" if self.revision else "")


@contextmanager
def hub_errors(attempt: Attempt) -> Iterator[None]:
    """Turn what the Hub client raises into HubError (exit 1) or NetworkError (exit 3)."""
    try:
        yield
    except FAILURES as error:
        raise explain(error, attempt) from error


_OFFLINE_HINT = "HF_HUB_OFFLINE is set: unset it, or name a commit that was downloaded before"
_NETWORK_HINT = (
    "check the connection and HF_ENDPOINT; what was downloaded before can be read with "
    "HF_HUB_OFFLINE=1 and the commit"
)
_ENDPOINT_HINT = "check HF_ENDPOINT, and that no portal or proxy stands in between"
_LOGIN_HINT = "log in with 'hf auth login', or give a token that may write with --token"
_XET_HINT = "this Hub has no Xet store: set HF_HUB_DISABLE_XET=1 and run again"


def explain(error: Exception, attempt: Attempt) -> DfkdMetaError:
    """The error of this package for an exception of the Hub client."""
    if "xet-write-token" in str(error) or "xet-read-token" in str(error):
        return NetworkError(
            "the Hub did not answer the Xet protocol", where=attempt.where, hint=_XET_HINT
        )
    if isinstance(error, json.JSONDecodeError):
        return HubError(
            "the server does not answer as a Hub does", where=attempt.where, hint=_ENDPOINT_HINT
        )
    if isinstance(error, ValueError) and not isinstance(error, HTTPError):
        return HubError(_text(error), where=attempt.where)
    for link in _chain(error):
        found = _named(link, attempt) or _by_status(link, attempt) or _unreachable(link, attempt)
        if found is not None:
            return found
    return _local(error, attempt)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what caused it: the client wraps the cause in 'not found in the cache'."""
    while error is not None:
        yield error
        error = error.__cause__


def _named(error: BaseException, attempt: Attempt) -> HubError | None:
    if isinstance(error, hub.GatedRepoError):
        return HubError(
            "this repository is gated and the token has no access to it",
            where=attempt.where,
            hint=f"ask for access at {attempt.endpoint}/{attempt.repo_id}, then 'hf auth login'",
        )
    if isinstance(error, hub.RepositoryNotFoundError):
        if attempt.writing:
            return _no_right_to_write(attempt)
        return HubError(
            "there is no such repository, or it is private and the token may not read it",
            where=attempt.where,
            hint="check the spelling; for a private repository 'hf auth login' or --token",
        )
    if isinstance(error, hub.RevisionNotFoundError):
        return HubError(
            f"the repository has no revision {attempt.revision or 'main'!r}",
            where=attempt.where,
            hint="give a branch, a tag or a full commit id",
        )
    if isinstance(error, hub.RemoteEntryNotFoundError):
        return HubError("the file is not in the repository", where=attempt.where)
    return None


def _by_status(error: BaseException, attempt: Attempt) -> DfkdMetaError | None:
    if not isinstance(error, hub.HfHubHTTPError):
        return None
    status = error.response.status_code
    said = error.server_message or error.response.reason_phrase
    if status == 412:
        return HubError(
            "the repository was changed by somebody else in the meantime; nothing was published",
            where=attempt.where,
            hint="look at the new commit, then run the command again",
        )
    if status in (401, 403):
        if attempt.writing:
            return _no_right_to_write(attempt)
        return HubError(
            f"the Hub refused the token: {said}", where=attempt.where, hint="hf auth login"
        )
    if status >= 500 or status in (408, 429):
        return NetworkError(
            f"the Hub is out of order or busy (HTTP {status}: {said})",
            where=attempt.where,
            hint="try again later",
        )
    return HubError(f"the Hub refused the request (HTTP {status}: {said})", where=attempt.where)


def _no_right_to_write(attempt: Attempt) -> HubError:
    return HubError("the token may not write here", where=attempt.where, hint=_LOGIN_HINT)


def _unreachable(error: BaseException, attempt: Attempt) -> NetworkError | None:
    if isinstance(error, hub.OfflineModeIsEnabled):
        return NetworkError("the cache lacks it", where=attempt.where, hint=_OFFLINE_HINT)
    if isinstance(error, TransportError):
        return NetworkError(
            f"the Hub cannot be reached ({_text(error)})",
            where=attempt.where,
            hint=_NETWORK_HINT,
        )
    return None


def _local(error: Exception, attempt: Attempt) -> DfkdMetaError:
    """What is left: the cache lacks it, the disk refused, the transfer broke off, a bad card."""
    if isinstance(error, hub.LocalEntryNotFoundError | hub.RevisionResolutionError):
        return NetworkError("the cache lacks it", where=attempt.where, hint=_OFFLINE_HINT)
    if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
        return HubError(f"cannot write: {error.strerror}", where=str(error.filename))
    text = _text(error)
    if isinstance(error, OSError | hub.XetDownloadError):
        return NetworkError(
            f"the transfer broke off: {text}", where=attempt.where, hint="run the command again"
        )
    return HubError(text, where=attempt.where)


def _text(error: BaseException) -> str:
    """What an error says, in one line; nothing of a header, which would show the token."""
    text = " ".join(str(error).split())
    return type(error).__name__ if not text or "bearer" in text.lower() else text
