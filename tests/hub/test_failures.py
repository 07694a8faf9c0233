"""What a user reads for failures that the loopback Hub does not make."""

from __future__ import annotations

import errno

import httpx2
import pytest
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, XetDownloadError

from dfkd_meta.errors import DfkdMetaError, HubError, NetworkError, UsageError
from dfkd_meta.hub.client import Hub
from dfkd_meta.hub.failures import Attempt, hub_errors

READ = Attempt("https://hub.example", "user/repo", "main")
WRITE = Attempt("https://hub.example", "user/repo", "main", writing=True)


def explained(error: Exception, attempt: Attempt = READ) -> DfkdMetaError:
    with pytest.raises(DfkdMetaError) as caught, hub_errors(attempt):
        raise error
    assert caught.value.__cause__ is error
    return caught.value


def answer(status: int) -> HfHubHTTPError:
    request = httpx2.Request("GET", "https://hub.example/api")
    return HfHubHTTPError("went wrong", response=httpx2.Response(status, request=request))


@pytest.mark.parametrize(
    ("status", "attempt", "kind", "hint"),
    [
        (401, READ, HubError, "hf auth login"),
        (403, WRITE, HubError, "--token"),
        (412, WRITE, HubError, "again"),
        (418, READ, HubError, None),
        (429, READ, NetworkError, "later"),
        (503, WRITE, NetworkError, "later"),
    ],
)
def test_every_status_has_a_sentence(
    status: int, attempt: Attempt, kind: type[DfkdMetaError], hint: str | None
) -> None:
    error = explained(answer(status), attempt)
    assert type(error) is kind
    assert error.where == "https://hub.example/user/repo@main"
    assert hint is None or hint in (error.hint or "")


def test_cause_speaks_through_the_wrapper() -> None:
    wrapper = LocalEntryNotFoundError("not in the cache")
    wrapper.__cause__ = answer(502)
    assert "502" in explained(wrapper).message
    wrapper.__cause__ = httpx2.ConnectError("refused")
    assert "refused" in explained(wrapper).message


def test_hub_without_xet() -> None:
    url = "https://hub.example/api/models/user/repo/xet-write-token/main"
    error = explained(ConnectionError(f"Network error: 404 {url}"), WRITE)
    assert type(error) is NetworkError
    assert "HF_HUB_DISABLE_XET=1" in (error.hint or "")


def test_disk() -> None:
    error = explained(OSError(errno.ENOSPC, "No space left on device", "/cache/blob"))
    assert type(error) is HubError
    assert (error.message, error.where) == ("cannot write: No space left on device", "/cache/blob")


@pytest.mark.parametrize("error", [OSError("size 3, not 5"), XetDownloadError("size 3, not 5")])
def test_broken_transfer(error: Exception) -> None:
    assert type(explained(error)) is NetworkError
    assert "size 3, not 5" in explained(error).message


@pytest.mark.parametrize("token", ["", "hf_SECRET\nx", "hf_SECR\u00c9T", "hf_SECRET x"])
def test_what_is_no_token_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(UsageError, match="no token has") as caught:
        Hub(token=token)
    assert "SECR" not in repr(vars(caught.value))


def test_a_token_from_a_file_may_end_with_a_newline() -> None:
    assert Hub(token="hf_x\n")._api.token == "hf_x"


def test_no_message_shows_the_token() -> None:
    text = "Illegal header value b'Bearer hf_SECRET'"
    for kind in (httpx2.LocalProtocolError, ValueError, OSError, RuntimeError):
        assert "SECRET" not in explained(kind(text)).message


def test_our_own_errors_and_bugs_pass() -> None:
    for error in (HubError("mine"), KeyError("bug")):
        with pytest.raises(type(error)), hub_errors(READ):
            raise error
