"""``distill`` from folder to folder: what is written, that it repeats, and how it refuses."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dfkd_meta.batches import SyntheticBatch
from dfkd_meta.config import load_config, make_config
from dfkd_meta.consumer import interruption, results
from dfkd_meta.consumer.distill import DistillRun, distill
from dfkd_meta.consumer.pipeline import DistillConfig
from dfkd_meta.consumer.results import repeat_command, save_run
from dfkd_meta.data import ArrayDataset
from dfkd_meta.distillation.training import Trainer
from dfkd_meta.errors import DataError, MethodError, TeacherError, UsageError
from dfkd_meta.hub import PulledSidecar
from dfkd_meta.sidecar import SidecarError
from dfkd_meta.teachers import open_teacher
from tests.support.published import blobs
from tests.support.small_recipes import write_blobs
from tests.support.told import Told

Published = Callable[[str, str], Path]
T = TypeVar("T")
QUICK = {
    "options": {"drawn_batch": 90, "steps": 2, "batch_size": 90},
    "training": {"steps": 150, "batch_size": 32},
}


def run_on(folder: Path, **settings: object) -> DistillRun:
    config = make_config(DistillConfig, {**QUICK, **settings})
    return distill(PulledSidecar(folder), config, evaluation=blobs("test"))


def test_a_student_learns_without_data_and_is_saved_plain(
    published: Published, tmp_path: Path
) -> None:
    run = run_on(published("digits_cnn", "full"))
    assert run.accuracy is not None
    assert run.accuracy > 0.9  # KD on noise gets 0.67 on this schedule
    save_run(run, tmp_path / "student")
    names = sorted(path.name for path in (tmp_path / "student").iterdir())
    assert names == [
        "README.md",
        "config.json",
        "model.safetensors",
        "run.json",
        "synthetic.png",
        "synthetic.safetensors",
    ]
    again = open_teacher(tmp_path / "student")
    images = torch.rand(4, 1, 8, 8)
    assert torch.equal(again(images), run.outcome.student.module(images))


def test_what_is_saved_says_how_to_repeat_it(published: Published, tmp_path: Path) -> None:
    run = run_on(published("digits_cnn", "full"), seed=7)
    save_run(run, tmp_path / "student")
    facts = json.loads((tmp_path / "student" / "run.json").read_text())
    assert DistillConfig.model_validate(facts["config"]) == run.config
    assert facts["teacher"]["files"]
    assert len(facts["teacher"]["sidecar_sha256"]) == 64
    assert facts["result"]["accuracy"] == run.accuracy
    names = [rule["name"] for rule in facts["result"]["optimizers"]]
    assert names == ["sgd", "adamw"]  # digits_cnn has BatchNorm, and a last layer without
    command = repeat_command(run)
    assert "--seed 7" in command
    assert "--set options.drawn_batch=90" in command
    assert command in (tmp_path / "student" / "README.md").read_text()


def test_a_student_of_ones_own_is_saved_and_opened_with_its_factory(
    published: Published, tmp_path: Path
) -> None:
    factory = "tests.distillation.test_students:linear"
    run = run_on(published("digits_cnn", "full"), student=factory, student_arguments={"width": 2.0})
    save_run(run, tmp_path / "student")
    again = open_teacher(tmp_path / "student", factory=factory)
    images = torch.rand(4, 1, 8, 8)
    assert torch.equal(again(images), run.outcome.student.module(images))
    command = repeat_command(run)
    assert f"--student {factory}" in command
    assert "--set student_arguments.width=2.0" in command


@pytest.mark.parametrize("value", [math.inf, math.nan, [1, {"x": math.nan}], date(2026, 1, 2)])
def test_student_arguments_that_cannot_be_saved_are_refused(value: object) -> None:
    with pytest.raises(UsageError, match="option 'student_arguments"):
        make_config(DistillConfig, {"student_arguments": {"width": value}})


def test_the_inputs_are_kept_with_their_labels(published: Published, tmp_path: Path) -> None:
    run = run_on(published("digits_cnn", "full"))
    save_run(run, tmp_path / "student")
    kept = load_file(tmp_path / "student" / "synthetic.safetensors")
    assert kept["images"].shape == (90, 1, 8, 8)
    assert kept["labels"].bincount().tolist() == [30, 30, 30]
    assert (tmp_path / "student" / "synthetic.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("low", "high", "dtype"),
    [
        (-0.42421296, 2.82148653, torch.float16),  # neither is a float16, and both are rounded out
        (0.0, 1.0, torch.float16),
        (0.0, 65_535.0, torch.float32),
    ],
)
def test_kept_inputs_stay_within_the_range_of_the_data(
    low: float, high: float, dtype: torch.dtype
) -> None:
    raw = torch.linspace(low, high, 1001)[:, None, None]
    kept = results._smallest(raw, [low, high])
    assert kept.dtype == dtype
    assert low <= float(kept.min())
    assert float(kept.max()) <= high
    torch.testing.assert_close(kept.float(), raw, atol=1e-3 * (high - low), rtol=0)


def test_kept_columns_keep_what_varies_far_from_zero() -> None:
    raw = 1013 + torch.linspace(-1, 1, 100)[:, None].repeat(1, 3)  # a float16 is 0.5 or 1 apart
    torch.testing.assert_close(results._smallest(raw, [0.0, 2_000.0]).float(), raw)


def test_one_seed_gives_one_student_bit_for_bit(published: Published) -> None:
    first, second = (
        run_on(published("hinton800", "full")).outcome.student.module for _ in range(2)
    )
    for key, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[key]), key


def test_evaluation_data_do_not_influence_the_student(published: Published) -> None:
    folder = published("digits_cnn", "full")
    seen = run_on(folder).outcome.student.module.state_dict()
    config = make_config(DistillConfig, QUICK)
    unseen = distill(PulledSidecar(folder), config).outcome.student.module.state_dict()
    assert all(torch.equal(value, unseen[key]) for key, value in seen.items())


def test_a_changed_weight_file_is_refused(published: Published, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in published("digits_cnn", "full").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(bytes(weights))
    with pytest.raises(SidecarError, match="DM507"):
        run_on(folder)


def test_a_method_that_cannot_run_names_those_that_can(published: Published) -> None:
    with pytest.raises(MethodError) as caught:
        run_on(published("digits_cnn", "minimal"), method="lopes_all_layers", options={})
    assert caught.value.hint is not None
    assert "lopes_top_layer" in caught.value.hint


def test_wrong_settings_are_refused_before_any_work(
    published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make_batch(*_: object) -> None:
        pytest.fail("inputs are made before the settings are checked")

    folder = published("digits_cnn", "full")
    monkeypatch.setattr("dfkd_meta.synthesis.engine.Synthesizer.make_batch", make_batch)
    with pytest.raises(UsageError, match="no method named 'recordd'"):
        run_on(folder, method="recordd")
    with pytest.raises(UsageError, match="no student 'lenet6'"):
        run_on(folder, student="lenet6")
    with pytest.raises(UsageError, match="no loss named 'kdd'"):
        run_on(folder, training={"losses": {"kdd": 1.0}})


@pytest.mark.parametrize("method", ["zskd", "noise"])
def test_labels_that_nobody_gave_are_not_learned(published: Published, method: str) -> None:
    losses = {"losses": {"kd": 1.0, "hard": 1.0}}
    with pytest.raises(UsageError, match=f"'hard' needs labels, and '{method}' makes inputs"):
        run_on(published("digits_cnn", "full"), method=method, options={}, training=losses)


def test_a_student_without_maps_is_told_how_to_do_without(published: Published) -> None:
    """zskt asks for attention where the teacher has maps; what the hint names must work."""
    folder, told = published("digits_cnn", "minimal"), {"method": "zskt", "student": "hinton800"}
    training = {"steps": 2, "batch_size": 8}
    with pytest.raises(UsageError, match="no layers of teacher and student match") as caught:
        run_on(folder, options={}, training=training, **told)
    assert "--set options.attention_weight=0" in str(caught.value.hint)
    run_on(folder, options={"attention_weight": 0.0}, training=training, **told)
    run_on(folder, options={}, training={**training, "losses": {"kd": 1.0}}, **told)


def test_the_inputs_of_one_run_can_be_the_data_of_another(
    published: Published, tmp_path: Path
) -> None:
    """They are saved as raw values, so reading them normalizes them again to what they were."""
    first = run_on(published("digits_cnn", "full"))
    save_run(first, tmp_path / "first")
    options = {"data": str(tmp_path / "first" / "synthetic.safetensors")}
    second = run_on(published("digits_cnn", "full"), method="alternative_data", options=options)
    assert second.outcome.pool.labels is None
    torch.testing.assert_close(
        second.outcome.pool.images, first.outcome.pool.images, atol=5e-3, rtol=0
    )  # float16 over a std of about 0.2


@pytest.mark.parametrize("method", ["recorded", "dafl", "deep_inversion"])
def test_progress_shows_the_agreement_on_new_inputs(published: Published, method: str) -> None:
    words, images = Told(), 40 if method == "deep_inversion" else None
    settings = {"method": method, "images": images, "training": {"steps": 40, "batch_size": 16}}
    if method == "recorded":
        settings["options"] = {"drawn_batch": 64, "drawn_turn": 4}
    config = make_config(DistillConfig, settings)
    run = distill(PulledSidecar(published("digits_cnn", "full")), config, progress=words)
    found = [line for line in words.steps if "new inputs" in line]
    assert 5 <= len(found) <= 10  # taking turns, a look waits for the next batch
    verdict = run.outcome.verdict
    assert verdict is not None
    assert f"agree on {100 * verdict.share:.1f} % of {verdict.inputs} new" in found[-1]


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((3, 3, 8, 8)), [0, 1, 2], "the teacher takes"),
        (np.zeros((3, 1, 8, 8)), None, "needs labels"),
        (np.zeros((3, 1, 8, 8)), [0, 1, 3], "a class 3"),
    ],
)
def test_evaluation_data_that_do_not_fit_are_refused_before_the_work(
    published: Published, images: np.ndarray, labels: list[int] | None, message: str
) -> None:
    known = None if labels is None else np.array(labels, dtype=np.int64)
    data = ArrayDataset("other", "test", images.astype(np.uint8), known)
    said = Told()
    with pytest.raises(DataError, match=message):
        distill(
            PulledSidecar(published("digits_cnn", "full")),
            make_config(DistillConfig, QUICK),
            evaluation=data,
            progress=said,
        )
    assert not any("distilling" in line for line in said.steps)


def test_a_budget_becomes_plain_counts(published: Published, tmp_path: Path) -> None:
    folder = PulledSidecar(published("digits_cnn", "full"))
    config = load_config(DistillConfig, assignments=["training.batch_size=32"])  # as the CLI does
    run = distill(folder, config, seconds=1.0)
    assert run.config.training.steps == run.outcome.student_steps
    again = distill(folder, run.config)
    for key, value in run.outcome.student.module.state_dict().items():
        assert torch.equal(value, again.outcome.student.module.state_dict()[key]), key
    fixed = make_config(DistillConfig, {"training": {"steps": 5}})
    with pytest.raises(UsageError, match="a budget decides"):
        distill(folder, fixed, seconds=1.0)


def test_a_budget_is_kept_by_the_run_that_goes_on(
    published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, checkpoint = PulledSidecar(published("digits_cnn", "full")), tmp_path / "cut"
    settings = {"training": {"batch_size": 32}, "precision": "float32"}
    config = make_config(DistillConfig, settings)
    planned = config.model_copy(
        update={
            "training": config.training.model_copy(update={"steps": 37}),
            "images": 60,
            "options": {"batch_size": 30},
        }
    )
    monkeypatch.setattr(interruption, "SAVE_EVERY", 0.0)

    class CutError(Exception):
        pass

    def cut(self: Trainer, batch: SyntheticBatch) -> None:
        if self.steps_done == 20:
            raise CutError
        step(self, batch)

    step = Trainer.step
    monkeypatch.setattr(Trainer, "step", cut)
    with pytest.raises(CutError):
        distill(folder, planned, checkpoint=checkpoint)
    monkeypatch.setattr(Trainer, "step", step)
    other = config.model_copy(update={"method": "noise"})  # it has no option batch_size
    with pytest.raises(UsageError, match="other settings: method=recorded"):
        distill(folder, other, seconds=1e6, checkpoint=checkpoint, resume=True)
    run = distill(folder, config, seconds=1e6, checkpoint=checkpoint, resume=True)
    assert run.config == planned
    assert run.outcome.student_steps == 37


def test_data_that_were_given_are_not_copied_and_not_called_data_free(
    published: Published, tmp_path: Path
) -> None:
    source = str(write_blobs(tmp_path))
    run = run_on(published("digits_cnn", "full"), method="real_data", options={"data": source})
    save_run(run, tmp_path / "student")
    names = {path.name for path in (tmp_path / "student").iterdir()}
    assert names == {"README.md", "config.json", "model.safetensors", "run.json"}
    card = (tmp_path / "student" / "README.md").read_text()
    assert f"on data: `{Path(source).name}`" in card
    assert "data-free" not in card


@pytest.mark.parametrize(
    ("arguments", "says"),
    [({"num_classes": 4}, "returns 4 logits"), ({"shape": [3, 8, 8]}, "fails on inputs of shape")],
)
def test_a_built_in_student_that_does_not_fit_is_refused(
    published: Published, arguments: dict[str, object], says: str
) -> None:
    settings: dict[str, Any] = {"student": "digits_cnn", "student_arguments": arguments}
    with pytest.raises(TeacherError, match=says):
        run_on(published("digits_cnn", "full"), **settings)


def test_a_run_is_not_saved_over_another_unasked(published: Published, tmp_path: Path) -> None:
    run = run_on(published("digits_cnn", "full"))
    save_run(run, tmp_path / "student")
    (tmp_path / "student" / "mine").touch()
    with pytest.raises(UsageError, match="not empty"):
        save_run(run, tmp_path / "student")
    facts = save_run(run, tmp_path / "student", overwrite=True)
    assert not (tmp_path / "student" / "mine").exists()
    assert facts["result"]["agreement_on_new_after"] <= facts["result"]["student_steps"]


def test_what_of_the_inputs_data_cannot_have_is_said(published: Published, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"method": "noise", "images": 40, "options": {}}
    run = run_on(published("digits_cnn", "full"), **settings)
    facts = save_run(run, tmp_path / "student")
    assert 0 < facts["result"]["beyond_value_range"] < 1
    assert "are cut off" in (tmp_path / "student" / "README.md").read_text()


def test_a_run_of_a_single_turn_is_judged_too(published: Published) -> None:
    settings: dict[str, Any] = {
        "turn": 1_000,
        "options": {"trust": 9, "batch_size": 60, "steps": 2},
    }
    run = run_on(published("digits_cnn", "full"), **settings)
    assert run.outcome.verdict is not None
    assert run.outcome.verdict.steps == run.outcome.student_steps
