"""Networks compute in bfloat16 where asked to; all that terms and losses see is float32."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dfkd_meta.config import make_config
from dfkd_meta.consumer.pipeline import DistillConfig, precision_of
from dfkd_meta.consumer.run import Outcome, run_method
from dfkd_meta.precision import computing, settle
from dfkd_meta.sidecar import read_sidecar
from dfkd_meta.teachers import teacher_from_sidecar

Published = Callable[[str, str], Path]
CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("able", "settled"),
    [
        ({"avx512_bf16": True}, "bfloat16"),
        ({"amx_bf16": True, "avx512_bf16": False}, "bfloat16"),
        ({"avx2": True, "avx512_bf16": False}, "float32"),
        ({}, "float32"),
    ],
)
def test_auto_is_bfloat16_where_the_processor_has_instructions_for_it(
    able: dict[str, Any], settled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able, raising=False)
    assert settle("auto", CPU) == settled
    assert settle("float32", CPU) == "float32"
    assert settle("bfloat16", CPU) == "bfloat16"


def test_an_older_torch_that_cannot_tell_takes_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert settle("auto", CPU) == "float32"


def test_layers_compute_in_the_precision_and_weights_stay_as_they_are() -> None:
    layer = torch.nn.Linear(3, 2)
    with computing("bfloat16", CPU):
        assert layer(torch.ones(1, 3)).dtype == torch.bfloat16
    with computing("float32", CPU):
        assert layer(torch.ones(1, 3)).dtype == torch.float32
    assert layer.weight.dtype == torch.float32


@pytest.mark.parametrize("method", ["deep_inversion", "fast_dfkd"])
def test_a_run_in_bfloat16_is_near_the_one_in_float32_and_keeps_float32(
    method: str, published: Callable[[str, str], Path]
) -> None:
    folder = published("digits_cnn", "full")
    sidecar = read_sidecar(folder)
    teacher = teacher_from_sidecar(folder, sidecar)

    def made(precision: str) -> Outcome:
        few = {"batch_size": 20, "steps" if method == "deep_inversion" else "inner_steps": 2}
        settings = {
            "method": method,
            "images": 40,
            "options": few,
            "precision": precision,
            "training": {"steps": 3, "batch_size": 20},
        }
        return run_method(teacher, sidecar, make_config(DistillConfig, settings), CPU)

    coarse, fine = made("bfloat16"), made("float32")
    for outcome in (coarse, fine):
        values = [outcome.pool.images, *outcome.student.module.parameters()]
        assert {value.dtype for value in values} == {torch.float32}
    assert not torch.equal(coarse.pool.images, fine.pool.images)
    assert (coarse.pool.images - fine.pool.images).abs().median() < 0.1


class Halves(nn.Module):
    """Casts to half precision before a BatchNorm of half-precision weights."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 3), nn.BatchNorm1d(3)).half()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.body(x.half()).float()
        return logits


class Summed(nn.Module):
    """Adds up float32 sums of a layer's answers, which would be bfloat16 within autocast."""

    def __init__(self, num_classes: int, inputs: int) -> None:
        super().__init__()
        self.layer = nn.Linear(inputs, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        answers = self.layer(x.flatten(1))
        return torch.zeros(answers.shape).index_add_(0, torch.arange(len(x)), answers)


def test_auto_is_float32_for_a_network_that_fails_in_bfloat16(
    published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    able = {"avx512_bf16": True}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able, raising=False)
    folder = published("digits_cnn", "minimal")
    teacher = teacher_from_sidecar(folder, read_sidecar(folder))
    assert precision_of(DistillConfig(), teacher, CPU) == "bfloat16"
    mixed = replace(teacher, module=Halves().eval())
    assert mixed(torch.zeros(2, 1, 8, 8)).shape == (2, 3)
    assert precision_of(DistillConfig(), mixed, CPU) == "float32"
    assert precision_of(DistillConfig(precision="bfloat16"), mixed, CPU) == "bfloat16"
    own = DistillConfig(student=f"{__name__}:Summed", student_arguments={"inputs": 64})
    assert precision_of(own, teacher, CPU) == "float32"
