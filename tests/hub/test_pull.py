"""Pulling with the real client: pinned, verified, and nothing half-written when it goes wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dfkd_meta.errors import DfkdMetaError, HubError, NetworkError, UsageError
from dfkd_meta.hub import pull, resolve_source
from dfkd_meta.hub.pull import staging_for
from dfkd_meta.producer.publish import PublishOptions, publish
from dfkd_meta.sidecar import MANIFEST_FILE, TENSOR_FILE, read_sidecar, sha256_file
from tests.support.hub_fixture import REPO, point_client_at
from tests.support.hub_http import Reply, Request
from tests.support.loopback_hub import LoopbackHub
from tests.support.tiny_sidecar import make_tiny_sidecar
from tests.support.told import Told

PULLED = {MANIFEST_FILE, TENSOR_FILE, "model.safetensors", "config.json"}


def digests(folder: Path) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in folder.iterdir()}


def refused(kind: type[DfkdMetaError], text: str, **arguments: object) -> DfkdMetaError:
    """Pulling REPO raises that error, and leaves nothing behind in the local folder."""
    local = Path(str(arguments["local_dir"]))
    before = sorted(local.parent.iterdir())
    with pytest.raises(kind, match=text) as caught:
        pull(str(arguments.pop("where", REPO)), **arguments)  # type: ignore[arg-type]
    assert sorted(local.parent.iterdir()) == before
    assert caught.value.hint
    return caught.value


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """A folder to pull into, which does not exist yet."""
    (tmp_path / "here").mkdir()
    return tmp_path / "here" / "teacher"


def test_round_trip_is_equal(folder: Path, published: LoopbackHub, local: Path) -> None:
    pulled = pull(REPO, local_dir=local)
    assert pulled.commit == published.repos[REPO].history[-1]
    assert (pulled.folder, pulled.repo_id) == (local, REPO)
    assert digests(local) == digests(folder)
    assert read_sidecar(local).manifest == read_sidecar(folder).manifest


def test_into_the_cache_and_from_there(folder: Path, published: LoopbackHub) -> None:
    first = pull(REPO)
    assert digests(first.folder) == digests(folder)
    assert str(first.commit) in str(first.folder)
    published.requests.clear()
    assert pull(REPO) == first
    assert published.requests == [f"GET /api/models/{REPO}/revision/main 200"]


def test_damaged_copy_in_the_cache_is_mended(folder: Path, published: LoopbackHub) -> None:
    first = pull(REPO).folder
    (first / "model.safetensors").write_bytes(b"damaged")
    assert digests(pull(REPO).folder) == digests(folder)
    (first / "model.safetensors").unlink()
    assert digests(pull(REPO).folder) == digests(folder)


def test_own_cache_folder(published: LoopbackHub, tmp_path: Path) -> None:
    assert pull(REPO, cache_dir=tmp_path / "mine").folder.is_relative_to(tmp_path / "mine")
    assert not (tmp_path / "hf_home").exists()


def test_revisions_are_pinned(folder: Path, published: LoopbackHub) -> None:
    old = published.repos[REPO].history[-1]
    published.repos[REPO].refs["v1"] = old
    make_tiny_sidecar(folder, seed=1)
    new = publish(folder, REPO).commit
    publish(folder, REPO, options=PublishOptions(revision="next"))
    assert pull(REPO).commit == new
    assert pull(f"{REPO}@next").commit == new
    assert pull(f"{REPO}@v1").commit == old
    assert pull(REPO, revision=old).commit == old
    assert resolve_source(f"{REPO}@{old}").commit == old
    assert sha256_file(pull(f"{REPO}@{old}").folder / TENSOR_FILE) != sha256_file(
        folder / TENSOR_FILE
    )


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize("near", [False, True])
def test_a_mistyped_folder_is_told_from_an_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, near: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    if near:
        Path(REPO).parent.mkdir()
    told = Told()
    resolve_source(REPO, progress=told)
    assert (told.steps[0] == f"there is no folder {REPO} here, so it is taken for an id") == near


def test_only_named_files_are_fetched(published: LoopbackHub, local: Path) -> None:
    published.seed(REPO, {"pytorch_model.bin": b"pickle", "modeling.py": b"boom", "a.json": b"{}"})
    pull(REPO, local_dir=local)
    assert {path.name for path in local.iterdir()} == PULLED
    assert not [line for line in published.requests if "pytorch" in line or ".py" in line]


def test_local_folder_keeps_what_else_is_there(published: LoopbackHub, local: Path) -> None:
    local.mkdir()
    (local / "notes.txt").write_text("mine")
    pull(REPO, local_dir=local)
    assert {path.name for path in local.iterdir()} == PULLED | {"notes.txt"}


def test_what_another_model_left_there_goes(
    folder: Path, published: LoopbackHub, local: Path
) -> None:
    published.seed("bob/other", published.files(REPO))
    tree = dict(published.repos["bob/other"].tree("main"))
    del tree["config.json"]
    published.repos["bob/other"].commit("main", tree)
    local.mkdir()
    (local / "notes.txt").write_text("mine")
    for _ in range(2):
        pull(REPO, local_dir=local)
        assert {path.name for path in local.iterdir()} == PULLED | {"notes.txt"}
    pull("bob/other", local_dir=local)
    assert {path.name for path in local.iterdir()} == PULLED - {"config.json"} | {"notes.txt"}


def test_files_are_collected_on_the_disk_where_they_belong(tmp_path: Path) -> None:
    there, link = tmp_path / "other" / "disk", tmp_path / "link"
    there.mkdir(parents=True)
    link.symlink_to(there)
    for folder in (there, link, link / "new" / "folder"):
        with staging_for(folder) as staging:
            assert staging.parent == there.resolve()


def test_weights_come_from_the_commit_the_manifest_pins(
    folder: Path, loopback_hub: LoopbackHub, local: Path
) -> None:
    weights = (folder / "model.safetensors").read_bytes()
    commit = loopback_hub.seed("bob/weights", {"model.safetensors": weights})
    loopback_hub.seed("bob/weights", {"model.safetensors": b"newer"})
    teacher = read_sidecar(folder).manifest.teacher
    pin = {"repo_id": "bob/weights", "revision": commit}
    make_tiny_sidecar(folder, teacher=teacher.model_copy(update=pin))
    publish(folder, REPO)
    assert "model.safetensors" not in loopback_hub.files(REPO)
    pull(REPO, local_dir=local)
    assert (local / "model.safetensors").read_bytes() == weights


def test_missing_repository(loopback_hub: LoopbackHub, local: Path) -> None:
    error = refused(HubError, "no such repository", local_dir=local)
    assert error.exit_code == 1
    assert error.where is not None
    assert loopback_hub.url in error.where


def test_missing_sidecar(loopback_hub: LoopbackHub, local: Path) -> None:
    loopback_hub.seed(REPO, {"model.safetensors": b"x"})
    error = refused(HubError, "has no sidecar", local_dir=local)
    assert "dfkd-meta publish" in (error.hint or "")


def test_missing_revision(published: LoopbackHub, local: Path) -> None:
    refused(HubError, "no revision 'v9'", where=f"{REPO}@v9", local_dir=local)


def test_missing_commit(published: LoopbackHub, local: Path) -> None:
    refused(HubError, "no revision", where=f"{REPO}@{'0' * 40}", local_dir=local)


def test_gated(published: LoopbackHub, local: Path) -> None:
    published.repos[REPO].gated = True
    error = refused(HubError, "gated", token="hf_bob", local_dir=local)
    assert "ask for access" in (error.hint or "")
    pull(REPO, local_dir=local)


def test_private(published: LoopbackHub, local: Path) -> None:
    published.repos[REPO].private = True
    error = refused(HubError, "private", token="hf_bob", local_dir=local)
    assert "hf auth login" in (error.hint or "")
    pull(REPO, token="hf_alice", local_dir=local)


@pytest.mark.parametrize("name", ["model.safetensors", TENSOR_FILE])
def test_changed_after_publication(published: LoopbackHub, local: Path, name: str) -> None:
    data = bytearray(published.files(REPO)[name])
    data[-1] ^= 1
    published.seed(REPO, {name: bytes(data)})
    published.requests.clear()
    error = refused(HubError, "changed after publication", local_dir=local)
    assert error.exit_code == 1
    assert name in (error.where or "")
    # Seen in the listing: not a byte of it was downloaded.
    assert not [line for line in published.requests if name in line]


def test_server_that_lists_one_file_and_sends_another(
    published: LoopbackHub, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = published.answer

    def cheat(request: Request) -> Reply:
        reply = genuine(request)
        if request.method == "GET" and request.path.endswith("/model.safetensors"):
            reply.body = reply.body[:-1] + bytes([reply.body[-1] ^ 1])
        return reply

    monkeypatch.setattr(published, "answer", cheat)
    refused(HubError, "DM507", local_dir=local)


def test_missing_weights(published: LoopbackHub, local: Path) -> None:
    tree = dict(published.repos[REPO].tree("main"))
    del tree["model.safetensors"]
    published.repos[REPO].commit("main", tree)
    refused(HubError, "lacks a file", local_dir=local)


def manifest_with(published: LoopbackHub, **file: object) -> None:
    """Publish a manifest whose weight file entry is changed."""
    manifest = json.loads(published.files(REPO)[MANIFEST_FILE])
    manifest["teacher"]["files"][0] |= file
    published.seed(REPO, {MANIFEST_FILE: json.dumps(manifest).encode()})


@pytest.mark.parametrize(
    "path", ["../x.safetensors", "/etc/passwd", "a/b.safetensors", "..", "a\\b.safetensors"]
)
def test_name_that_leaves_the_folder(published: LoopbackHub, local: Path, path: str) -> None:
    manifest_with(published, path=path)
    refused(HubError, "DM124", local_dir=local)


@pytest.mark.parametrize("path", ["pytorch_model.bin", "modeling.py", "model.pt2"])
def test_pickles_and_code_are_never_fetched(published: LoopbackHub, local: Path, path: str) -> None:
    published.seed(REPO, {path: b"boom"})
    manifest_with(published, path=path)
    published.requests.clear()
    refused(HubError, "not a safetensors or JSON file", local_dir=local)
    assert not [line for line in published.requests if path in line]


def test_huge_files_are_refused_from_the_listing(
    published: LoopbackHub, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest_with(published, size=100 * 2**30)
    refused(HubError, "changed after publication", local_dir=local)  # it lies about the size
    weights = published.repos[REPO].tree("main")["model.safetensors"]
    monkeypatch.setitem(weights.__dict__, "size", 100 * 2**30)
    refused(HubError, "at most", local_dir=local)  # it is as large as it says
    published.requests.clear()
    manifest = published.repos[REPO].tree("main")[MANIFEST_FILE]
    monkeypatch.setitem(manifest.__dict__, "size", 5 * 2**20)
    refused(HubError, "at most", local_dir=local)
    assert not [line for line in published.requests if "/resolve/" in line]


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b"\xff", b'{"format": "dfkd-meta", "a": NaN}'])
def test_hostile_manifest(published: LoopbackHub, local: Path, text: bytes) -> None:
    published.seed(REPO, {MANIFEST_FILE: text})
    refused(HubError, "not valid: DM1", local_dir=local)


@pytest.mark.usefixtures("no_sleep")
def test_truncated_download(published: LoopbackHub, local: Path) -> None:
    published.truncate(r"/resolve/.*/model\.safetensors", keep=0)
    refused(NetworkError, "cannot be reached", local_dir=local)
    published.heal()
    published.truncate(r"/resolve/.*/model\.safetensors", keep=100, times=2)  # then whole
    pull(REPO, local_dir=local)


@pytest.mark.usefixtures("no_sleep")
@pytest.mark.parametrize("route", ["/revision/", "/paths-info/", "/resolve/.*/model"])
def test_server_out_of_order(published: LoopbackHub, local: Path, route: str) -> None:
    published.fail(route)
    error = refused(NetworkError, "HTTP 500", local_dir=local)
    assert error.exit_code == 3


def test_no_network(
    published: LoopbackHub, local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = pull(REPO)
    (known.folder / MANIFEST_FILE).unlink()
    point_client_at("http://127.0.0.1:9", tmp_path / "hf_home", monkeypatch)
    error = refused(NetworkError, "cannot be reached", local_dir=local)
    assert error.exit_code == 3
    assert "HF_HUB_OFFLINE" in (error.hint or "")
    # A commit needs no look-up, but the listing does.
    refused(NetworkError, "cannot be reached", where=f"{REPO}@{known.commit}", local_dir=local)


def test_offline_from_the_cache(
    folder: Path, published: LoopbackHub, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = pull(REPO)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    published.requests.clear()
    assert pull(f"{REPO}@{known.commit}") == known
    assert pull(REPO) == known  # the branch as it was when last seen
    pull(f"{REPO}@{known.commit}", local_dir=local)
    assert digests(local) == digests(folder)
    assert published.requests == []


def test_offline_without_the_cache(
    published: LoopbackHub, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for where in (REPO, f"{REPO}@{'0' * 40}"):
        error = refused(NetworkError, "cache", where=where, local_dir=local)
        assert "HF_HUB_OFFLINE" in (error.hint or "")


def test_server_that_is_not_a_hub(loopback_hub: LoopbackHub, local: Path) -> None:
    loopback_hub.answer = lambda request: Reply(b"<html>")  # type: ignore[method-assign]
    error = refused(HubError, "does not answer as a Hub", local_dir=local)
    assert "HF_ENDPOINT" in (error.hint or "")


def test_local_folder_that_is_a_file(published: LoopbackHub, local: Path) -> None:
    local.write_text("a file")
    with pytest.raises(UsageError, match="a file"):
        pull(REPO, local_dir=local)


def test_pull_is_for_ids(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not the id"):
        pull(str(tmp_path))


def test_another_model_is_not_replaced(published: LoopbackHub, local: Path) -> None:
    local.mkdir()
    (local / "model.safetensors").write_bytes(b"mine")
    refused(UsageError, "another model", local_dir=local)
    assert [path.name for path in local.iterdir()] == ["model.safetensors"]
