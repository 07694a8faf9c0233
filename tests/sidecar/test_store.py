"""The tensor file: stable bytes, and a header reader at least as strict as safetensors."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save

from dfkd_meta.sidecar.arrays import dump_tensors, view
from dfkd_meta.sidecar.store import Header, read_header
from tests.sidecar.example import safetensors

DTYPES = ["<f2", "<f4", "<f8", "<i8"]


def read(data: bytes, *, teacher: bool = False) -> tuple[Header | None, list[str]]:
    codes: list[str] = []
    header = read_header(
        io.BytesIO(data), len(data), lambda code, _: codes.append(code), teacher=teacher
    )
    assert (header is None) == bool(codes)
    return header, codes


@st.composite
def tensors(draw: st.DrawFn) -> dict[str, np.ndarray]:
    names = draw(st.lists(st.text("abc/._0", min_size=1, max_size=5), max_size=4, unique=True))
    made = {}
    for name in names:
        shape = draw(st.lists(st.integers(0, 3), max_size=3))
        dtype = draw(st.sampled_from(DTYPES))
        made[name] = np.arange(int(np.prod(shape)), dtype=dtype).reshape(shape)
    return made


@given(tensors())
def test_a_file_reads_back_as_it_was(arrays: dict[str, np.ndarray]) -> None:
    data = dump_tensors(arrays)
    header, _ = read(data)
    assert header is not None
    assert set(header.entries) == set(arrays)
    for name, array in arrays.items():
        got = view(data, header.entries[name], header.data_begin)
        assert got.dtype == array.dtype
        np.testing.assert_array_equal(got, array)
        assert not got.flags.writeable


@given(tensors())
def test_the_same_arrays_give_the_same_bytes(arrays: dict[str, np.ndarray]) -> None:
    turned = {name: np.asfortranarray(arrays[name]) for name in reversed(arrays)}
    assert dump_tensors(turned) == dump_tensors(arrays)


@given(st.data())
def test_a_mutated_file_is_refused_or_sound(data: st.DataObject) -> None:
    whole = dump_tensors({"a": np.ones((2, 3), np.float32), "b": np.arange(4)})
    bad = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        bad[data.draw(st.integers(0, len(bad) - 1))] = data.draw(st.integers(0, 255))
    bad = bad[: data.draw(st.integers(0, len(bad)))]
    header, _ = read(bytes(bad))
    if header is not None:
        for entry in header.entries.values():
            view(bytes(bad), entry, header.data_begin)
        # Stricter than the library, never laxer: what passes here, passes there.
        assert set(load(bytes(bad))) == set(header.entries)


@given(st.binary(max_size=64), st.booleans())
def test_any_bytes_give_findings_and_never_an_exception(data: bytes, teacher: bool) -> None:
    read(data, teacher=teacher)


@given(st.recursive(
    st.none() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["dtype", "shape", "data_offsets", "x"]), inner, max_size=3),
))  # fmt: skip
def test_any_header_gives_findings_and_never_an_exception(header: Any) -> None:
    read(safetensors(header))
    read(safetensors({"a": header}))


def test_every_prefix_is_refused() -> None:
    whole = dump_tensors({"a": np.ones((2, 3), np.float32)})
    for length in range(len(whole)):
        assert read(whole[:length])[0] is None


def test_a_teacher_may_hold_other_types_and_names() -> None:
    entry = {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}
    data = safetensors({"größe": entry}, bytes(4))
    assert read(data)[0] is None
    header, _ = read(data, teacher=True)
    assert header is not None
    assert header.entries["größe"].dtype == "BF16"


@pytest.mark.parametrize(
    "header",
    [
        {"a": {"dtype": "F8_E4M3FNUZ", "shape": [4], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F8_E5M2FNUZ", "shape": [4], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [1] * 9, "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "__metadata__": None},
    ],
    ids=["fnuz", "other-fnuz", "nine-axes", "null-metadata"],
)
def test_what_safetensors_reads_is_a_sound_teacher(header: dict[str, Any]) -> None:
    data = safetensors(header, bytes(4))
    assert read(data)[0] is None
    assert read(data, teacher=True)[0] is not None


@pytest.mark.parametrize("count", [0, 1, 5])
def test_a_file_of_the_library_is_sound(count: int) -> None:
    made = {str(number): np.ones(number, np.float64) for number in range(count)}
    header, codes = read(save(made, metadata={"format": "pt"}))
    assert header is not None, codes
    assert len(header.entries) == count


def test_findings_are_not_stopped_by_the_first() -> None:
    bad = {"dtype": "X", "shape": [], "data_offsets": [0, 0]}
    _, codes = read(safetensors(json.loads(json.dumps({"a": bad, "b": 1, "": bad}))))
    assert sorted(codes) == ["DM206", "DM207", "DM208"]
