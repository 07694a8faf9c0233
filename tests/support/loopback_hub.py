"""A Hub on 127.0.0.1 that serves the real ``huggingface_hub`` client from memory.

It speaks the documented routes that publishing and pulling a model need, in LFS mode and (with a
folder for hf_xet's ``local://`` store) in Xet mode. Tests reach into ``repos`` to arrange a scene,
read ``requests`` to see what a client did, and inject faults with ``fail`` and ``truncate``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import ClassVar
from urllib.parse import unquote, urlsplit

from tests.support.hub_http import RefusalError, Reply, Request
from tests.support.hub_routes import ROUTES
from tests.support.hub_store import HubState, Repo, StoredFile


@dataclass
class Cut:
    """Downloads to break off: those that match, the next ``times`` of them."""

    pattern: re.Pattern[str]
    keep: int  # bytes
    times: int


class LoopbackHub(HubState):
    """The server. ``with LoopbackHub() as hub: ... hub.url``."""

    users: ClassVar[dict[str, str]] = {"hf_alice": "alice", "hf_bob": "bob"}

    def __init__(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        super().__init__(url=f"http://127.0.0.1:{self._server.server_port}")
        self.requests: list[str] = []  # "METHOD /path status"
        self._faults: list[tuple[re.Pattern[str], int]] = []
        self._cuts: list[Cut] = []

    def __enter__(self) -> LoopbackHub:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def seed(self, repo_id: str, files: dict[str, bytes], *, branch: str = "main") -> str:
        """Commit files behind the client's back (owner: the namespace); returns the commit id."""
        repo = self.repos.setdefault(repo_id, Repo(owner=repo_id.split("/")[0]))
        tree = dict(repo.tree(branch if branch in repo.refs else "main"))
        tree |= {path: StoredFile.of(path, data) for path, data in files.items()}
        return repo.commit(branch, tree)

    def files(self, repo_id: str, revision: str = "main") -> dict[str, bytes]:
        """The files of a revision, without the ones the server itself made."""
        tree = self.repos[repo_id].tree(revision)
        return {path: f.data or b"" for path, f in tree.items() if path != ".gitattributes"}

    def fail(self, pattern: str, status: int = 500) -> None:
        """Answer every request whose ``METHOD /path`` matches with a status."""
        self._faults.append((re.compile(pattern), status))

    def truncate(self, pattern: str, keep: int, times: int = 1_000) -> None:
        """Promise the whole body of matching downloads, send ``keep`` bytes and hang up."""
        self._cuts.append(Cut(re.compile(pattern), keep, times))

    def heal(self) -> None:
        self._faults.clear()
        self._cuts.clear()

    def uploads(self) -> list[str]:
        """The requests that changed the server."""
        return [
            line for line in self.requests if re.match(r"PUT|.*/(create|commit|branch)\b", line)
        ]

    def answer(self, request: Request) -> Reply:
        line = f"{request.method} {request.path}"
        reply = self._answer(line, request)
        self.requests.append(f"{line} {reply.status}")
        for cut in self._cuts:
            if request.method == "GET" and cut.pattern.search(line) and cut.times > 0:
                cut.times -= 1
                reply.promised, reply.body = len(reply.body), reply.body[: cut.keep]
        return reply

    def _answer(self, line: str, request: Request) -> Reply:
        for pattern, status in self._faults:
            if pattern.search(line):
                return RefusalError(status, "the server is out of order").reply()
        for method, pattern, route in ROUTES:
            match = pattern.fullmatch(request.path)
            if match and method == request.method:
                words = {name: unquote(text) for name, text in match.groupdict().items()}
                try:
                    return route(self, request, words)
                except RefusalError as refusal:
                    return refusal.reply()
        return RefusalError(404, f"no route {line}").reply()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # else every small answer waits 40 ms for an ACK

            def do(self) -> None:
                url = urlsplit(self.path)
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                token = self.headers.get("Authorization", "").removeprefix("Bearer ")
                reply = hub.answer(
                    Request(
                        self.command, url.path, url.query, self.headers, body, hub.users.get(token)
                    )
                )
                length = len(reply.body) if reply.promised is None else reply.promised
                self.send_response(reply.status)
                for name, value in ({"Content-Length": str(length)} | reply.headers).items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(reply.body)
                self.close_connection = reply.promised is not None

            do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do  # noqa: N815

            def log_message(self, format: str, *values: object) -> None:
                """Tests read ``requests`` instead."""

        return Handler
