"""A run that was cut off anywhere goes on to the same student, whatever the method."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from dfkd_meta.checkpoint import load_state, save_state
from dfkd_meta.config import make_config
from dfkd_meta.consumer import interruption, pipeline
from dfkd_meta.consumer import run as run_module
from dfkd_meta.consumer.pipeline import DistillConfig, make_recipe
from dfkd_meta.consumer.run import Distillation, Outcome, run_method
from dfkd_meta.errors import UsageError
from dfkd_meta.progress import Silent
from dfkd_meta.sidecar import Sidecar, read_sidecar
from dfkd_meta.synthesis.recipe import methods
from dfkd_meta.synthesis.rounds import Rounds
from dfkd_meta.teachers import Teacher, teacher_from_sidecar
from tests.support.small_recipes import ended, options_for, shrunk, teacher_for, write_blobs

Published = Callable[[str, str], Path]
CPU = torch.device("cpu")
TRAINING = {"steps": 7, "batch_size": 8}


def opened(folder: Path) -> tuple[Teacher, Sidecar]:
    sidecar = read_sidecar(folder)
    return teacher_from_sidecar(folder, sidecar), sidecar


def started(name: str, published: Published, data: Path) -> Distillation:
    """A small run of a method on a teacher with dropout, or with BatchNorm if it can do with it."""
    teacher, sidecar = opened(published(teacher_for(name), "full"))
    settings = {"method": name, "options": options_for(name, data), "training": TRAINING}
    config = make_config(DistillConfig, settings)
    return Distillation(teacher, shrunk(make_recipe(teacher, sidecar, config, CPU)), config, CPU)


def test_inputs_that_would_not_fit_make_a_smaller_pool(
    published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher, sidecar = opened(published("digits_cnn", "minimal"))
    config = make_config(DistillConfig, {"method": "recorded", "training": TRAINING})
    recipe = shrunk(make_recipe(teacher, sidecar, config, CPU))
    assert recipe.rounds is not None
    ever = 5 * recipe.batch_size  # one batch of the warm-up, one at the start, one every two steps
    for kept, expected in ((1, 1), (30, 30), (10**9, ever)):
        monkeypatch.setattr(pipeline, "POOL_NUMBERS", kept * 64)
        assert Distillation(teacher, recipe, config, CPU).pool.capacity == expected


def test_a_pool_takes_its_memory_once(published: Published, tmp_path: Path) -> None:
    run = started("recorded", published, tmp_path)
    places = set()
    for _ in run.advance(Silent()):
        places.add(run.pool.contents().images.data_ptr())
    assert len(run.pool) == run.pool.capacity
    assert len(places) == 1


def test_what_a_gpu_has_still_to_train_is_training(
    published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = started("deep_inversion", published, tmp_path)
    before = dict(run.seconds)
    run.settle()
    assert run.seconds == before  # a CPU has done what it was told
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: time.sleep(0.05))
    run.device = torch.device("cuda")
    run.settle()
    assert run.seconds["training"] - before["training"] >= 0.05
    assert run.seconds["synthesis"] == before["synthesis"]


def test_no_more_inputs_are_made_beforehand_than_fit(
    published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher, sidecar = opened(published("digits_cnn", "minimal"))
    monkeypatch.setattr(pipeline, "POOL_NUMBERS", 50 * 64)
    for images, expected in ((None, 50), (70, 50), (50, 50), (1, 1)):
        settings = {"method": "noise", "images": images, "training": TRAINING}
        recipe = make_recipe(teacher, sidecar, make_config(DistillConfig, settings), CPU)
        assert recipe.images == expected
        said = [note for note in recipe.notes if note.startswith("50 inputs, not ")]
        assert len(said) == ((images or 20_000) > 50)


@pytest.mark.parametrize("name", methods.names())
def test_a_run_cut_off_anywhere_ends_in_the_same_student(
    name: str, published: Published, tmp_path: Path
) -> None:
    data = write_blobs(tmp_path)
    run = started(name, published, data)
    points = sum(1 for _ in run.advance(Silent()))
    whole = run.outcome()
    for cut in sorted({1, points // 2, points - 1}):
        first = started(name, published, data)
        for _ in itertools.islice(first.advance(Silent()), cut):
            pass
        save_state(tmp_path / "state", first.state())
        second = started(name, published, data)
        second.load_state(load_state(tmp_path / "state"))
        again = ended(second)
        assert torch.equal(whole.pool.images, again.pool.images), cut
        theirs = again.student.module.state_dict()
        for key, value in whole.student.module.state_dict().items():
            assert torch.equal(value, theirs[key]), (cut, key)
        assert again.images == whole.images
        assert again.student_steps == TRAINING["steps"]


@pytest.mark.parametrize("name", ["deep_inversion", "cmi", "fast_dfkd", "nayer"])
def test_a_student_sees_mirrored_what_its_method_mirrors(name: str, published: Published) -> None:
    """It must not hang on how well the first inputs are recognized."""
    teacher, sidecar = opened(published("digits_cnn", "minimal"))

    def mirrored(flip: bool, training: dict[str, object]) -> bool:
        given = {"method": name, "options": {"flip": flip}, "training": {**TRAINING, **training}}
        config = make_config(DistillConfig, given)
        recipe = shrunk(make_recipe(teacher, sidecar, config, CPU))
        return ended(Distillation(teacher, recipe, config, CPU)).mirrored

    assert mirrored(True, {})
    assert not mirrored(True, {"flip": False})
    assert mirrored(False, {"flip": True})


def settings(**more: object) -> DistillConfig:
    options = {"drawn_batch": 30, "batch_size": 30}
    return make_config(DistillConfig, {"options": options, "training": TRAINING, **more})


def test_a_killed_run_resumes_from_its_file(
    published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher, sidecar = opened(published("digits_cnn", "full"))
    whole = run_method(teacher, sidecar, settings(), CPU)
    monkeypatch.setattr(interruption, "SAVE_EVERY", 0.0)
    place = tmp_path / "not yet there" / "run.unfinished"
    step = run_module.Trainer.step

    def dies(trainer: run_module.Trainer, batch: object) -> None:
        if trainer.steps_done >= 4:
            raise KeyboardInterrupt
        step(trainer, batch)

    monkeypatch.setattr(run_module.Trainer, "step", dies)
    with pytest.raises(KeyboardInterrupt):
        run_method(teacher, sidecar, settings(), CPU, checkpoint=place)
    monkeypatch.setattr(run_module.Trainer, "step", step)
    with pytest.raises(UsageError, match="other settings") as caught:
        run_method(teacher, sidecar, settings(seed=1), CPU, checkpoint=place, resume=True)
    assert caught.value.hint is not None
    again = run_method(teacher, sidecar, settings(), CPU, checkpoint=place, resume=True)
    # What came out may be lost on its way to the disk, so the file has the end of the run, too.
    monkeypatch.setattr(run_module.Trainer, "step", dies)
    at_end = run_method(teacher, sidecar, settings(), CPU, checkpoint=place, resume=True)
    for outcome in (again, at_end):
        theirs = outcome.student.module.state_dict()
        assert all(torch.equal(v, theirs[k]) for k, v in whole.student.module.state_dict().items())
        assert outcome.student_steps == TRAINING["steps"]


def wider(num_classes: int, width: float = 1.0) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(64, int(8 * width)),
        nn.ReLU(),
        nn.Linear(int(8 * width), num_classes),
    )


def test_a_run_goes_on_with_the_same_data_and_student_only(
    published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher, sidecar = opened(published("digits_cnn", "full"))
    data, place = tmp_path / "data.npz", tmp_path / "c"
    images = np.random.default_rng(0).integers(0, 255, (60, 8, 8), dtype=np.uint8)
    np.savez(data, images=images)
    config = settings(
        method="alternative_data", options={"data": str(data)}, student=f"{__name__}:wider"
    )
    run_method(teacher, sidecar, config, CPU, checkpoint=place)

    def again() -> Outcome:
        return run_method(teacher, sidecar, config, CPU, checkpoint=place, resume=True)

    again()
    with monkeypatch.context() as patched:
        patched.setitem(globals(), "wider", lambda num_classes: wider_before(num_classes, 2.0))
        with pytest.raises(UsageError, match="a student of another shape"):
            again()
    np.savez(data, images=255 - images)
    with pytest.raises(UsageError, match=r"had other data \("):
        again()
    monkeypatch.setattr(interruption, "versions", lambda: {"dfkd_meta": "0.0.1"})
    with pytest.raises(UsageError, match="another version of dfkd-meta and other data"):
        again()


wider_before = wider


def test_a_damaged_checkpoint_is_a_clear_error(published: Published, tmp_path: Path) -> None:
    teacher, sidecar = opened(published("digits_cnn", "full"))
    (tmp_path / "c").write_bytes(b"\x80\x04 not a safetensors file")
    with pytest.raises(UsageError, match="cannot be read"):
        run_method(teacher, sidecar, settings(), CPU, checkpoint=tmp_path / "c", resume=True)


def test_images_can_be_set_whatever_the_method_calls_them(published: Published) -> None:
    teacher, sidecar = opened(published("digits_cnn", "full"))
    config = make_config(
        DistillConfig, {"method": "noise", "images": 17, "training": {"steps": 2, "batch_size": 8}}
    )
    outcome = run_method(teacher, sidecar, config, CPU)
    assert outcome.images == len(outcome.pool) == 17


def test_rounds_make_batches_as_student_steps_ask_for_them(
    published: Published, tmp_path: Path
) -> None:
    run = started("deep_inversion", published, tmp_path)
    for warm_up, per_round, expected in ((0, 3, 3), (2, 3, 5), (0, 7, 1)):
        rounds = Rounds(student_steps=per_round, warm_up=warm_up)
        again = started("deep_inversion", published, tmp_path)
        again.recipe = dataclasses.replace(run.recipe, rounds=rounds)
        outcome = ended(again)
        assert again.synthesizer.made == expected
        assert outcome.images == expected * run.recipe.batch_size


@pytest.mark.parametrize(
    ("capacity", "first"),
    [(60_000, 5), (27, 3), (10, 2)],  # five batches of nine come in all
)
def test_batches_that_do_not_ask_the_student_come_before_it(
    published: Published, tmp_path: Path, capacity: int, first: int
) -> None:
    """As many as the pool holds: what it drops would never be seen."""
    run = started("deep_inversion", published, tmp_path)
    rounds = Rounds(student_steps=2, warm_up=1, capacity=capacity, ahead=True)
    run = Distillation(run.teacher, dataclasses.replace(run.recipe, rounds=rounds), run.config, CPU)
    made = []
    for _ in run.advance(Silent()):
        if not run.trainer.steps_done:
            made.append(run.synthesizer.made)
    assert made[-1] == first
    assert run.synthesizer.made == 5
    assert run.outcome().verdict is not None
    held = run.exam.held_out
    assert (held is None) == (first < 5)
    assert len(run.pool) == min(capacity, 5 * run.recipe.batch_size - (0 if held is None else 2))


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_inputs_come_in_turns_where_they_are_against_the_student(
    published: Published, weight: float
) -> None:
    teacher, sidecar = opened(published("digits_cnn", "standard"))
    recipe = make_recipe(teacher, sidecar, settings(options={"adversarial_weight": weight}), CPU)
    assert recipe.rounds is not None
    assert recipe.rounds.ahead == (not weight)


def test_counts_that_mean_nothing_for_a_method_are_said(published: Published) -> None:
    teacher, sidecar = opened(published("digits_cnn", "full"))
    turns = run_method(teacher, sidecar, settings(images=17), CPU)
    assert any("images=17 means nothing here" in note for note in turns.notes)
    quick = {"options": {}, "training": {"steps": 2, "batch_size": 8}}
    first = run_method(teacher, sidecar, settings(method="noise", turn=3, images=9, **quick), CPU)
    assert any("turn=3 means nothing here" in note for note in first.notes)
    assert not any("images" in note for note in first.notes)


def test_classes_that_are_not_described_are_said(published: Published) -> None:
    teacher, whole = opened(published("digits_cnn", "full"))
    origin = whole.manifest.provenance.model_copy(update={"class_counts": [160, 0, 80]})
    manifest = whole.manifest.model_copy(update={"provenance": origin})
    sidecar = dataclasses.replace(whole, manifest=manifest)
    config = settings(training={"steps": 2, "batch_size": 8})
    recipe = make_recipe(teacher, sidecar, config, CPU)
    assert any(note.endswith("the sidecar does not describe: class 1") for note in recipe.notes)
    assert len(sidecar.partial) == sum(r.scope == "per_class" for r in manifest.statistics)


def test_records_of_some_classes_are_left_alone(published: Published) -> None:
    """No input is made for a class by the numbers of another."""
    teacher, whole = opened(published("digits_cnn", "full"))
    statistics = []
    for record in whole.manifest.statistics:
        changes: dict[str, object] = {}
        if record.scope == "per_class":
            changes = {"classes": [0, 2]}
        statistics.append(record.model_copy(update=changes))
    manifest = whole.manifest.model_copy(update={"statistics": statistics})
    sidecar = dataclasses.replace(whole, manifest=manifest)
    assert not sidecar.find("moments", scope="per_class")
    assert len(sidecar.partial) == sum(r.scope == "per_class" for r in statistics)
    config = settings(training={"steps": 2, "batch_size": 8})
    outcome = run_method(teacher, sidecar, config, CPU)
    assert any(note.startswith("not used, of some classes only: ") for note in outcome.notes)
