"""Broken and hostile files are one DataError, in bounded memory, never a traceback."""

from __future__ import annotations

import contextlib
import gzip
import io
import struct
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from dfkd_meta.data import open_data
from dfkd_meta.errors import DataError
from tests.data.conftest import IMAGES, LABELS, idx_bytes, write_idx

GOOD = idx_bytes(IMAGES)
fuzz = settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])


def idx_file(folder: Path, data: bytes, name: str = "train-images-idx3-ubyte") -> str:
    (folder / name).write_bytes(data)
    return str(folder)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        GOOD[:9],
        b"\x00\x00\x08\x01" + GOOD[4:],
        b"\x00\x00\x0d\x03" + GOOD[4:],
        GOOD[:-1],
        GOOD + b"\x00",
        bytes([0, 0, 8, 3]) + struct.pack(">3I", 2**32 - 1, 2**32 - 1, 2**32 - 1),
        bytes([0, 0, 8, 3]) + struct.pack(">3I", 0, 5, 4),
    ],
)
def test_broken_idx(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(DataError):
        open_data(idx_file(tmp_path, data))
    (tmp_path / "train-images-idx3-ubyte").unlink()
    with pytest.raises(DataError):
        open_data(idx_file(tmp_path, gzip.compress(data), "train-images-idx3-ubyte.gz"))


PACKED = gzip.compress(GOOD, mtime=0)  # without the time, or test workers disagree on names


@pytest.mark.parametrize(
    "data", [b"not gzip", PACKED[:-12], PACKED[:5]], ids=["other", "end missing", "header cut"]
)
def test_broken_gzip(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(DataError, match="broken"):
        open_data(idx_file(tmp_path, data, "train-images-idx3-ubyte.gz"))


def test_declared_sizes_take_no_memory(tmp_path: Path) -> None:
    header = bytes([0, 0, 8, 3]) + struct.pack(">3I", 50_000, 1000, 1000)
    idx_file(tmp_path, gzip.compress(header + b"\x00" * 1000), "train-images-idx3-ubyte.gz")
    write_npz_header(tmp_path / "x.npz", "|u1", (50_000, 1000, 1000))
    tracemalloc.start()
    for spec in (tmp_path, tmp_path / "x.npz"):
        with pytest.raises(DataError, match="more than the file holds"):
            open_data(str(spec))
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def write_npz_header(path: Path, descr: str, shape: tuple[int, ...]) -> None:
    member = io.BytesIO()
    fields: dict[str, Any] = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(member, fields)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("images.npy", member.getvalue() + b"\x00" * 100)


def test_label_files_that_do_not_fit(tmp_path: Path) -> None:
    folder = write_idx(tmp_path, "train", packed=False)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx_bytes(LABELS[:-1]))
    with pytest.raises(DataError, match=r"labels of shape \[11\] do not belong to 12 samples"):
        open_data(str(folder))


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"labels": LABELS},
        {"images": np.float32(3)},
        {"images": IMAGES[:0]},
        {"images": IMAGES.reshape(1, 1, 1, 12, 5, 4)},
        {"images": IMAGES.astype(bool)},
        {"images": IMAGES.astype(complex)},
        {"images": IMAGES.astype(str)},
        {"images": IMAGES.astype("datetime64[s]")},
        {"images": IMAGES.astype(np.int32) - 1000},
        {"images": IMAGES.astype(np.int32) + 1},
        {"images": IMAGES, "labels": LABELS[:5]},
        {"images": IMAGES, "labels": LABELS[:, None]},
        {"images": IMAGES, "labels": LABELS.astype(float)},
        {"images": IMAGES, "labels": LABELS.astype(np.int8) - 1},
        {"images": IMAGES, "labels": LABELS.astype(str)},
    ],
)
def test_arrays_that_are_no_images(tmp_path: Path, arrays: dict[str, Any]) -> None:
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(DataError):
        open_data(str(tmp_path / "x.npz"))


def test_pickled_arrays_are_refused_unread(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "exploded",))

    np.savez(tmp_path / "x.npz", images=np.array([Bomb()], dtype=object))
    with pytest.raises(DataError, match="pickled objects"):
        open_data(str(tmp_path / "x.npz"))
    assert not (tmp_path / "exploded").exists()


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        open_data(str(tmp_path / "x.npz"))


def _npz() -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, images=IMAGES, labels=LABELS)
    return buffer.getvalue()


def _png() -> bytes:
    image = pytest.importorskip("PIL.Image", reason="Pillow reads images")
    buffer = io.BytesIO()
    image.fromarray(IMAGES[0]).save(buffer, "PNG")
    return buffer.getvalue()


@fuzz
@given(
    kind=st.sampled_from(["x.npz", "x.safetensors", "train-images-idx3-ubyte.gz", "x.png"]),
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=4),
    keep=st.floats(0, 1),
)
def test_damage_anywhere_is_a_data_error_or_other_pixels(
    tmp_path: Path, kind: str, changes: list[tuple[float, int]], keep: float
) -> None:
    good = {
        "x.npz": _npz,
        "x.safetensors": lambda: save({"images": IMAGES, "labels": LABELS}),
        "train-images-idx3-ubyte.gz": lambda: gzip.compress(GOOD),
        "x.png": _png,
    }[kind]()
    data = bytearray(good)
    for place, value in changes:
        data[int(place * len(data))] = value
    del data[max(1, round(keep * 1.3 * len(data))) :]
    folder = tmp_path / kind.replace(".", "-")
    folder.mkdir(exist_ok=True)
    (folder / kind).write_bytes(bytes(data))
    spec = folder / kind if kind in ("x.npz", "x.safetensors") else folder
    with contextlib.suppress(DataError):
        open_data(str(spec)).read([0])


def test_an_image_bomb_is_refused(tmp_path: Path) -> None:
    data = bytearray(_png())
    data[16:24] = struct.pack(">2I", 60_000, 60_000)
    import zlib

    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    (tmp_path / "a.png").write_bytes(bytes(data))
    with pytest.raises(DataError, match="not a readable image"):
        open_data(str(tmp_path)).read([0])


def test_images_in_two_places_or_of_two_sizes(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow reads images")
    image.fromarray(IMAGES[0]).save(tmp_path / "a.png")
    image.fromarray(IMAGES[0][:3]).save(tmp_path / "b.png")
    with pytest.raises(DataError, match="different shapes"):
        open_data(str(tmp_path)).read([0, 1])
    (tmp_path / "class").mkdir()
    image.fromarray(IMAGES[0]).save(tmp_path / "class" / "c.png")
    with pytest.raises(DataError, match="both beside and inside"):
        open_data(str(tmp_path))


@pytest.mark.parametrize("labels", [np.int64(3), np.eye(2), np.array(["a", "b"])])
def test_arrays_of_labels_that_are_none(tmp_path: Path, labels: np.ndarray) -> None:
    file = tmp_path / "data.npz"
    np.savez(file, images=np.zeros((2, 4, 4), np.float32), labels=labels)
    with pytest.raises(DataError, match="labels of") as caught:
        open_data(str(file))
    assert caught.value.where == str(file)
