"""The routes of the loopback Hub: accounts, reading, committing, LFS and Xet."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from typing import Any
from urllib.parse import parse_qs

import yaml  # type: ignore[import-untyped]

from tests.support.hub_http import ROUTES, RefusalError, Reply, Request, route
from tests.support.hub_store import HubState, Repo, StoredFile, Tree, is_lfs
from tests.support.hub_xet import xet_hash

__all__ = ["ROUTES"]

Words = dict[str, str]


def find(hub: HubState, request: Request, words: Words, *, write: bool = False) -> Repo:
    """The repository, if this user may see (or change) it."""
    repo = hub.repos.get(words["repo"])
    if repo is None or (repo.private and request.user != repo.owner):
        raise RefusalError(
            401 if request.user is None else 404, "Repository not found", "RepoNotFound"
        )
    if write and request.user != repo.owner:
        raise RefusalError(
            401 if request.user is None else 403, "you do not have write access to this repository"
        )
    return repo


def commit_of(repo: Repo, words: Words) -> str:
    commit = repo.resolve(words.get("revision", "main"))
    if commit is None:
        raise RefusalError(404, f"Invalid rev id: {words['revision']}", "RevisionNotFound")
    return commit


@route("GET", "/api/whoami-v2")
def whoami(hub: HubState, request: Request, words: Words) -> Reply:
    if request.user is None:
        raise RefusalError(401, "Invalid username or password.")
    return Reply.json({"type": "user", "name": request.user, "orgs": []})


@route("POST", "/api/repos/create")
def create(hub: HubState, request: Request, words: Words) -> Reply:
    wanted = request.json()
    owner = wanted.get("organization") or request.user
    if request.user is None or owner != request.user:
        status = 401 if request.user is None else 403
        raise RefusalError(status, f"you may not create a repository under {owner}")
    repo_id = f"{owner}/{wanted['name']}"
    url = f"{hub.url}/{repo_id}"
    if repo_id in hub.repos:
        return Reply.json({"error": "You already created this model repo", "url": url}, 409)
    hub.repos[repo_id] = Repo(owner, private=wanted.get("visibility") == "private")
    return Reply.json({"url": url, "name": repo_id, "id": repo_id})


@route("POST", "/api/validate-yaml")
def validate_yaml(hub: HubState, request: Request, words: Words) -> Reply:
    content = request.json()["content"]
    try:
        card = yaml.safe_load(content.split("---\n")[1]) if content.startswith("---\n") else {}
    except yaml.YAMLError as error:
        return Reply.json({"errors": [{"message": str(error)}], "warnings": []}, 400)
    errors = [] if isinstance(card, dict) else [{"message": "metadata must be a mapping"}]
    return Reply.json({"errors": errors, "warnings": []}, 400 if errors else 200)


@route("GET", "/api/models/{repo}")
@route("GET", "/api/models/{repo}/revision/{revision}")
def info(hub: HubState, request: Request, words: Words) -> Reply:
    repo = find(hub, request, words)
    commit = commit_of(repo, words)
    names = [{"rfilename": path} for path in sorted(repo.tree(commit))]
    about = {"id": words["repo"], "sha": commit, "private": repo.private, "gated": repo.gated}
    return Reply.json(about | {"siblings": names, "tags": [], "downloads": 0, "likes": 0})


@route("POST", "/api/models/{repo}/paths-info/{revision}")
def paths_info(hub: HubState, request: Request, words: Words) -> Reply:
    repo = find(hub, request, words)
    tree = repo.tree(commit_of(repo, words))
    paths = parse_qs(request.body.decode()).get("paths", [])
    return Reply.json([tree[path].listing(path) for path in paths if path in tree])


@route("GET", "/api/models/{repo}/tree/{revision}")
def list_tree(hub: HubState, request: Request, words: Words) -> Reply:
    repo = find(hub, request, words)
    tree = repo.tree(commit_of(repo, words))
    return Reply.json([file.listing(path) for path, file in sorted(tree.items())])


@route("GET HEAD", "/{repo}/resolve/{revision}/{path}")
def resolve(hub: HubState, request: Request, words: Words) -> Reply:
    repo = find(hub, request, words)
    commit = commit_of(repo, words)
    if repo.gated and request.user != repo.owner:
        status = 401 if request.user is None else 403
        raise RefusalError(status, f"Access to model {words['repo']} is restricted.", "GatedRepo")
    file = repo.tree(commit).get(words["path"])
    if file is None:
        raise RefusalError(404, "Entry not found", "EntryNotFound")
    headers = {"X-Repo-Commit": commit, "ETag": f'"{file.etag}"', "Accept-Ranges": "bytes"}
    headers["X-Linked-Size"] = str(file.size)
    if file.lfs:
        headers["X-Linked-ETag"] = f'"{file.sha256}"'
    if file.xet:
        token_url = f"{hub.url}/api/models/{words['repo']}/xet-read-token/{commit}"
        headers |= {"X-Xet-Hash": file.xet, "Link": f'<{token_url}>; rel="xet-auth"'}
    if request.method == "HEAD":
        return Reply(headers=headers | {"Content-Length": str(file.size)})
    return content(file.data or b"", request.headers.get("Range"), headers)


def content(data: bytes, wanted: str | None, headers: dict[str, str]) -> Reply:
    """The body of a file, or the part of it that a ``Range: bytes=a-b`` header asks for."""
    if not wanted:
        return Reply(data, headers=headers)
    first, last = wanted.removeprefix("bytes=").split("-")
    start, stop = int(first or 0), int(last) + 1 if last else len(data)
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
    return Reply(data[start:stop], 206, headers)


@route("POST", "/api/models/{repo}/branch/{branch}")
def branch(hub: HubState, request: Request, words: Words) -> Reply:
    repo = find(hub, request, words, write=True)
    repo.refs[words["branch"]] = repo.refs["main"]
    return Reply.json({})


@route("POST", "/api/models/{repo}/preupload/{revision}")
def preupload(hub: HubState, request: Request, words: Words) -> Reply:
    repo = find(hub, request, words, write=True)
    tree = repo.tree(commit_of(repo, words))
    answers = []
    for file in request.json()["files"]:
        mode = "lfs" if is_lfs(file["path"], file["size"]) else "regular"
        answer = {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}
        if file["path"] in tree:
            answer["oid"] = tree[file["path"]].etag
        answers.append(answer)
    return Reply.json({"files": answers})


@route("POST", "/api/models/{repo}/commit/{revision}")
def commit(hub: HubState, request: Request, words: Words) -> Reply:
    repo = find(hub, request, words, write=True)
    if hub.before_commit is not None:
        hub.before_commit(repo)
    parent = commit_of(repo, words)
    lines = [json.loads(line) for line in request.body.splitlines()]
    header = next(line["value"] for line in lines if line["key"] == "header")
    if header.get("parentCommit", parent) != parent:
        raise RefusalError(412, "A commit has happened since. Please refresh and try again.")
    target, extra = words["revision"], {}
    if "create_pr=1" in request.query:
        target = f"refs/pr/{sum(name.startswith('refs/pr/') for name in repo.refs) + 1}"
        extra = {"pullRequestUrl": f"{hub.url}/{words['repo']}/discussions/{target[-1]}"}
    oid = repo.commit(target, {**repo.tree(parent), **sent_files(hub, lines)})
    url = f"{hub.url}/{words['repo']}/commit/{oid}"
    return Reply.json({"success": True, "commitOid": oid, "commitUrl": url, **extra})


def sent_files(hub: HubState, lines: list[dict[str, Any]]) -> Tree:
    """The files a commit adds: inline (base64), or LFS objects that were uploaded before."""
    tree: dict[str, StoredFile] = {}
    for line in lines:
        value = line["value"]
        if line["key"] == "file":
            path = value["path"]
            tree[path] = StoredFile.of(path, base64.b64decode(value["content"]))
        elif line["key"] == "lfsFile" and value["oid"] in hub.blobs:
            tree[value["path"]] = StoredFile.of(value["path"], hub.blobs[value["oid"]])
        elif line["key"] == "lfsFile":
            xet = hub.xet_folder and xet_hash(hub.xet_folder, value["oid"])
            if not xet:
                raise RefusalError(
                    400, f"LFS pointer to a file that does not exist: {value['oid']}"
                )
            size = int(value["size"])
            tree[value["path"]] = StoredFile(None, size, value["oid"], lfs=True, xet=xet)
    return tree


@route("POST", r"/{repo}\.git/info/lfs/objects/batch")
def lfs_batch(hub: HubState, request: Request, words: Words) -> Reply:
    find(hub, request, words, write=True)
    objects = []
    for wanted in request.json()["objects"]:
        answer = {"oid": wanted["oid"], "size": wanted["size"]}
        if wanted["oid"] not in hub.blobs:
            answer["actions"] = {"upload": {"href": f"{hub.url}/lfs/{wanted['oid']}"}}
        objects.append(answer)
    return Reply.json({"transfer": "basic", "objects": objects})


@route("PUT", "/lfs/{oid}")
def lfs_put(hub: HubState, request: Request, words: Words) -> Reply:
    if hashlib.sha256(request.body).hexdigest() != words["oid"]:
        raise RefusalError(400, "the content does not have this sha256")
    hub.blobs[words["oid"]] = request.body
    return Reply()


@route("GET", r"/api/models/{repo}/xet-(?:read|write)-token/{revision}")
def xet_token(hub: HubState, request: Request, words: Words) -> Reply:
    if hub.xet_folder is None:
        raise RefusalError(404, "Not Found")
    store, expires = f"local://{hub.xet_folder}", int(time.time()) + 3600
    reply = Reply.json({"accessToken": "x", "casUrl": store, "exp": expires})
    reply.headers |= {
        "X-Xet-Access-Token": "x", "X-Xet-Token-Expiration": str(expires), "X-Xet-Cas-Url": store,
    }  # fmt: skip
    return reply
