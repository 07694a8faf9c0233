"""Tables: features of scales that differ by orders of magnitude."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from dfkd_meta.data.dataset import ArrayDataset
from dfkd_meta.producer.config import ExportConfig, Profile
from dfkd_meta.producer.export import export
from dfkd_meta.sidecar import InputSpec, OutputSpec, read_sidecar
from dfkd_meta.synthesis.recipe import MethodContext
from dfkd_meta.synthesis.scales import scaled_inputs
from dfkd_meta.synthesis.targets import Targets
from dfkd_meta.teachers import Teacher
from dfkd_meta.teachers.teacher import freeze

SCALES = torch.tensor([0.001, 1.0, 30.0, 2_000.0])
SPEC = InputSpec(shape=[4], axes=["f"], value_range=[0, 8_000], mean=[600], std=[900])


def table() -> torch.Tensor:
    """Raw rows `n f`."""
    return (
        SCALES * (2 + 0.5 * torch.randn(400, 4, generator=torch.Generator().manual_seed(0))).abs()
    )


def context(folder: Path, profile: Profile, *first: nn.Module) -> MethodContext:
    """Of a published teacher that begins with ``first``."""
    rows = table()
    module = nn.Sequential(*first, nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    module.train()
    for _ in range(200):
        module((rows - 600) / 900)
    teacher = Teacher(freeze(module), "local", "x", {}, SPEC, OutputSpec(num_classes=2))
    labels = (torch.arange(len(rows)) % 2).numpy()
    data = ArrayDataset("table", "train", rows.numpy(), labels)
    export(teacher, data, ExportConfig(profile=profile), folder / "out")
    return MethodContext(teacher, read_sidecar(folder / "out"), torch.device("cpu"))


def rendered(found: MethodContext, white: torch.Tensor) -> torch.Tensor:
    rendering = scaled_inputs(found)
    assert rendering is not None
    generator = torch.Generator().manual_seed(0)
    return rendering(Targets(torch.zeros(len(white), dtype=torch.int64)), generator)(white)


@pytest.mark.parametrize(
    ("profile", "first"), [("minimal", [nn.BatchNorm1d(4)]), ("full", [nn.Identity()])]
)
def test_noise_gets_the_mean_and_the_spread_of_every_feature(
    profile: Profile, first: list[nn.Module], tmp_path: Path
) -> None:
    found = context(tmp_path, profile, *first)
    white = torch.randn(5_000, 4, generator=torch.Generator().manual_seed(1)).requires_grad_()
    inputs = rendered(found, white)
    raw, data = inputs.detach() * 900 + 600, table()  # of the first, float32 has lost the spread
    assert raw.min() >= -0.01
    torch.testing.assert_close(raw.std(0)[1:], data.std(0)[1:], rtol=0.1, atol=0)
    torch.testing.assert_close(raw.mean(0)[1:], data.mean(0)[1:], rtol=0.1, atol=0)
    (gradient,) = torch.autograd.grad(inputs.sum(), white)
    torch.testing.assert_close(gradient[0, 1:] * 900, data.std(0)[1:], rtol=0.1, atol=0)


def test_without_such_a_record_there_is_no_scale(tmp_path: Path) -> None:
    assert scaled_inputs(context(tmp_path, "standard", nn.Identity())) is None


def test_what_a_layer_has_changed_is_not_the_input(tmp_path: Path) -> None:
    changed = nn.Linear(4, 4)
    assert scaled_inputs(context(tmp_path, "minimal", changed, nn.BatchNorm1d(4))) is None
