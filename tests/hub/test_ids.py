"""What counts as a folder, what as a Hub id, and what as a mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from dfkd_meta.errors import UsageError
from dfkd_meta.hub import HubId, parse_id, parse_source, resolve_source

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("user/repo", HubId("user/repo")),
        ("user/repo@v1.0", HubId("user/repo", "v1.0")),
        (f"user/repo@{COMMIT}", HubId("user/repo", COMMIT)),
        ("user/repo@refs/pr/1", HubId("user/repo", "refs/pr/1")),
        ("a_b/lenet5.mnist-1", HubId("a_b/lenet5.mnist-1")),
    ],
)
def test_ids_are_read(text: str, expected: HubId) -> None:
    assert parse_id(text) == expected
    assert str(expected) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "repo", "a/b/c", "./repo", "../x", "user/", "/repo", "user/re po", "user/a--b"),
        *("user/a..b", "user/repo.git", "user/repo@", "user/repo@a b", "user/repo@../x"),
        *("https://x/y", "~nobody-at-all/x/y", "x" * 5000, "a\0b"),
    ],
)
def test_anything_else_is_a_usage_error(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where no folder of these names exists
    with pytest.raises(UsageError):
        parse_source(text)


def test_a_folder_that_exists_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "user" / "repo").mkdir(parents=True)
    assert parse_source("user/repo") == Path("user/repo")
    assert resolve_source("user/repo").commit is None


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "x.json").touch()
    with pytest.raises(UsageError, match="a file"):
        parse_source(str(tmp_path / "x.json"))


def test_revision_only_once_and_only_for_the_hub(tmp_path: Path) -> None:
    assert parse_id("u/r", revision="v1") == HubId("u/r", "v1")
    assert parse_id("u/r@v1", revision="v1") == HubId("u/r", "v1")
    with pytest.raises(UsageError, match="another revision"):
        parse_id("u/r@v1", revision="v2")
    with pytest.raises(UsageError, match="folder"):
        parse_source(str(tmp_path), revision="v1")
