"""Requests, replies, refusals and the route table of the loopback Hub."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.support.hub_store import HubState


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: str
    headers: Any
    body: bytes
    user: str | None

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Reply:
    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    promised: int | None = None  # Content-Length, when it is not the length of the body

    @classmethod
    def json(cls, data: Any, status: int = 200) -> Reply:
        return cls(json.dumps(data).encode(), status, {"Content-Type": "application/json"})


class RefusalError(Exception):
    """An error as the Hub sends it: a status, ``X-Error-Code`` and ``X-Error-Message``."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self.status = status

    def reply(self) -> Reply:
        body = json.dumps({"error": self.headers["X-Error-Message"]}).encode()
        return Reply(body, self.status, {"Content-Type": "application/json", **self.headers})


Route = Callable[[HubState, Request, dict[str, str]], Reply]
ROUTES: list[tuple[str, re.Pattern[str], Route]] = []


def route(methods: str, pattern: str) -> Callable[[Route], Route]:
    """Register a handler for methods ("GET HEAD") and a path; ``{name}`` is one segment of it."""
    whole = pattern.replace("{repo}", "(?P<repo>[^/]+/[^/]+)").replace("{path}", "(?P<path>.+)")
    whole = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", whole)

    def add(handler: Route) -> Route:
        ROUTES.extend((method, re.compile(whole), handler) for method in methods.split())
        return handler

    return add
