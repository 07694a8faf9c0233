"""The header of the tensor file: a safetensors reader that trusts nothing.

Layout (safetensors): ``uint64 n`` (little endian), ``n`` bytes of JSON header, then the data. The
header maps a name to ``{dtype, shape, data_offsets: [begin, end]}``, offsets relative to the data.
The tensors must fill the data without overlap or hole.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from dfkd_meta.sidecar.issues import short
from dfkd_meta.sidecar.json_text import JsonError, parse_json

Found = Callable[[str, str], None]  # (code, message)

MAX_TENSOR_FILE_BYTES = 2**30
MAX_HEADER_BYTES = 4 * 2**20
MAX_TEACHER_HEADER_BYTES = 16 * 2**20
MAX_TENSORS = 40_000
MAX_NAME = 200
MAX_ELEMENTS = 2**48
MAX_AXES, MAX_TEACHER_AXES = 8, 64
OWN_BITS = {"F16": 16, "F32": 32, "F64": 64, "I64": 64}
# Bits of each dtype that a teacher's own file may hold (they are laid out, never read).
FOREIGN_BITS = {"BOOL": 8, "U8": 8, "I8": 8, "I16": 16, "U16": 16, "BF16": 16, "I32": 32}
FOREIGN_BITS |= {"U32": 32, "U64": 64, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F4": 4}
FOREIGN_BITS |= {"F6_E2M3": 6, "F6_E3M2": 6, "C64": 64, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8}


@dataclass(frozen=True)
class Entry:
    """One tensor of a header; ``begin`` and ``end`` are bytes relative to the data."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    """A header that passed every check: the entries by name, and where the data begin."""

    entries: Mapping[str, Entry]
    data_begin: int


def read_header(file: BinaryIO, size: int, found: Found, *, teacher: bool = False) -> Header | None:
    """Read and check the header of a safetensors file of ``size`` bytes.

    Every breach goes to ``found(code, message)``; the result is None if there was one. A teacher's
    file may hold more dtypes, more axes and any names; the sidecar's own may not.
    """
    limit = MAX_TEACHER_HEADER_BYTES if teacher else MAX_HEADER_BYTES
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > min(limit, size - 8):
        found(
            "DM203",
            f"a header of {length:,} bytes in a file of {size:,}; at most {limit:,} allowed",
        )
        return None
    raw = file.read(length)
    if len(raw) < length:
        found("DM203", "the file ends within its header")
        return None
    table = _parse(raw, limit, found)
    if table is None:
        return None
    check = _HeaderCheck(found, {**OWN_BITS, **FOREIGN_BITS} if teacher else OWN_BITS, teacher)
    entries = check.entries(table)
    check.layout(entries, size - 8 - length)
    return None if check.failed else Header(entries, 8 + length)


def _parse(raw: bytes, limit: int, found: Found) -> dict[str, Any] | None:
    try:
        table = parse_json(raw, limit)
    except JsonError as error:
        found("DM205" if error.code == "DM104" else "DM204", error.message)
        return None
    if not raw.startswith(b"{") or not isinstance(table, dict):
        found("DM204", "the header must begin with '{'")
        return None
    return table


class _HeaderCheck:
    """The rules of a header; remembers whether one was broken."""

    def __init__(self, found: Found, bits: Mapping[str, int], teacher: bool) -> None:
        self._found = found
        self._bits = bits
        self._teacher = teacher
        self.failed = False

    def found(self, code: str, message: str) -> None:
        self.failed = True
        self._found(code, message)

    def entries(self, table: dict[str, Any]) -> dict[str, Entry]:
        metadata = table.pop("__metadata__", {})
        if metadata is None and self._teacher:
            metadata = {}  # safetensors itself takes it so
        texts = isinstance(metadata, dict) and all(isinstance(v, str) for v in metadata.values())
        if not texts:
            self.found("DM212", "__metadata__ must map texts to texts")
        if len(table) > MAX_TENSORS and not self._teacher:
            self.found("DM214", f"{len(table):,} tensors")
            return {}
        made = {name: self.entry(name, raw) for name, raw in table.items()}
        return {name: entry for name, entry in made.items() if entry is not None}

    def entry(self, name: str, raw: Any) -> Entry | None:
        if not self._teacher and not good_name(name):
            self.found("DM208", f"the tensor name {short(name)}")
            return None
        where = f"tensor {short(name)}"
        if not isinstance(raw, dict) or set(raw) != {"dtype", "shape", "data_offsets"}:
            self.found("DM206", f"{where} is not described by dtype, shape and data_offsets")
            return None
        dtype, shape, offsets = raw["dtype"], raw["shape"], raw["data_offsets"]
        axes = MAX_TEACHER_AXES if self._teacher else MAX_AXES
        if not _sizes(shape, axes) or not _sizes(offsets, 2) or len(offsets) != 2:
            self.found("DM206", f"{where}: shape or data_offsets are not lists of sizes")
            return None
        if not isinstance(dtype, str) or dtype not in self._bits:
            self.found("DM207", f"{where} has dtype {short(dtype)}")
            return None
        entry = Entry(dtype, tuple(shape), *offsets)
        # Empty tensors too must have sizes that arrays can have.
        sound = math.prod(filter(None, shape)) <= MAX_ELEMENTS
        if not sound or (entry.end - entry.begin) * 8 != math.prod(shape) * self._bits[dtype]:
            self.found("DM209", f"{where}: {dtype} {list(shape)} does not fill bytes {offsets}")
            return None
        return entry

    def layout(self, entries: Mapping[str, Entry], data_bytes: int) -> None:
        if self.failed:
            return
        position = 0
        ordered = sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end))
        for name, entry in ordered:
            if entry.begin != position:
                what = "overlaps another" if entry.begin < position else "leaves a hole"
                self.found("DM210", f"tensor {short(name)} {what}")
                return
            position = entry.end
        if position != data_bytes:
            text = f"the tensors fill {position:,} bytes, the file holds {data_bytes:,}"
            self.found("DM211", text)


def _sizes(value: Any, most: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= most
        and all(type(item) is int and 0 <= item < 2**48 for item in value)
    )


def good_name(name: str) -> bool:
    """Whether a tensor name is 1 to 200 printable ASCII characters."""
    return 0 < len(name) <= MAX_NAME and name.isascii() and name.isprintable()
