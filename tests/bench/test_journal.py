"""The journal survives whatever a kill leaves of it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfkd_meta.bench.journal import append_record, only_one, read_journal, repair_journal
from dfkd_meta.errors import UsageError

REFUSED = {"status": "refused", "reason": "no BatchNorm", "cell": {}, "sidecar": {}}
RECORDS = [{**REFUSED, "key": f"k{i}", "text": "é" * i, "value": i / 7} for i in range(5)]


def lines() -> bytes:
    return b"".join(json.dumps(record, ensure_ascii=False).encode() + b"\n" for record in RECORDS)


@given(st.integers(0, len(lines())))
def test_cut_anywhere_the_whole_lines_are_left(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = tmp_path_factory.mktemp("cut") / "results.jsonl"
    path.write_bytes(lines()[:cut])
    whole = lines()[:cut].count(b"\n")
    assert list(read_journal(path).values()) == RECORDS[:whole]
    assert repair_journal(path) == (not lines()[:cut].endswith(b"\n") and cut > 0)
    append_record(path, {**REFUSED, "key": "next"})
    assert list(read_journal(path)) == [record["key"] for record in RECORDS[:whole]] + ["next"]


def test_the_latest_record_of_a_key_counts(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    assert read_journal(path) == {}
    assert not repair_journal(path)
    for value in (1, 2):
        append_record(path, {**REFUSED, "key": "k", "value": value})
    assert read_journal(path) == {"k": {**REFUSED, "key": "k", "value": 2}}
    for key in ("other", "k"):
        append_record(path, {**REFUSED, "key": key})
    assert list(read_journal(path)) == ["other", "k"]  # in the order they were written


DONE = json.dumps({**REFUSED, "key": "k", "status": "done"})


@pytest.mark.parametrize(
    "line", ["not json", "[1]", "{}", '"text"', '{"key": "k"}', DONE, "[" * 100_000]
)
def test_another_line_that_is_no_record_is_refused_by_number(line: str, tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    other = json.dumps(RECORDS[0])
    path.write_text(f"{other}\n{line}\n{other}\n")
    with pytest.raises(UsageError, match="line 2"):
        read_journal(path)


def test_a_full_disk_leaves_the_journal_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "results.jsonl"
    append_record(path, RECORDS[0])
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, line: write(handle, line[:40]))
    with pytest.raises(OSError, match="No space left"):
        append_record(path, RECORDS[1])
    monkeypatch.undo()
    append_record(path, RECORDS[2])
    assert list(read_journal(path)) == ["k0", "k2"]


def test_numbers_that_json_does_not_know_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        append_record(tmp_path / "results.jsonl", {"key": "k", "loss": float("nan")})
    assert not (tmp_path / "results.jsonl").exists()


def test_one_bench_at_a_time(tmp_path: Path) -> None:
    again = pytest.raises(UsageError, match="another bench")
    with only_one(tmp_path), again, only_one(tmp_path):
        pass
    with only_one(tmp_path):
        pass
