"""Teachers of a grid: made once, kept, made again only when what decides them changes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from dfkd_meta.bench.grid import read_grid
from dfkd_meta.bench.places import Places
from dfkd_meta.bench.run import Bench
from dfkd_meta.bench.teachers import Teachers, sidecar_digest
from dfkd_meta.errors import UsageError
from dfkd_meta.progress import Silent
from dfkd_meta.sidecar import read_sidecar
from tests.support.small_recipes import write_blobs

CPU = torch.device("cpu")
MADE = """
[teachers.own]
model = "digits_cnn"
data = "blobs.npz"
train = { width = 0.25, training = { steps = 4, batch_size = 16 } }
export = { dataset_name = "squares" }
[methods.noise]
"""


def shelf(text: str, folder: Path) -> Teachers:
    (folder / "grid.toml").write_text(text)
    write_blobs(folder)
    return Teachers(read_grid(folder / "grid.toml"), folder / "out", Places(folder, {}))


def make(teachers: Teachers, profile: str) -> str:
    return teachers.make("own", profile, device=CPU, progress=Silent()).digest


def test_a_teacher_is_trained_once_for_all_profiles(tmp_path: Path) -> None:
    teachers = shelf(MADE, tmp_path)
    assert teachers.find("own", "minimal") is None
    minimal, full = make(teachers, "minimal"), make(teachers, "full")
    assert minimal != full
    folders = [tmp_path / "out" / "teachers" / "own" / name for name in ("minimal", "full")]
    sidecars = [read_sidecar(folder) for folder in folders]
    assert [sidecar.manifest.profile for sidecar in sidecars] == ["minimal", "full"]
    assert sidecars[0].manifest.teacher.files == sidecars[1].manifest.teacher.files
    assert sidecars[0].manifest.evaluation is not None
    assert sidecars[0].manifest.evaluation.split == "test"
    dataset = sidecars[0].manifest.provenance.dataset
    assert dataset is not None
    assert dataset.name == "squares"
    found = teachers.find("own", "full")
    assert found is not None
    assert found.folder == "teachers/own/full"  # relative: the folder of a bench can move


def test_making_it_again_gives_the_same_digest(tmp_path: Path) -> None:
    teachers = shelf(MADE, tmp_path)
    first = make(teachers, "minimal")
    manifest = tmp_path / "out" / "teachers" / "own" / "minimal" / "dfkd_meta.json"
    later = json.loads(manifest.read_text())
    later["provenance"]["created"] = "2031-01-01T00:00:00Z"
    manifest.write_text(json.dumps(later))
    assert sidecar_digest(manifest.parent) == first
    (tmp_path / "again").mkdir()
    assert make(shelf(MADE, tmp_path / "again"), "minimal") == first


@pytest.mark.parametrize(
    ("old", "new", "kept"),
    [
        ("steps = 4", "steps = 5", False),
        ('"squares"', '"circles"', False),
        ('data = "blobs.npz"', 'data = "blobs.npz"\ntest = "blobs.npz#train"', False),
        ('data = "blobs.npz"', 'data = "blobs.npz"\nstudents = ["1.0"]\nbenchmark = "x"', True),
    ],
)
def test_what_decides_a_teacher_decides_whether_it_is_kept(
    old: str, new: str, kept: bool, tmp_path: Path
) -> None:
    make(shelf(MADE, tmp_path), "minimal")
    assert old in MADE
    found = shelf(MADE.replace(old, new), tmp_path).find("own", "minimal")
    assert (found is not None) == kept


def test_other_weights_make_another_teacher(tmp_path: Path) -> None:
    make(shelf(MADE, tmp_path), "minimal")
    weights = tmp_path / "out" / "teachers" / "own" / "minimal" / "model.safetensors"
    (tmp_path / "w.safetensors").write_bytes(weights.read_bytes())
    text = MADE.replace("train = { width = 0.25, training = { steps = 4, batch_size = 16 } }", "")
    text = text.replace("model =", 'weights = "w.safetensors"\nmodel =')
    inputs = "shape = [1, 8, 8], value_range = [0, 1], mean = [0.3], std = [0.2]"
    settings = "num_classes = 3, arguments = { width = 0.25 }, inputs = {" + inputs + "}"
    teachers = shelf(text.replace('dataset_name = "squares"', settings), tmp_path)
    assert teachers.find("own", "minimal") is None
    make(teachers, "minimal")
    assert teachers.find("own", "minimal") is not None
    (tmp_path / "w.safetensors").write_bytes(b"others")
    assert teachers.find("own", "minimal") is None


def test_a_variant_is_a_profile_without_some_records(tmp_path: Path) -> None:
    variant = '[variants.bare]\nprofile = "minimal"\nleave_out = ["quantiles/*"]\n'
    teachers = shelf(MADE + variant, tmp_path)
    make(teachers, "bare")
    folder = tmp_path / "out" / "teachers" / "own" / "bare"
    kinds = {record.kind for record in read_sidecar(folder).manifest.statistics}
    assert "power_spectrum" in kinds
    assert "quantiles" not in kinds
    assert shelf(MADE + variant.replace("quant", "power_s"), tmp_path).find("own", "bare") is None
    assert shelf(MADE + variant.replace("bare", "other"), tmp_path).find("own", "other") is None
    own = MADE.replace('"squares" }', '"squares", leave_out = ["quantiles/*"] }')
    make(shelf(own, tmp_path), "minimal")
    statistics = read_sidecar(folder.with_name("minimal")).manifest.statistics
    assert "quantiles" not in {record.kind for record in statistics}
    with pytest.raises(UsageError, match="a profile has that name"):
        shelf(MADE + variant.replace("bare", "full"), tmp_path)


def test_a_changed_sidecar_is_noticed(bench: Bench, tmp_path: Path) -> None:
    bench.out.mkdir()
    ready = bench.teachers.make("blobs", "full", device=CPU, progress=Silent())
    assert bench.teachers.find("blobs", "full") == ready
    assert Path(ready.folder).is_absolute()
    stamp = bench.out / "teachers" / "blobs" / "full.json"
    stamp.write_text(stamp.read_text().replace(ready.digest, "0" * 16))
    assert bench.teachers.find("blobs", "full") is None
    stamp.write_text("not json")
    assert bench.teachers.find("blobs", "full") is None
