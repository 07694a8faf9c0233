"""Every part works on a device that is not the CPU, and gives what it gives there but rounding."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.testing import assert_close

from dfkd_meta.checkpoint import load_state, save_state
from dfkd_meta.config import make_config
from dfkd_meta.consumer.pipeline import DistillConfig, make_recipe
from dfkd_meta.consumer.run import Distillation
from dfkd_meta.distillation.config import TrainingConfig
from dfkd_meta.distillation.evaluation import accuracy
from dfkd_meta.distillation.losses import losses
from dfkd_meta.errors import MethodError
from dfkd_meta.producer.config import ExportConfig
from dfkd_meta.producer.export import export
from dfkd_meta.producer.train import TrainConfig, train_network
from dfkd_meta.progress import Silent
from dfkd_meta.sidecar import read_sidecar
from dfkd_meta.synthesis.gaussians import read_gaussians
from dfkd_meta.synthesis.recipe import methods
from dfkd_meta.teachers import teacher_from_sidecar
from dfkd_meta.waiting import LATEST, LossWatch
from tests.other_device.device import other_device, read_back
from tests.support.published import blobs
from tests.support.small_recipes import ended, options_for, shrunk, teacher_for, write_blobs

Published = Callable[[str, str], Path]
CPU = torch.device("cpu")


@pytest.fixture
def other() -> Iterator[torch.device]:
    with other_device() as device:
        yield device


def test_the_device_refuses_what_a_gpu_refuses(other: torch.device) -> None:
    """Or no test of this file could fail."""
    there, here = torch.ones(2, 3).to(other), torch.ones(2, 3)
    assert there.device == other
    assert (there @ there.T).cpu().tolist() == [[3, 3], [3, 3]]
    mixed: list[Callable[[], object]] = [
        lambda: there + here,
        lambda: here[torch.tensor([0]).to(other)],
        lambda: torch.cat([here, there]),
        lambda: torch.rand(2, device=other, generator=torch.Generator()),
        lambda: nn.Linear(3, 1)(there),
    ]
    for operation in mixed:
        with pytest.raises(RuntimeError, match="device"):
            operation()
    with pytest.raises(RuntimeError, match="numpy"):
        there.numpy()


def prepared(
    folder: Path, config: DistillConfig, device: torch.device, *, steps: int | None = None
) -> Distillation:
    sidecar = read_sidecar(folder)
    teacher = teacher_from_sidecar(folder, sidecar).to(device)
    recipe = shrunk(make_recipe(teacher, sidecar, config, device))
    recipe = recipe if steps is None else replace(recipe, steps=steps)
    return Distillation(teacher, recipe, config, device)


def assert_same(one: nn.Module, two: nn.Module) -> None:
    """On whatever device each of them is."""
    ours, theirs = one.state_dict(), two.state_dict()
    for key, value in ours.items():
        assert_close(value.cpu(), theirs[key].cpu(), rtol=0, atol=1e-4)


def small(method: str, **more: Any) -> DistillConfig:
    training = {"steps": 4, "batch_size": 8, **more.pop("training", {})}
    given = {"method": method, "precision": "float32", "training": training, **more}
    return make_config(DistillConfig, given)


@pytest.mark.parametrize("name", methods.names())
def test_every_method_and_going_on_with_it(
    name: str, published: Published, tmp_path: Path, other: torch.device
) -> None:
    folder = published(teacher_for(name), "full")
    config = small(name, options=options_for(name, write_blobs(tmp_path)))
    expected = ended(prepared(folder, config, CPU))
    first = prepared(folder, config, other)
    for _ in itertools.islice(first.advance(Silent()), 2):
        pass
    save_state(tmp_path / "state", first.state())
    second = prepared(folder, config, other)
    second.load_state(load_state(tmp_path / "state"))
    found = ended(second)
    assert next(found.student.module.parameters()).device == other
    assert found.pool.images.device == CPU
    assert_close(found.pool.images, expected.pool.images, rtol=0, atol=1e-4)
    assert_same(found.student.module, expected.student.module)


@pytest.mark.parametrize(
    "name", ["recorded", "deep_inversion", "cmi", "fast_dfkd", "lopes_spectral_all_layers"]
)
def test_the_device_is_read_once_a_batch_and_not_at_each_step(
    name: str, published: Published, other: torch.device
) -> None:
    """Whatever is read back makes a GPU wait for the program."""
    folder = published(teacher_for(name), "full")
    options = {"trust": 100} if name == "recorded" else {}
    config = small(name, options=options, training={"mixup": 0.5, "cutmix": 0.5, "flip": True})

    def reads(steps: int) -> int:
        run = prepared(folder, config, other, steps=steps)
        run.pool.add(run.synthesizer.make_batch(8))
        read_back.clear()
        run.synthesizer.make_batch(8)
        return len(read_back)

    assert 0 < reads(7) == reads(2)


@pytest.mark.parametrize("name", losses.names())
def test_a_student_step_reads_nothing(name: str, published: Published, other: torch.device) -> None:
    views = {"mixup": 0.5, "cutmix": 0.5, "flip": True, "max_norm": 1.0, "ema": 0.9}
    config = small("recorded", training={**views, "losses": {name: 1.0}})
    run = prepared(published("digits_cnn", "full"), config, other)
    run.pool.add(run.synthesizer.make_batch(8))
    read_back.clear()
    for _ in range(3):
        run.trainer.step(run.pool.draw(8, run.order))
    assert not read_back


def test_a_draw_reads_as_much_of_many_classes_as_of_one(
    published: Published, other: torch.device
) -> None:
    sidecar = read_sidecar(published("digits_cnn", "full"))
    record = sidecar.find("covariance", scope="per_class", reduction="unit")[0]
    gaussians = read_gaussians(sidecar, record, other)

    def reads(labels: list[int]) -> int:
        read_back.clear()
        gaussians.sample(torch.tensor(labels).to(other), torch.Generator().manual_seed(0))
        return len(read_back)

    assert reads([0, 1, 2, 1]) == reads([1, 1, 1, 1])


def test_a_lost_loss_is_noticed_later_and_its_step_named(other: torch.device) -> None:
    good, lost = torch.tensor(1.0).to(other), torch.tensor(float("nan")).to(other)
    watch = LossWatch("the loss", hint="smaller steps")
    for step in range(LATEST - 1):
        watch.see(lost if step == 1 else good, f"step {step}")
    with pytest.raises(MethodError, match=r"the loss became nan at step 1\b"):
        watch.see(good, f"step {LATEST - 1}")
    watch.see(lost, "the next step")
    with pytest.raises(MethodError, match="at the next step"):
        watch.check()
    watch.check()


@pytest.mark.parametrize("name", losses.names())
def test_every_loss_and_view(name: str, published: Published, other: torch.device) -> None:
    views = {"mixup": 0.5, "cutmix": 0.5, "flip": True, "jitter": 2, "dropout": True}
    training = {**views, "max_norm": 1.0, "ema": 0.9, "losses": {name: 1.0}}
    config = small("recorded", training=training)
    folder = published("digits_cnn", "standard")
    found, expected = (ended(prepared(folder, config, device)) for device in (other, CPU))
    assert_same(found.student.module, expected.student.module)


@pytest.mark.parametrize("architecture", ["digits_cnn", "hinton800"])
def test_every_statistic(
    architecture: str, published: Published, tmp_path: Path, other: torch.device
) -> None:
    folder = published(architecture, "full")
    teacher = teacher_from_sidecar(folder, read_sidecar(folder)).to(other)
    config = ExportConfig(profile="full", created="2026-01-01T00:00:00Z")
    export(teacher, blobs("train"), config, tmp_path / "out", evaluation=blobs("test"))
    ours = load_file(tmp_path / "out" / "dfkd_meta.safetensors")
    theirs = load_file(folder / "dfkd_meta.safetensors")
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert_close(ours[name], value, rtol=1e-3, atol=1e-4, msg=name)


def test_training_and_evaluation(other: torch.device) -> None:
    training = TrainingConfig(losses={"hard": 1.0}, steps=4, batch_size=32, mixup=0, cutmix=0)
    config = TrainConfig(width=0.25, training=training)
    for architecture in ("digits_cnn", "hinton800"):
        found = train_network(architecture, blobs("train"), config, device=other)
        expected = train_network(architecture, blobs("train"), config)
        assert_same(found.module, expected.module)
        assert accuracy(found.module.to(other), blobs("test"), found.inputs) == pytest.approx(
            accuracy(expected.module, blobs("test"), expected.inputs), abs=0.02
        )
