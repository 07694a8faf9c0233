"""What a loopback Hub remembers: repositories, their commits and the files of each commit."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

LFS_THRESHOLD = 1 << 20  # bytes; .safetensors files are LFS at any size
_serial = itertools.count()


def is_lfs(path: str, size: int) -> bool:
    """The real Hub decides by extension and size; so does this one."""
    return path.endswith(".safetensors") or size >= LFS_THRESHOLD


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


@dataclass(frozen=True)
class StoredFile:
    """A file of a commit; ``data`` is None when its bytes lie in a Xet store under ``xet``."""

    data: bytes | None
    size: int
    sha256: str
    lfs: bool
    xet: str | None = None

    @classmethod
    def of(cls, path: str, data: bytes) -> StoredFile:
        digest = hashlib.sha256(data).hexdigest()
        return cls(data, len(data), digest, is_lfs(path, len(data)))

    @property
    def oid(self) -> str:
        """The git object id: of the content, or of the LFS pointer file."""
        if not self.lfs:
            return git_sha1(self.data or b"")
        pointer = (
            f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\n"
            f"size {self.size}\n"
        )
        return git_sha1(pointer.encode())

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.oid

    def listing(self, path: str) -> dict[str, object]:
        entry: dict[str, object] = {
            "type": "file", "oid": self.oid, "size": self.size, "path": path,
        }  # fmt: skip
        if self.lfs:
            entry["lfs"] = {"oid": self.sha256, "size": self.size, "pointerSize": 134}
        if self.xet:
            entry["xetHash"] = self.xet
        return entry


Tree = Mapping[str, StoredFile]


@dataclass
class Repo:
    """A model repository. ``history`` holds commit ids, oldest first."""

    owner: str
    private: bool = False
    gated: bool = False
    trees: dict[str, Tree] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    history: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        attributes = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"
        self.commit("main", {".gitattributes": StoredFile.of(".gitattributes", attributes)})

    def resolve(self, revision: str) -> str | None:
        """The commit id of a branch, tag or commit id."""
        commit = self.refs.get(revision, revision)
        return commit if commit in self.trees else None

    def tree(self, revision: str) -> Tree:
        return self.trees[self.refs.get(revision, revision)]

    def commit(self, branch: str, tree: Tree) -> str:
        """Make a tree the head of a branch. Ids are never repeated, so no cache can mix them up."""
        seed = f"{next(_serial)} {self.owner} {sorted(tree)}"
        commit = hashlib.sha1(seed.encode(), usedforsecurity=False).hexdigest()
        self.trees[commit] = dict(tree)
        self.refs[branch] = commit
        self.history.append(commit)
        return commit


@dataclass
class HubState:
    """All the server knows. ``before_commit`` runs ahead of every commit: to lose a race."""

    url: str
    repos: dict[str, Repo] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)  # LFS objects by sha256
    xet_folder: Path | None = None
    before_commit: Callable[[Repo], None] | None = None
