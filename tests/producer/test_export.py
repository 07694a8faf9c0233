"""Teacher and data in, a valid folder out."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from dfkd_meta.data import ArrayDataset
from dfkd_meta.errors import StatisticsError
from dfkd_meta.producer import blocks
from dfkd_meta.producer.export import export, tell_accuracy
from dfkd_meta.sidecar import read_sidecar, sha256_file, validate_sidecar
from dfkd_meta.statistics import Collection, RecordRequest
from dfkd_meta.teachers import default_taps, open_teacher, preprocess, teacher_from_sidecar
from tests.producer.toys import CREATED, INPUTS, builtin, config, data
from tests.support.told import Told


@pytest.mark.parametrize("profile", ["minimal", "standard", "full"])
@pytest.mark.parametrize("name", ["digits_cnn", "hinton800"])
def test_every_profile_is_valid_and_reopens(tmp_path: Path, profile: str, name: str) -> None:
    teacher = builtin(name)
    test = data(50, split="test")
    manifest = export(teacher, data(), config(profile), tmp_path / "out", evaluation=test)
    assert manifest.profile == profile
    report = validate_sidecar(tmp_path / "out")
    assert not [issue for issue in report if issue.severity != "note"]
    assert sorted(os.listdir(tmp_path / "out")) == [
        "config.json",
        "dfkd_meta.json",
        "dfkd_meta.safetensors",
        "model.safetensors",
    ]
    sidecar = read_sidecar(tmp_path / "out")
    images = preprocess(test.read(range(20)), INPUTS)
    for again in (
        open_teacher(tmp_path / "out"),
        teacher_from_sidecar(tmp_path / "out", sidecar),
    ):
        assert torch.equal(again(images), teacher(images))
    with torch.no_grad():
        answers = teacher(preprocess(test.read(range(50)), INPUTS)).argmax(1).numpy()
    assert manifest.evaluation is not None
    assert manifest.evaluation.accuracy == pytest.approx(float((answers == test.labels).mean()))
    assert (manifest.evaluation.samples, manifest.evaluation.split) == (50, "test")


def test_provenance_and_privacy(tmp_path: Path) -> None:
    settings = config(
        "minimal", seed=7, dataset_license="CC0-1.0", teacher_license="mit", dataset_name="Toys 1"
    )
    manifest = export(builtin("hinton800"), data(), settings, tmp_path / "out")
    origin = manifest.provenance
    assert (origin.samples, origin.class_counts, origin.seed) == (120, [30] * 4, 7)
    assert (origin.created, origin.torch_version) == (CREATED, str(torch.__version__))
    assert origin.dataset is not None
    assert (origin.dataset.name, origin.dataset.license) == ("Toys 1", "CC0-1.0")
    assert manifest.teacher.license == "mit"
    assert manifest.privacy.min_group_size == 11
    strengths = manifest.privacy.tracing_strength
    assert strengths["soft_targets/output/unit/per_class"] == pytest.approx((4 / 30) ** 0.5)
    assert strengths["moments/fc2:output/unit/global"] == pytest.approx((80 / 120) ** 0.5)
    assert "class_similarity" not in strengths
    other = replace(builtin("hinton800"), inputs=INPUTS.model_copy(update={"mean": [0.25]}))
    again = export(other, data(), settings, tmp_path / "other").provenance
    assert again.preprocessing_sha256 != origin.preprocessing_sha256
    assert len(bytes.fromhex(origin.preprocessing_sha256)) == 32


@pytest.mark.parametrize("limit", [None, 100])
def test_a_mixture_and_quantiles_on_request(tmp_path: Path, limit: int | None) -> None:
    params = {"modes": 2, "rank": 3, "cluster_tap": "fc:input"}
    records = (
        RecordRequest("mixture", ("input",), "unit", "per_class", params),
        RecordRequest("quantiles", ("conv2:output",), "channel"),
    )
    settings = config("minimal", records=records, limit=limit)
    manifest = export(builtin(), data(), settings, tmp_path / "out")
    assert {issue.code for issue in validate_sidecar(tmp_path / "out")} <= {
        "DM406",
        "DM407",
        "DM408",
    }
    (record,) = read_sidecar(tmp_path / "out").find("mixture")
    modes = read_sidecar(tmp_path / "out").array(record, "mode_count")
    smallest = modes[modes > 0].min()
    assert 11 <= smallest < min(record.count or [])
    strength = manifest.privacy.tracing_strength[record.id]
    assert strength == pytest.approx((64 / smallest) ** 0.5)


def test_names_that_the_standard_does_not_allow(tmp_path: Path) -> None:
    """A folder of data may be called anything; a module path may be very long."""
    dataset = data()
    dataset.name = "donn\u00e9es \n"
    dataset.split = ""
    manifest = export(builtin(), dataset, config("minimal"), tmp_path / "out")
    assert manifest.provenance.dataset is not None
    assert manifest.provenance.dataset.name == "donn\u00e9es ?"
    assert manifest.provenance.dataset.split == "unnamed"
    names = [RecordRequest("moments", ("x" * 195 + str(i),)).id for i in range(2)]
    assert len(set(names)) == 2
    assert max(map(len, names)) <= 160


def test_the_same_export_gives_the_same_bytes(tmp_path: Path) -> None:
    digests = []
    for name in ("a", "b"):
        export(builtin(), data(), config("full"), tmp_path / name)
        digests.append([sha256_file(path) for path in sorted((tmp_path / name).iterdir())])
    assert digests[0] == digests[1]


def test_batchnorm_is_a_pointer_and_the_numbers_are_the_layers(tmp_path: Path) -> None:
    teacher = builtin()
    export(teacher, data(), config("minimal"), tmp_path / "out")
    sidecar = read_sidecar(tmp_path / "out")
    records = sidecar.find("batchnorm")
    state = teacher.module.state_dict()
    assert records
    for record in records:
        path = sidecar.tap(record.taps[0]).module
        for role in ("running_mean", "running_var"):
            assert record.tensors[role].file == "model.safetensors"
            np.testing.assert_array_equal(sidecar.array(record, role), state[f"{path}.{role}"])
    assert not [key for key in sidecar.tensors if key.startswith("batchnorm")]


def test_batchnorm_is_copied_when_the_weight_file_cannot_be_pointed_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "POINTABLE", {"F16"})
    export(builtin(), data(), config("minimal"), tmp_path / "out")
    sidecar = read_sidecar(tmp_path / "out")
    assert all(ref.file is None for r in sidecar.find("batchnorm") for ref in r.tensors.values())
    assert [key for key in sidecar.tensors if key.startswith("batchnorm")]


@pytest.mark.parametrize("profile", ["minimal", "standard", "full"])
def test_without_labels(tmp_path: Path, profile: str) -> None:
    manifest = export(builtin(), data(labeled=False), config(profile), tmp_path / "out")
    assert manifest.profile == ("minimal" if profile == "minimal" else "custom")
    assert {record.scope for record in manifest.statistics} == {"global"}
    assert manifest.provenance.class_counts is None


def test_records_of_ones_own_are_written_and_the_profile_stays_honest(tmp_path: Path) -> None:
    extra = {"kind": "moments", "taps": ["bn2:input"], "reduction": "pooled"}
    taps = [tap.id for tap in default_taps(builtin())]
    assert "bn2:input" in taps
    manifest = export(builtin(), data(), config("standard", records=[extra]), tmp_path / "out")
    assert manifest.profile == "custom"
    assert manifest.statistics[-1].id == "moments/bn2:input/pooled/global"
    extra = {"kind": "moments", "taps": ["output"], "reduction": "pooled"}
    kept = export(builtin(), data(), config("standard", records=[extra]), tmp_path / "kept")
    assert kept.profile == "standard"


def test_labels_not_to_be_used_leave_no_trace(tmp_path: Path) -> None:
    settings, told = config("standard", per_class=False), Told()
    manifest = export(builtin(), data(), settings, tmp_path / "out", progress=told)
    assert {record.scope for record in manifest.statistics} == {"global"}
    assert manifest.provenance.class_counts is None
    assert manifest.profile == "custom"
    assert any("of these samples their label" in line for line in told.steps)  # only looked at


def test_labels_not_to_be_used_may_be_others(tmp_path: Path) -> None:
    settings, told = config("standard", per_class=False), Told()
    others = ArrayDataset("toys", "train", data(90).read(range(90)).numpy(), np.arange(90))
    export(builtin(), others, settings, tmp_path / "out", progress=told)
    assert not any("of these samples their label" in line for line in told.steps)


def test_sizes_of_classes_too_small_to_describe_are_not_published(tmp_path: Path) -> None:
    labels = np.array([0] * 60 + [1] * 20 + [2] * 9 + [3])
    few = ArrayDataset("toys", "train", data(90).read(range(90)).numpy(), labels)
    with pytest.raises(StatisticsError, match="fewer than 11"):
        export(builtin(), few, config("minimal"), tmp_path / "out")
    settings = config("minimal", only=["power_spectrum/*"])  # over all classes: it may be
    manifest = export(builtin(), few, settings, tmp_path / "out")
    assert manifest.provenance.samples == 90
    assert manifest.provenance.class_counts is None


@pytest.mark.parametrize("profile", ["minimal", "standard", "full"])
def test_rare_classes_are_left_out_with_their_samples(tmp_path: Path, profile: str) -> None:
    labels = np.array([0] * 60 + [1] * 5 + [2] * 20)
    images = data(85).read(range(85)).numpy()
    few = ArrayDataset("toys", "train", images, labels)
    settings, told = config(profile, rare_classes="leave_out"), Told()
    manifest = export(builtin(), few, settings, tmp_path / "out", progress=told)
    (warning,) = (line for line in told.steps if "left out" in line)
    assert warning.startswith("WARNING: 2 class(es) of fewer than 11 samples are left out")
    assert warning.endswith("class 1: 5, class 3: 0")
    assert manifest.profile == profile
    assert (manifest.provenance.samples, manifest.provenance.class_counts) == (80, [60, 0, 20, 0])
    assert manifest.described_classes == [0, 2]
    report = validate_sidecar(tmp_path / "out")
    assert not [issue for issue in report if issue.severity == "error"]
    sidecar = read_sidecar(tmp_path / "out")
    by_class = [record for record in manifest.statistics if record.scope == "per_class"]
    assert all(record.classes == [0, 2] and record.count == [60, 20] for record in by_class)
    assert by_class
    assert not sidecar.partial
    # No number depends on the samples that were left out.
    other = np.where((labels == 1)[:, None, None, None], 1 - images, images).astype(np.float32)
    again = ArrayDataset("toys", "train", other, labels)
    export(builtin(), again, settings, tmp_path / "again")
    name = "dfkd_meta.safetensors"
    assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()


def test_rare_classes_that_leave_too_few(tmp_path: Path) -> None:
    labels = np.array([0] * 60 + [1] * 9)
    few = ArrayDataset("toys", "train", data(69).read(range(69)).numpy(), labels)
    with pytest.raises(StatisticsError, match="rare_classes=leave_out") as refused:
        export(builtin(), few, config("minimal"), tmp_path / "out")
    assert "class 1: 9, class 2: 0, class 3: 0" in str(refused.value)
    settings = config("minimal", rare_classes="leave_out")
    with pytest.raises(StatisticsError, match="all classes but 1 have fewer than 11 samples"):
        export(builtin(), few, settings, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_limit_that_leaves_classes_rare_is_told_before_the_pass(tmp_path: Path) -> None:
    told = Told()
    with pytest.raises(StatisticsError, match="have fewer than 11 samples"):
        export(builtin(), data(), config("minimal", limit=30), tmp_path / "out", progress=told)
    assert not told.steps


def test_a_level_with_just_as_many_samples_beyond_it_as_there_must_be(tmp_path: Path) -> None:
    """As float32 the level 0.999 is larger than 1 - 1/1000."""
    settings = config("minimal", only=["quantiles/*"], min_count=1)
    export(builtin(), data(1000), settings, tmp_path / "out")
    assert validate_sidecar(tmp_path / "out").ok
    assert read_sidecar(tmp_path / "out").manifest.statistics[0].count == [1000]


def test_a_limit_draws_from_all_classes(tmp_path: Path) -> None:
    whole = data(400)
    order = np.argsort(whole.labels, kind="stable")
    sorted_data = ArrayDataset(
        "toys", "train", whole.read(order).numpy(), np.asarray(whole.labels)[order]
    )
    manifest = export(builtin(), sorted_data, config("minimal", limit=100), tmp_path / "out")
    assert manifest.provenance.samples == 100
    assert min(manifest.provenance.class_counts or [0]) >= 11


def test_into_the_teachers_own_folder_only_the_sidecar_is_added(tmp_path: Path) -> None:
    export(builtin(), data(), config("minimal"), tmp_path / "out")
    (tmp_path / "out" / "README.md").write_text("kept")
    before = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    manifest = export(open_teacher(tmp_path / "out"), data(), config("full"), tmp_path / "out")
    after = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    assert manifest.profile == "full"
    assert after.keys() == before.keys()
    for name in ("README.md", "model.safetensors", "config.json"):
        assert after[name] == before[name]
    assert after["dfkd_meta.json"] != before["dfkd_meta.json"]
    assert (
        manifest.teacher.files[0].sha256 == hashlib.sha256(after["model.safetensors"]).hexdigest()
    )


def test_the_callers_own_code(tmp_path: Path) -> None:
    from tests.statistics.toys import INPUTS as TOY_INPUTS
    from tests.statistics.toys import teacher as toy

    original = toy()
    weights = tmp_path / "weights.safetensors"
    save_file(original.module.state_dict(), weights)
    teacher = open_teacher("tests.statistics.toys:ToyNet", weights=weights, inputs=TOY_INPUTS)
    generator = np.random.default_rng(0)
    images = generator.uniform(0, 1, (60, 1, 6, 6)).astype(np.float32)
    dataset = ArrayDataset("own", "train", images, np.arange(60) % 3)
    manifest = export(teacher, dataset, config("full"), tmp_path / "out")
    assert manifest.teacher.source == "local"
    assert [record.params for record in manifest.statistics if record.kind == "dropout"] == [
        {"sites": ["drop"]}
    ]
    sidecar = read_sidecar(tmp_path / "out")
    again = teacher_from_sidecar(tmp_path / "out", sidecar, factory="tests.statistics.toys:ToyNet")
    x = torch.randn(3, 1, 6, 6)
    assert torch.equal(again(x), original(x))
    assert load_file(tmp_path / "out" / "model.safetensors").keys() == load_file(weights).keys()


def test_labels_that_count_from_one_are_no_rare_class(tmp_path: Path) -> None:
    whole = data()
    assert whole.labels is not None
    images = whole.read(range(len(whole))).numpy()
    shifted = ArrayDataset("ones", "train", images, whole.labels + 1)
    with pytest.raises(StatisticsError, match=r"a label 4, the teacher knows 0\.\.3") as caught:
        export(builtin("digits_cnn"), shifted, config("minimal"), tmp_path / "out")
    assert "count from 0" in (caught.value.hint or "")


def test_an_export_says_how_the_teacher_does_on_the_data(tmp_path: Path) -> None:
    told = Told()
    export(builtin("digits_cnn"), data(), config("minimal"), tmp_path / "out", progress=told)
    assert any("% of these samples their label" in step for step in told.steps)


@pytest.mark.parametrize(
    ("counts", "recognized", "suspect"),
    [([50, 50], 52, True), ([50, 50], 90, False), ([990, 10], 990, True), ([990, 10], 998, False)],
)
def test_a_teacher_that_knows_no_more_than_the_commonest_class_is_noticed(
    counts: list[int], recognized: int, suspect: bool
) -> None:
    told = Told()
    tell_accuracy(Collection([], sum(counts), counts, recognized), told)
    assert any("are these the weights" in step for step in told.steps) == suspect


def test_small_classes_are_not_in_their_covariances(tmp_path: Path) -> None:
    """With fewer samples than features a whole covariance spans exactly its samples."""
    dataset = data(60)  # 15 of each class for three: fewer than five for each of six features
    export(builtin(), dataset, config("standard"), tmp_path / "out")
    sidecar = read_sidecar(tmp_path / "out")
    (covariance,) = sidecar.find("covariance")
    assert set(covariance.tensors) == {"mean", "factor", "residual_variance"}
    rows = sidecar.array(covariance, "factor").any(-1).sum(-1)
    assert (rows <= min(covariance.count or []) // 5).all()
    assert not [issue for issue in validate_sidecar(tmp_path / "out") if issue.code == "DM411"]


def test_a_folder_of_links_is_a_home_too(tmp_path: Path) -> None:
    """As in the cache of the Hub: the weights lie elsewhere, and only the sidecar is added."""
    export(builtin(), data(), config("minimal"), tmp_path / "first")
    blobs, folder = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    blobs.mkdir()
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    (folder / "config.json").write_bytes((tmp_path / "first" / "config.json").read_bytes())
    shutil.copy(tmp_path / "first" / "model.safetensors", blobs / "abc")
    (folder / "model.safetensors").symlink_to(blobs / "abc")
    export(open_teacher(folder), data(), config("minimal"), folder)
    assert (folder / "notes.txt").read_text() == "mine"
    assert (folder / "dfkd_meta.json").is_file()
