"""How long work reports itself: the library calls it, a shell draws it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


class Progress(Protocol):
    """What a use case tells whoever watches."""

    def step(self, message: str) -> None:
        """A named step begins, e.g. ``checking digests``."""

    def warn(self, message: str) -> None:
        """Something is probably wrong with what was given."""

    def track(self, items: Iterable[T], *, total: int, what: str) -> Iterator[T]:
        """Yield the items while showing how many of ``total`` are done."""


class Silent:
    """Reports nothing: the default everywhere below the shell."""

    def step(self, message: str) -> None:
        return None

    def warn(self, message: str) -> None:
        return None

    def track(self, items: Iterable[T], *, total: int, what: str) -> Iterator[T]:
        return iter(items)
