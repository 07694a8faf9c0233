"""Preprocessing: exact normalization, its inverse, resizing as documented, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dfkd_meta.data import ArrayDataset
from dfkd_meta.errors import DataError
from dfkd_meta.sidecar.manifest import InputSpec
from dfkd_meta.teachers import denormalize, preprocess, valid_bounds
from tests.teachers.conftest import image_spec

RGB = image_spec([3, 4, 4], [0.5, 0.4, 0.3], [0.2, 0.3, 0.4])
FLAT = InputSpec(shape=[16], axes=["f"], value_range=[0.0, 1.0], mean=[0.1], std=[0.3])


def changed(spec: InputSpec, **changes: Any) -> InputSpec:
    return InputSpec.model_validate({**spec.model_dump(), **changes})


@settings(max_examples=40)
@given(
    st.floats(-3, 3),
    st.floats(0.01, 10),
    st.floats(-300, 300),
    st.floats(0.1, 300),
    st.sampled_from([None, "rgb", "bgr"]),
)
def test_denormalize_inverts_preprocess(
    mean: float, std: float, low: float, width: float, color: str | None
) -> None:
    spec = changed(
        RGB, mean=[mean, 0.0, 1.0], std=[std, 1.0, 2.0], value_range=[low, low + width],
        color_order=color,
    )  # fmt: skip
    raw = low + width * torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    images = preprocess(raw, spec)
    torch.testing.assert_close(denormalize(images, spec), raw, rtol=1e-4, atol=1e-4 * width)
    lowest, highest = valid_bounds(spec)
    slack = 1e-4 * float((highest - lowest).max())
    assert bool(((images >= lowest - slack) & (images <= highest + slack)).all())


def test_normalization_is_per_channel_in_the_models_color_order() -> None:
    raw = torch.rand(2, 3, 4, 4)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (RGB.mean, RGB.std))
    torch.testing.assert_close(preprocess(raw, RGB), (raw - mean) / std)
    bgr = changed(RGB, color_order="bgr")
    torch.testing.assert_close(preprocess(raw, bgr), (raw.flip(1) - mean) / std)


def test_bounds_broadcast_over_one_sample() -> None:
    low, high = valid_bounds(RGB)
    assert low.shape == high.shape == (3, 1, 1)
    assert low[0].item() == pytest.approx(-2.5)
    assert high[2].item() == pytest.approx(1.75)
    assert valid_bounds(FLAT)[0].shape == (1,)


def test_gray_images_flatten_and_unflatten_in_row_order() -> None:
    raw = torch.rand(2, 1, 4, 4)
    flat = preprocess(raw, FLAT)
    assert torch.equal(flat, (raw.flatten(1) - 0.1) / 0.3)
    gray = image_spec([1, 4, 4], [0.1], [0.3])
    assert torch.equal(preprocess(raw.flatten(1), gray).flatten(1), flat)


def test_sequences_come_back_from_being_read_as_gray_images() -> None:
    spec = InputSpec(shape=[5, 2], axes=["t", "f"], value_range=[0.0, 1.0], mean=[0.1], std=[0.3])
    given = np.random.default_rng(0).random((3, 5, 2), dtype=np.float32)
    raw = ArrayDataset("sequences", "train", given, None).read(range(3))
    assert raw.shape == (3, 1, 5, 2)
    torch.testing.assert_close(preprocess(raw, spec), (torch.from_numpy(given) - 0.1) / 0.3)


@pytest.mark.parametrize(
    ("spec", "shape", "says"),
    [
        (RGB, [1, 4, 4], "3: convert them"),
        (image_spec([1, 4, 4], [0.0], [1.0]), [3, 4, 4], "the data have 3 channels"),
        (RGB, [3, 5, 4], "does not say how to resize"),
        (RGB, [48], "samples have shape"),
        (FLAT, [15], "samples have shape"),
        (FLAT, [1, 5, 5], "samples have shape"),
        (changed(RGB, mean=[0.0, 0.0]), [3, 4, 4], "2 values for 3 channels"),
    ],
)
def test_shapes_that_do_not_fit(spec: InputSpec, shape: list[int], says: str) -> None:
    with pytest.raises(DataError) as caught:
        preprocess(torch.rand(2, *shape), spec)
    assert says in f"{caught.value.message} {caught.value.hint}"


@pytest.mark.parametrize("value", [1.01, -0.01, 255.0, float("inf")])
def test_values_out_of_range(value: float) -> None:
    raw = torch.rand(2, 3, 4, 4)
    raw[1, 2, 3, 0] = value
    with pytest.raises(DataError, match="the teacher expects 0 to 1"):
        preprocess(raw, RGB)


def test_lost_values_are_counted() -> None:
    raw = torch.rand(2, 3, 4, 4)
    raw[1, 2, 3, :2] = float("nan")
    with pytest.raises(DataError, match="2 of 96 values are NaN"):
        preprocess(raw, RGB)


def test_rounding_at_the_ends_of_the_range_is_forgiven() -> None:
    raw = torch.full((1, 3, 4, 4), 1.0 + 1e-6)
    assert torch.equal(preprocess(raw, RGB), preprocess(torch.ones(1, 3, 4, 4), RGB))


def test_bilinear_enlarging_is_half_pixel_interpolation() -> None:
    spec = image_spec([1, 4, 4], [0.0], [1.0], "bilinear")
    row = preprocess(torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]]), spec)[0, 0, 0]
    np.testing.assert_allclose(row, [0.0, 0.25, 0.75, 1.0], atol=1e-6)


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(3, 3), (9, 5), (64, 64)])
def test_resized_constants_stay_constant_and_nothing_leaves_the_range(
    mode: str, size: tuple[int, int]
) -> None:
    spec = image_spec([1, 6, 6], [0.0], [1.0], mode)
    constant = preprocess(torch.full((1, 1, *size), 0.3), spec)
    torch.testing.assert_close(constant, torch.full((1, 1, 6, 6), 0.3))
    checker = preprocess(torch.randint(0, 2, (2, 1, *size)).float(), spec)
    assert checker.min() >= 0
    assert checker.max() <= 1


@pytest.mark.parametrize(("before", "after"), [(8, 4), (4, 8), (5, 3), (3, 5), (28, 32), (33, 7)])
def test_nearest_is_that_of_pillow(before: int, after: int) -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow shows what is meant")
    pixels = np.arange(before**2, dtype=np.float32).reshape(before, before) / before**2
    wanted = image.fromarray(pixels).resize((after, after), image.Resampling.NEAREST)
    spec = image_spec([1, after, after], [0.0], [1.0], "nearest")
    found = preprocess(torch.from_numpy(pixels)[None, None], spec)[0, 0]
    np.testing.assert_array_equal(found, np.asarray(wanted))


def test_crop_keeps_the_middle_as_timm_does() -> None:
    spec = changed(image_spec([1, 4, 4], [0.0], [1.0], "nearest"), crop_pct=0.5)
    raw = torch.rand(1, 1, 8, 8)
    assert torch.equal(preprocess(raw, spec), raw[:, :, 2:6, 2:6])
    wide = torch.rand(1, 1, 8, 16)  # the shorter side becomes 8, the middle 4 x 4 is kept
    assert torch.equal(preprocess(wide, spec), wide[:, :, 2:6, 6:10])
    squash = changed(spec, crop_mode="squash")
    assert torch.equal(preprocess(wide, squash), wide[:, :, 2:6, 1::2][..., 2:6])
    with pytest.raises(DataError, match="border"):
        preprocess(raw, changed(spec, crop_mode="border"))


@settings(max_examples=60)
@given(
    st.integers(1, 9), st.integers(1, 9), st.integers(1, 40), st.integers(1, 40),
    st.floats(0.05, 1), st.sampled_from([None, "center", "squash"]),
)  # fmt: skip
def test_any_size_becomes_the_models(
    h: int, w: int, height: int, width: int, crop: float, mode: str | None
) -> None:
    spec = changed(image_spec([1, h, w], [0.0], [1.0], "bilinear"), crop_pct=crop, crop_mode=mode)
    assert preprocess(torch.rand(1, 1, height, width), spec).shape == (1, 1, h, w)


def test_whole_numbers_and_arrays_are_pixels_too() -> None:
    frame = InputSpec(
        shape=[1, 8, 8], axes=["c", "h", "w"], value_range=[0.0, 1.0], mean=[0.1], std=[0.3]
    )
    pixels = np.arange(64, dtype=np.uint8).reshape(1, 1, 8, 8)
    expected = preprocess(torch.from_numpy(pixels / np.float32(255)), frame)
    assert torch.equal(preprocess(pixels, frame), expected)
    assert torch.equal(preprocess(torch.from_numpy(pixels), frame), expected)
