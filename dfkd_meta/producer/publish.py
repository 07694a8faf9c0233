"""Publish a teacher and its sidecar: validated, described, and in one atomic commit."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path

from dfkd_meta.errors import DataError, HubError, NetworkError, UsageError
from dfkd_meta.hub import RUN_FILE, Hub, update_card
from dfkd_meta.hub.client import Head, RemoteFile
from dfkd_meta.hub.fetch import Place, refuse_unsafe, teacher_place
from dfkd_meta.hub.ids import is_commit, is_repo_id, is_revision
from dfkd_meta.progress import Progress, Silent
from dfkd_meta.sidecar import (
    CONFIG_FILE,
    MANIFEST_FILE,
    TENSOR_FILE,
    Manifest,
    read_sidecar,
    sha256_file,
)

CARD_FILE = "README.md"


@dataclass(frozen=True)
class PublishOptions:
    """Where and how: ``revision`` is a branch, made if missing; a dry run changes nothing."""

    revision: str = "main"
    private: bool = False
    create_pr: bool = False
    dry_run: bool = False


@dataclass(frozen=True)
class PublishResult:
    """What was sent (or, in a dry run, would be): paths with sizes in bytes.

    ``commit`` is None when nothing was committed; ``creates`` says that the repository was not
    there before.
    """

    repo_id: str
    url: str
    commit: str | None = None
    uploaded: list[tuple[str, int]] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    creates: bool = False


def publish(
    folder: Path,
    repo_id: str,
    *,
    options: PublishOptions | None = None,
    token: str | None = None,
    progress: Progress | None = None,
) -> PublishResult:
    """Upload the sidecar, the weights it names and the model card; only what differs is sent.

    The folder itself is not changed. Raises UsageError, SidecarError (nothing is sent), HubError,
    NetworkError.
    """
    how, told = options or PublishOptions(), progress or Silent()
    _check_target(repo_id, how.revision)
    _refuse_student(folder)
    told.step("validating the sidecar")
    manifest = read_sidecar(folder).manifest
    hub = Hub(token=token)
    if hub.offline:
        raise NetworkError(
            "publishing needs the network, and HF_HUB_OFFLINE is set", hint="unset HF_HUB_OFFLINE"
        )
    told.step(f"comparing with {repo_id} at {hub.endpoint}")
    head = hub.head(repo_id, how.revision)
    where = f"{hub.endpoint}/{repo_id}"
    if how.private and head is not None and not head.private:
        raise HubError(
            "the repository exists and is public",
            where=where,
            hint="make it private on the Hub first, or leave --private out",
        )
    changed, unchanged = _compare(hub, folder, manifest, repo_id, head)
    sizes = [(path, size_of(file)) for path, file in changed.items()]
    result = PublishResult(repo_id, where, None, sizes, unchanged, creates=head is None)
    if how.dry_run:
        return result
    parent = _make_room(hub, repo_id, how, head)
    if not changed:
        return result
    told.step(f"uploading {len(changed)} files in one commit")
    message = f"Publish dfkd-meta sidecar (profile {manifest.profile})"
    commit, url = hub.commit(
        repo_id, changed, onto=(how.revision, parent), message=message, create_pr=how.create_pr
    )
    return replace(result, commit=commit, url=url)


def _check_target(repo_id: str, revision: str) -> None:
    if not is_repo_id(repo_id):
        raise UsageError(f"{repo_id!r} is not a repository on the Hub", hint="e.g. user/name")
    if not is_revision(revision) or is_commit(revision):
        raise UsageError(f"cannot publish onto {revision!r}", hint="give the name of a branch")


def _refuse_student(folder: Path) -> None:
    if (folder / RUN_FILE).is_file() and not (folder / MANIFEST_FILE).is_file():
        raise UsageError(
            "this is a student without a sidecar of its own",
            where=str(folder),
            hint="'hf upload user/name FOLDER' publishes it as it is; 'dfkd-meta export' makes a "
            "sidecar, from data",
        )


def _compare(
    hub: Hub, folder: Path, manifest: Manifest, repo_id: str, head: Head | None
) -> tuple[dict[str, Path | bytes], list[str]]:
    """What differs from the head of the branch, and the names of what does not."""
    files = files_of(folder, manifest, repo_id)
    remote = hub.listing(repo_id, head.commit, [*files, CARD_FILE]) if head else {}
    published = Place(repo_id, head.commit) if head and CARD_FILE in remote else None
    files[CARD_FILE] = update_card(_card(hub, folder, published), manifest, repo_id).encode()
    changed = {path: file for path, file in files.items() if differs(file, remote.get(path))}
    return changed, [path for path in files if path not in changed]


def files_of(folder: Path, manifest: Manifest, repo_id: str) -> dict[str, Path | bytes]:
    """What a publication holds, the card aside: sidecar, config.json and the weights.

    Weights that the manifest places in another repository stay there.
    """
    names = [MANIFEST_FILE, TENSOR_FILE]
    weights_at = teacher_place(manifest, Place(repo_id, ""))
    for file in manifest.teacher.files:
        refuse_unsafe(file.path, str(folder))
        if weights_at.repo_id == repo_id:
            names.append(file.path)
    names.append(CONFIG_FILE)
    return {name: folder / name for name in dict.fromkeys(names) if (folder / name).is_file()}


def _card(hub: Hub, folder: Path, published: Place | None) -> str:
    """The card to bring up to date: the folder's README.md, else the published one, else none."""
    path = folder / CARD_FILE
    if not path.is_file():
        if published is None:
            return ""
        path = hub.download(published.repo_id, published.commit, CARD_FILE)
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise DataError("README.md is not UTF-8", where=str(path)) from error


def _make_room(hub: Hub, repo_id: str, how: PublishOptions, head: Head | None) -> str:
    """Make the repository and the branch if they are missing; returns the branch's commit."""
    if head is None:
        hub.create(repo_id, private=how.private)
        head = hub.head(repo_id, how.revision)
        if head is None:
            raise HubError(
                "the repository exists, but this token may not see it",
                where=f"{hub.endpoint}/{repo_id}",
                hint="log in with 'hf auth login', or give a token that may write with --token",
            )
    if not head.branch_exists:
        hub.create_branch(repo_id, how.revision)
    return head.commit


def differs(file: Path | bytes, remote: RemoteFile | None) -> bool:
    """Whether the Hub's copy is missing or another one: by size, then by the digest it lists."""
    if remote is None or remote.size != size_of(file):
        return True
    if remote.sha256 is not None:
        local = hashlib.sha256(file).hexdigest() if isinstance(file, bytes) else sha256_file(file)
        return local != remote.sha256
    data = file if isinstance(file, bytes) else file.read_bytes()
    git = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False)
    return git.hexdigest() != remote.blob_id


def size_of(file: Path | bytes) -> int:
    return len(file) if isinstance(file, bytes) else file.stat().st_size
