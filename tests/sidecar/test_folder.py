"""Reading and writing folders: whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from dfkd_meta.errors import DfkdMetaError, StatisticsError
from dfkd_meta.folders import write_whole
from dfkd_meta.sidecar import (
    MANIFEST_FILE,
    TENSOR_FILE,
    Manifest,
    SidecarError,
    StatisticRecord,
    pack_record,
    read_manifest,
    read_sidecar,
    sha256_file,
    validate_sidecar,
    write_sidecar,
)
from dfkd_meta.sidecar.files import inside, sidecar_folder
from dfkd_meta.sidecar.json_text import MAX_MANIFEST_BYTES, dump_json
from dfkd_meta.sidecar.upgrade import upgrade_sidecar
from tests.sidecar.example import Example, full, put, small


def write(folder: Path, example: Example) -> Manifest:
    """Through the writer: it gets every block but ``tensors``."""
    folder.mkdir(exist_ok=True)
    for name, data in example.files.items():
        (folder / name).write_bytes(data)
    blocks = {name: block for name, block in example.document.items() if name != "tensors"}
    return write_sidecar(folder, blocks, example.tensors)


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    example = full()
    manifest = write(tmp_path, example)
    sidecar = read_sidecar(tmp_path)
    assert sidecar.manifest == manifest
    assert sidecar.manifest.tensors.sha256 == sha256_file(tmp_path / TENSOR_FILE)
    assert set(sidecar.tensors) == set(example.tensors)
    for key, array in example.tensors.items():
        np.testing.assert_array_equal(sidecar.tensors[key], array)


def test_models_and_json_values_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    manifest = write(first, full())
    second.mkdir()
    (second / "model.safetensors").write_bytes((first / "model.safetensors").read_bytes())
    blocks = {name: getattr(manifest, name) for name in reversed(Manifest.model_fields)}
    blocks = {name: block for name, block in blocks.items() if block is not None}
    del blocks["tensors"]
    write_sidecar(second, blocks, dict(reversed(read_sidecar(first).tensors.items())))
    again = write_sidecar(second, blocks, read_sidecar(first).tensors)
    assert again == read_manifest(second)
    assert (second / TENSOR_FILE).read_bytes() == (first / TENSOR_FILE).read_bytes()
    assert json.loads((second / MANIFEST_FILE).read_bytes())["taps"] == full().document["taps"]


def test_a_bad_sidecar_is_not_written_and_nothing_is_left(tmp_path: Path) -> None:
    write(tmp_path, small())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    bad = small()
    bad.tensors["m/variance"] = -bad.tensors["m/variance"]
    with pytest.raises(SidecarError) as refusal:
        write(tmp_path, bad)
    assert [issue.code for issue in refusal.value.report.errors] == ["DM341"]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_number_that_is_not_finite_is_not_written(tmp_path: Path) -> None:
    example = small()
    put("/evaluation", {"accuracy": float("nan"), "samples": 1, "split": "test"})(example)
    with pytest.raises(SidecarError, match="DM105"):
        write(tmp_path, example)
    assert not (tmp_path / MANIFEST_FILE).exists()


def test_a_failing_disk_leaves_the_old_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_whole(tmp_path, {"a": b"old", "b": b"old"})

    def fails(handle: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match="no space"):
        write_whole(tmp_path, {"a": b"new", "b": b"new"})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "a": b"old", "b": b"old",
    }  # fmt: skip


def test_find_and_array(tmp_path: Path) -> None:
    write(tmp_path, full())
    sidecar = read_sidecar(tmp_path)
    assert [record.id for record in sidecar.find("covariance")] == ["cov_fc", "cov_input"]
    assert [record.id for record in sidecar.find("covariance", tap="input")] == ["cov_input"]
    assert sidecar.find("moments", scope="global") == []
    assert sidecar.find("moments", reduction="unit") == []
    (norm,) = sidecar.find("batchnorm")
    np.testing.assert_array_equal(sidecar.array(norm, "running_var"), np.float32([1, 2]))
    assert sidecar.array(norm, "running_var").dtype == np.float32
    assert sidecar.tap("fc").shape == [3]
    with pytest.raises(StatisticsError, match="no 'cholesky'"):
        sidecar.array(norm, "cholesky")
    with pytest.raises(StatisticsError, match="no tap 'fc9'"):
        sidecar.tap("fc9")


def test_a_pointer_into_a_file_that_is_elsewhere(tmp_path: Path) -> None:
    example = full()
    put("/teacher/repo_id", "user/teacher")(example)
    example.files.clear()
    sidecar = read_sidecar(example.write(tmp_path))
    with pytest.raises(StatisticsError, match="not in the folder"):
        sidecar.array(sidecar.find("batchnorm")[0], "running_mean")


def test_a_record_of_an_unknown_version_is_not_found(tmp_path: Path) -> None:
    example = small()
    put("/statistics/0/kind_version", 2)(example)
    assert read_sidecar(example.write(tmp_path)).find("moments") == []


def test_pack_record_names_its_tensors() -> None:
    bare = StatisticRecord(id="m.fc", kind="moments", taps=["fc"], reduction="unit", count=[60])
    record, arrays = pack_record(bare, {"mean": np.zeros((1, 3)), "variance": np.ones((1, 3))})
    assert sorted(arrays) == ["m.fc/mean", "m.fc/variance"]
    assert arrays["m.fc/mean"].dtype == np.float32
    ref = record.tensors["mean"]
    assert (ref.key, ref.dtype, ref.shape, ref.axes) == ("m.fc/mean", "F32", [1, 3], "g f")
    assert bare.tensors == {}


@pytest.mark.parametrize(
    ("scale", "dtype", "step"), [(1.0, "F16", 1e-3), (1e-6, "F32", 1e-6), (1e5, "F32", 1e-6)]
)
def test_factors_are_stored_in_half_the_bytes_where_they_fit(
    scale: float, dtype: str, step: float
) -> None:
    record = StatisticRecord(id="c", kind="covariance", taps=["fc:input"])
    factor = scale * np.random.default_rng(0).standard_normal((2, 3, 4))
    packed, arrays = pack_record(record, {"factor": factor})
    assert packed.tensors["factor"].dtype == dtype
    error = np.abs(arrays["c/factor"].astype(np.float64) - factor).max()
    assert error <= step * np.abs(factor).max()


@pytest.mark.parametrize(
    ("role", "shape"), [("mean", (3,)), ("median", (1, 3))], ids=["axes", "role"]
)
def test_pack_record_refuses_what_the_kind_does_not_know(role: str, shape: tuple[int]) -> None:
    record = StatisticRecord(id="m", kind="moments")
    with pytest.raises(StatisticsError, match=role):
        pack_record(record, {role: np.zeros(shape)})


def test_unknown_fields_survive_a_round_trip(tmp_path: Path) -> None:
    example = small()
    put("/teacher/signature", {"by": "a later version"})(example)
    put("/extensions", {"x-lab": [1, {"a": None}]})(example)
    manifest = read_sidecar(example.write(tmp_path)).manifest
    again = manifest.model_dump(mode="json", exclude_none=True)
    assert again["teacher"]["signature"] == {"by": "a later version"}
    assert manifest.extensions == {"x-lab": [1, {"a": None}]}


def test_a_manifest_that_fits_only_without_white_space(tmp_path: Path) -> None:
    example = small()
    put("/extensions", {"x-lab": [{"a": 1}] * 200_000})(example)
    manifest = write(tmp_path / "made", example)
    text = (tmp_path / "made" / MANIFEST_FILE).read_bytes()
    assert len(text) < MAX_MANIFEST_BYTES < len(dump_json(json.loads(text)))
    assert read_manifest(tmp_path / "made") == manifest
    upgrade_sidecar(tmp_path / "made", tmp_path / "copied")
    assert (tmp_path / "copied" / MANIFEST_FILE).read_bytes() == text


def test_links(tmp_path: Path) -> None:
    home = small().write(tmp_path / "home")
    outside = small().write(tmp_path / "outside")
    (home / TENSOR_FILE).unlink()
    (home / TENSOR_FILE).symlink_to(outside / TENSOR_FILE)
    assert [issue.code for issue in validate_sidecar(home)] == ["DM501"]
    (home / TENSOR_FILE).unlink()
    (outside / TENSOR_FILE).rename(home / "real")
    (home / TENSOR_FILE).symlink_to("real")
    assert validate_sidecar(home).ok
    (home / MANIFEST_FILE).unlink()
    (home / MANIFEST_FILE).symlink_to("nowhere")
    assert [issue.code for issue in validate_sidecar(home)] == ["DM501"]


def test_many_links_to_one_file_are_hashed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[Path] = []

    def counted(path: Path) -> str:
        hashed.append(path)
        return sha256_file(path)

    monkeypatch.setattr("dfkd_meta.sidecar.checks.binding.sha256_file", counted)
    example = small()
    files = example.document["teacher"]["files"]
    files += [{**files[0], "path": f"{number}.safetensors"} for number in range(20)]
    folder = example.write(tmp_path)
    for file in files[1:]:
        (folder / file["path"]).symlink_to("model.safetensors")
    assert validate_sidecar(folder).ok
    assert len(hashed) == 1


def test_the_cache_of_the_hub_links_into_its_blobs(tmp_path: Path) -> None:
    snapshot = small().write(tmp_path / "models--u--t" / "snapshots" / ("a" * 40))
    blobs = tmp_path / "models--u--t" / "blobs"
    blobs.mkdir()
    for path in sorted(snapshot.iterdir()):
        blob = blobs / sha256_file(path)
        path.rename(blob)
        path.symlink_to(Path("../../blobs") / blob.name)
    assert validate_sidecar(snapshot).ok
    other = tmp_path / "other"
    snapshot.rename(other)
    assert not validate_sidecar(other).ok


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    folder = small().write(tmp_path)
    (folder / TENSOR_FILE).unlink()
    os.mkfifo(folder / TENSOR_FILE)  # opening it would wait for ever
    assert [issue.code for issue in validate_sidecar(folder)] == ["DM501"]
    assert inside(folder, "missing") is None


def test_a_path_may_be_the_folder_or_the_manifest(tmp_path: Path) -> None:
    small().write(tmp_path)
    assert sidecar_folder(tmp_path) == tmp_path
    assert sidecar_folder(tmp_path / MANIFEST_FILE) == tmp_path
    for wrong in (TENSOR_FILE, "nothing"):
        with pytest.raises(DfkdMetaError):
            sidecar_folder(tmp_path / wrong)


def test_an_unreadable_manifest_is_an_error_of_the_folder(tmp_path: Path) -> None:
    with pytest.raises(SidecarError, match="DM101"):
        read_manifest(tmp_path)
