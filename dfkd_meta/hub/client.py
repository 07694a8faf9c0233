"""The Hub as this package needs it: resolve, list, download and commit, with our errors."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi, constants
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils.tqdm import disable_progress_bars

from dfkd_meta.errors import HubError, UsageError
from dfkd_meta.hub.failures import Attempt, hub_errors


@dataclass(frozen=True)
class RemoteFile:
    """A file of a commit as the Hub lists it. ``sha256`` is known for LFS files only."""

    path: str
    size: int
    blob_id: str
    sha256: str | None = None


@dataclass(frozen=True)
class Head:
    """What a branch stands at; a branch that is not there yet will start at main's commit."""

    commit: str
    private: bool
    branch_exists: bool = True


def hide_bars() -> None:
    """Turn the Hub client's own progress bars off in this process: a decision of the shell."""
    if constants.HF_HUB_DISABLE_PROGRESS_BARS is None:  # else the environment has decided
        disable_progress_bars()


class Hub:
    """The Hub at ``HF_ENDPOINT``. Without a token the one of 'hf auth login' or HF_TOKEN is used.

    ``cache_dir`` is the cache that all Hugging Face tools share, unless given. Raises UsageError
    for what is no token; the message does not show it.
    """

    def __init__(self, *, token: str | None = None, cache_dir: Path | None = None) -> None:
        if token is not None:
            token = token.strip()  # a file ends with a newline
            if not re.fullmatch("[!-~]+", token):
                raise UsageError(
                    "the token is empty or holds a character that no token has",
                    hint="copy it once more, or log in with 'hf auth login'",
                )
        self._api = HfApi(token=token, library_name="dfkd-meta")
        self.endpoint = self._api.endpoint
        self.offline = constants.is_offline_mode()
        self._cache = Path(cache_dir or constants.HF_HUB_CACHE).expanduser()
        assets = Path(cache_dir) / "assets" if cache_dir else Path(constants.HF_ASSETS_CACHE)
        self.assets = assets.expanduser() / "dfkd-meta"

    def resolve(self, repo_id: str, revision: str) -> str:
        """The commit (40 hex digits) that a branch, tag or commit stands for now."""
        with self._errors(repo_id, revision):
            return self._api.resolve_revision(
                repo_id, revision=revision, cache_dir=self._cache, local_files_only=self.offline
            ).resolved

    def listing(self, repo_id: str, commit: str, paths: Collection[str]) -> dict[str, RemoteFile]:
        """Those of the paths that are files of the commit, with size and digest."""
        with self._errors(repo_id, commit):
            entries = self._api.get_paths_info(repo_id, sorted(paths), revision=commit)
        return {
            entry.path: RemoteFile(
                entry.path, entry.size, entry.blob_id, entry.lfs.sha256 if entry.lfs else None
            )
            for entry in entries
            if isinstance(entry, RepoFile)
        }

    def download(self, repo_id: str, commit: str, path: str) -> Path:
        """One file of a commit, from the cache or through the network into it."""
        with self._errors(repo_id, commit):
            return Path(
                self._api.hf_hub_download(repo_id, path, revision=commit, cache_dir=self._cache)
            )

    def head(self, repo_id: str, branch: str) -> Head | None:
        """What a branch stands at, as the user of the token sees it; None without a repository."""
        with self._errors(repo_id, branch):
            try:
                info = self._api.model_info(repo_id, revision=branch)
                exists = True
            except RevisionNotFoundError:
                info = self._api.model_info(repo_id)
                exists = False
            except RepositoryNotFoundError:
                return None
        if info.sha is None:
            raise HubError("the Hub names no commit", where=f"{self.endpoint}/{repo_id}")
        return Head(info.sha, bool(info.private), exists)

    def create(self, repo_id: str, *, private: bool) -> None:
        """Make the repository. It may exist already."""
        with self._errors(repo_id, writing=True):
            # None, not False: an organization may have its own default.
            self._api.create_repo(repo_id, private=private or None, exist_ok=True)

    def create_branch(self, repo_id: str, branch: str) -> None:
        with self._errors(repo_id, branch, writing=True):
            self._api.create_branch(repo_id, branch=branch, exist_ok=True)

    def commit(
        self,
        repo_id: str,
        files: Mapping[str, Path | bytes],
        *,
        onto: tuple[str, str],
        message: str,
        create_pr: bool = False,
    ) -> tuple[str, str]:
        """Add files in one commit onto (branch, its head); refused if the head has moved.

        Returns the commit id and the address of the commit or pull request.
        """
        branch, parent = onto
        # The client declares bytes and BinaryIO, and str for paths.
        operations = [
            CommitOperationAdd(path, file if isinstance(file, bytes) else str(file))
            for path, file in files.items()
        ]
        with self._errors(repo_id, branch, writing=True):
            made = self._api.create_commit(
                repo_id,
                operations,
                commit_message=message,
                revision=branch,
                parent_commit=parent,
                create_pr=create_pr,
            )
        return made.oid, made.pr_url or made.commit_url

    def _errors(
        self, repo_id: str, revision: str | None = None, *, writing: bool = False
    ) -> AbstractContextManager[None]:
        return hub_errors(Attempt(self.endpoint, repo_id, revision, writing))
