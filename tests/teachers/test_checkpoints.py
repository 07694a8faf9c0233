"""The published checkpoints, loaded as they are, reach the accuracy that was measured elsewhere."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from dfkd_meta.data import ArrayDataset, open_data
from dfkd_meta.distillation.evaluation import accuracy
from dfkd_meta.sidecar.manifest import InputSpec
from dfkd_meta.teachers import open_teacher
from tests.teachers.conftest import image_spec


def test_lenet5_on_mnist(real_data: Path, lenet_spec: InputSpec) -> None:
    weights = real_data / "teachers" / "mnist_lenet5.safetensors"
    teacher = open_teacher("lenet5", weights=weights, inputs=lenet_spec, num_classes=10)
    test = open_data(str(real_data / "mnist"), split="test")
    assert accuracy(teacher.module, test, teacher.inputs) == pytest.approx(0.9918, abs=2e-4)


def test_hinton1200_on_mnist(real_data: Path) -> None:
    weights = real_data / "teachers" / "mnist_hinton1200.safetensors"
    spec = image_spec([1, 28, 28], [0.0], [1.0])
    teacher = open_teacher("hinton1200", weights=weights, inputs=spec, num_classes=10)
    test = open_data(str(real_data / "mnist"), split="test")
    assert accuracy(teacher.module, test, teacher.inputs) == pytest.approx(0.9844, abs=2e-4)


def test_hinton1200_takes_flat_inputs(real_data: Path) -> None:
    weights = real_data / "teachers" / "mnist_hinton1200.safetensors"
    flat = InputSpec(shape=[784], axes=["f"], value_range=[0.0, 1.0], mean=[0.0], std=[1.0])
    one = open_teacher("hinton1200", weights=weights, inputs=flat, num_classes=10)
    images = open_data(str(real_data / "mnist"), split="test").read(range(500))
    from dfkd_meta.teachers import preprocess

    assert torch.equal(one(preprocess(images, flat)), one.module(images))


def test_resnet20_on_cifar10(real_data: Path) -> None:
    weights = real_data / "teachers" / "cifar10_resnet20_akamaster.safetensors"
    spec = image_spec([3, 32, 32], [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    teacher = open_teacher("resnet20", weights=weights, inputs=spec, num_classes=10)
    images, labels = _cifar_test_batch(real_data / "cifar10")
    test = ArrayDataset("cifar10", "test", images, labels.astype(np.int64))
    assert accuracy(teacher.module, test, teacher.inputs) == pytest.approx(0.9173, abs=2e-4)


def _cifar_test_batch(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    script = Path(__file__).parents[2] / "examples" / "bench" / "cifar10_npz.py"
    found = importlib.util.spec_from_file_location("cifar10_npz", script)
    assert found
    assert found.loader
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    images, labels = module.batch(folder, "test_batch")
    return images, labels
