"""Finds files in the store that hf_xet's ``local://`` client writes (meant for tests)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_END = b"\xff" * 32
_VERIFIED, _HAS_SHA256 = 1 << 31, 1 << 30


def xet_hash(folder: Path, sha256: str) -> str | None:
    """The Xet hash of a file by its sha256, or None when the store lacks it."""
    for shard in folder.rglob("shards/*.mdb"):
        for digest, name in _shard_files(shard.read_bytes()):
            if digest == sha256:
                return name
    return None


def _shard_files(data: bytes) -> Iterator[tuple[str, str]]:
    """(sha256, xet hash) per file of a shard.

    A shard is a 48-byte header, then per file: a 48-byte header, n segments, n verification
    entries when flagged, and an entry with the sha256 when flagged; 48 bytes each.
    """
    offset = 48
    while data[offset : offset + 32] != _END:
        name = data[offset : offset + 32]
        flags = int.from_bytes(data[offset + 32 : offset + 36], "little")
        segments = int.from_bytes(data[offset + 36 : offset + 40], "little")
        offset += 48 * (1 + segments * (2 if flags & _VERIFIED else 1))
        if flags & _HAS_SHA256:
            yield _hex(data[offset : offset + 32]), _hex(name)
            offset += 48


def _hex(digest: bytes) -> str:
    """Xet prints a digest as four little-endian 64-bit numbers."""
    return "".join(digest[start : start + 8][::-1].hex() for start in (0, 8, 16, 24))
