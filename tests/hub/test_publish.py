"""Publishing with the real client: one atomic commit, only what differs, nothing on refusal."""

from __future__ import annotations

from pathlib import Path

import pytest

from dfkd_meta.errors import DataError, HubError, NetworkError, UsageError
from dfkd_meta.producer.publish import PublishOptions, publish
from dfkd_meta.sidecar import MANIFEST_FILE, TENSOR_FILE, SidecarError
from tests.support.hub_fixture import REPO
from tests.support.hub_store import Repo
from tests.support.loopback_hub import LoopbackHub
from tests.support.tiny_sidecar import make_tiny_sidecar

FILES = {MANIFEST_FILE, TENSOR_FILE, "model.safetensors", "config.json", "README.md"}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_new_repository_gets_everything_in_one_commit(
    folder: Path, loopback_hub: LoopbackHub
) -> None:
    before = contents(folder)
    result = publish(folder, REPO)
    repo = loopback_hub.repos[REPO]
    assert result.creates
    assert len(repo.history) == 2  # the Hub's own first commit, and ours
    assert result.commit == repo.history[-1]
    assert {path for path, _ in result.uploaded} == FILES
    assert loopback_hub.files(REPO) == {
        **before,
        "README.md": loopback_hub.files(REPO)["README.md"],
    }
    assert contents(folder) == before  # the card went to the Hub, not into the folder


def test_again_means_no_commit(folder: Path, published: LoopbackHub) -> None:
    result = publish(folder, REPO)
    assert result.commit is None
    assert result.uploaded == []
    assert set(result.unchanged) == FILES
    assert published.uploads() == []


def test_only_what_changed_is_sent(folder: Path, published: LoopbackHub) -> None:
    (folder / "config.json").write_text('{"architecture": "tiny", "note": "new"}')
    result = publish(folder, REPO)
    assert [path for path, _ in result.uploaded] == ["config.json"]
    assert len(published.repos[REPO].history) == 3


def test_change_of_the_same_size_is_noticed(folder: Path, published: LoopbackHub) -> None:
    make_tiny_sidecar(folder, seed=1)
    sent = {path for path, _ in publish(folder, REPO).uploaded}
    assert sent == {MANIFEST_FILE, TENSOR_FILE, "model.safetensors"}


def test_dry_run_changes_nothing(folder: Path, loopback_hub: LoopbackHub) -> None:
    before = contents(folder)
    result = publish(folder, REPO, options=PublishOptions(dry_run=True))
    assert result.commit is None
    assert {path for path, _ in result.uploaded} == FILES
    assert loopback_hub.repos == {}
    assert all(line.startswith(("GET", "HEAD")) for line in loopback_hub.requests)
    assert contents(folder) == before


def test_dry_run_of_an_update_lists_the_difference(folder: Path, published: LoopbackHub) -> None:
    (folder / "config.json").write_text("{}")
    result = publish(folder, REPO, options=PublishOptions(dry_run=True))
    assert result.uploaded == [("config.json", 2)]
    assert published.uploads() == []


def test_lost_race_is_refused_whole(folder: Path, published: LoopbackHub) -> None:
    (folder / "config.json").write_text("{}")

    def somebody_else(repo: Repo) -> None:
        published.before_commit = None
        published.seed(REPO, {"notes.txt": b"hello"})

    published.before_commit = somebody_else
    with pytest.raises(HubError, match="changed by somebody else") as caught:
        publish(folder, REPO)
    assert "again" in (caught.value.hint or "")
    assert published.files(REPO)["config.json"] != b"{}"
    publish(folder, REPO)
    assert published.files(REPO)["config.json"] == b"{}"


def test_invalid_sidecar_is_refused_before_any_request(
    folder: Path, loopback_hub: LoopbackHub
) -> None:
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x07")
    with pytest.raises(SidecarError):
        publish(folder, REPO)
    assert loopback_hub.requests == []


def test_branch_is_made_from_main(folder: Path, published: LoopbackHub) -> None:
    (folder / "config.json").write_text("{}")
    result = publish(folder, REPO, options=PublishOptions(revision="v2"))
    assert [path for path, _ in result.uploaded] == ["config.json"]
    assert published.files(REPO, "v2")["config.json"] == b"{}"
    assert published.files(REPO)["config.json"] != b"{}"


