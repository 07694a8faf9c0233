"""The PNG writer, read back by an independent reader."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch

from dfkd_meta.report.grid import grid_png
from dfkd_meta.sidecar import InputSpec

Image = pytest.importorskip("PIL.Image", reason="needs Pillow (extra [data])")


def spec(channels: int, order: str) -> InputSpec:
    return InputSpec(
        shape=[channels, 2, 2], axes=["c", "h", "w"], value_range=[0.0, 1.0],
        mean=[0.5] * channels, std=[0.25] * channels, color_order=order,
    )  # fmt: skip


@pytest.mark.parametrize(("channels", "order", "mode"), [(1, "gray", "L"), (3, "rgb", "RGB")])
def test_pixels_come_back(channels: int, order: str, mode: str) -> None:
    raw = torch.arange(3 * channels * 4).reshape(3, channels, 2, 2) / 255
    png = grid_png((raw - 0.5) / 0.25, spec(channels, order), columns=2, scale=1)
    assert png is not None
    picture = Image.open(io.BytesIO(png))
    assert picture.mode == mode
    pixels = np.asarray(picture).reshape(6, 6, channels)
    expected = (raw * 255).round().byte().permute(0, 2, 3, 1).numpy()
    assert np.array_equal(pixels[0:2, 0:2], expected[0])
    assert np.array_equal(pixels[0:2, 3:5], expected[1])
    assert np.array_equal(pixels[3:5, 0:2], expected[2])


def test_flat_inputs_have_no_picture() -> None:
    assert grid_png(torch.zeros(3, 4), spec(1, "gray")) is None