def test_pull_request(folder: Path, published: LoopbackHub) -> None:
    (folder / "config.json").write_text("{}")
    result = publish(folder, REPO, options=PublishOptions(create_pr=True))
    assert result.url.endswith("/discussions/1")
    assert published.files(REPO, "refs/pr/1")["config.json"] == b"{}"
    assert published.files(REPO)["config.json"] != b"{}"


def test_private_is_private_or_refused(folder: Path, loopback_hub: LoopbackHub) -> None:
    publish(folder, REPO, options=PublishOptions(private=True))
    assert loopback_hub.repos[REPO].private
    loopback_hub.repos[REPO].private = False
    with pytest.raises(HubError, match="public"):
        publish(folder, REPO, options=PublishOptions(private=True))


def test_weights_of_another_repository_stay_there(
    tmp_path: Path, folder: Path, loopback_hub: LoopbackHub
) -> None:
    elsewhere = _points_to(folder, {"repo_id": "bob/weights", "revision": "1" * 40})
    assert "model.safetensors" not in {path for path, _ in publish(elsewhere, REPO).uploaded}


def test_weights_of_another_repository_need_a_commit(
    folder: Path, loopback_hub: LoopbackHub
) -> None:
    with pytest.raises(HubError, match="not at which commit"):
        publish(_points_to(folder, {"repo_id": "bob/weights"}), REPO)


def _points_to(folder: Path, changes: dict[str, str]) -> Path:
    from dfkd_meta.sidecar import read_sidecar

    teacher = read_sidecar(folder).manifest.teacher
    return make_tiny_sidecar(folder, teacher=teacher.model_copy(update=changes))


@pytest.mark.parametrize("token", ["hf_bob", "hf_nobody"])
def test_no_right_to_write(folder: Path, loopback_hub: LoopbackHub, token: str) -> None:
    with pytest.raises(HubError, match="may not write") as caught:
        publish(folder, REPO, token=token)
    assert "hf auth login" in (caught.value.hint or "")
    assert loopback_hub.repos == {}


def test_existing_repository_of_somebody_else(folder: Path, published: LoopbackHub) -> None:
    (folder / "config.json").write_text("{}")
    with pytest.raises(HubError, match="may not write"):
        publish(folder, REPO, token="hf_bob")
    published.repos[REPO].private = True
    with pytest.raises(HubError, match="may not"):
        publish(folder, REPO, token="hf_bob")


@pytest.mark.parametrize("repo", ["teacher", "a/b/c", "alice/", "alice/te acher"])
def test_bad_repository_name(folder: Path, loopback_hub: LoopbackHub, repo: str) -> None:
    with pytest.raises(UsageError, match="not a repository"):
        publish(folder, repo)


@pytest.mark.parametrize("revision", ["0" * 40, "a b", "../x"])
def test_bad_branch(folder: Path, loopback_hub: LoopbackHub, revision: str) -> None:
    with pytest.raises(UsageError, match="cannot publish onto"):
        publish(folder, REPO, options=PublishOptions(revision=revision))


def test_card_that_is_not_text(folder: Path, loopback_hub: LoopbackHub) -> None:
    (folder / "README.md").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="UTF-8"):
        publish(folder, REPO)


def test_card_of_the_repository_is_kept(folder: Path, loopback_hub: LoopbackHub) -> None:
    loopback_hub.seed(REPO, {"README.md": b"---\nlicense: isc\n---\n# Mine\n\nOwn words.\n"})
    publish(folder, REPO)
    card = loopback_hub.files(REPO)["README.md"].decode()
    assert "# Mine\n\nOwn words.\n" in card
    assert "license: isc\n" in card
    assert "dfkd-meta distill alice/teacher" in card


def test_server_out_of_order_leaves_no_commit(
    folder: Path, published: LoopbackHub, no_sleep: None
) -> None:
    (folder / "config.json").write_text("{}")
    published.fail("POST .*/commit/")
    with pytest.raises(NetworkError, match="HTTP 500"):
        publish(folder, REPO)
    assert len(published.repos[REPO].history) == 2


def test_offline(folder: Path, loopback_hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(NetworkError, match="publishing needs the network") as caught:
        publish(folder, REPO)
    assert "HF_HUB_OFFLINE" in (caught.value.hint or "")
