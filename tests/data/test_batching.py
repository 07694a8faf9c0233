"""Batches: every sample once, in the order asked for, in the range of the teacher."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dfkd_meta.data import ArrayDataset, batches, count_batches, open_data
from dfkd_meta.errors import DataError
from dfkd_meta.sidecar.manifest import InputSpec
from tests.data.conftest import IMAGES, LABELS

NUMBERED = np.arange(12, dtype=np.uint8).repeat(20).reshape(12, 5, 4)


@settings(max_examples=40)
@given(st.integers(1, 15), st.none() | st.integers(1, 15), st.none() | st.integers(0, 99))
def test_every_sample_once(batch_size: int, limit: int | None, seed: int | None) -> None:
    spec = InputSpec(
        shape=[1, 5, 4], axes=["c", "h", "w"], value_range=[0.0, 1.0], mean=[0.0], std=[1.0]
    )
    dataset = ArrayDataset("numbered", "all", NUMBERED, LABELS)
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    got = list(batches(dataset, spec, batch_size=batch_size, generator=generator, limit=limit))
    assert len(got) == count_batches(dataset, batch_size, limit)
    assert all(len(images) == batch_size for images, _ in got[:-1])
    numbers = torch.cat([images[:, 0, 0, 0] * 255 for images, _ in got]).round().long().tolist()
    labels = torch.cat([label for _, label in got if label is not None])
    samples = min(12, limit or 12)
    assert len(set(numbers)) == len(numbers) == samples
    assert labels.tolist() == LABELS[numbers].tolist()
    if seed is None:
        assert numbers == list(range(samples))


def test_the_generator_alone_decides_the_order(spec: InputSpec) -> None:
    dataset = ArrayDataset("numbered", "all", NUMBERED, None)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    orders = [
        torch.cat(
            [x for x, _ in batches(
                dataset, spec, batch_size=5, generator=torch.Generator().manual_seed(seed))]
        )
        for seed in (1, 1, 2)
    ]  # fmt: skip
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])
    assert torch.equal(torch.get_rng_state(), before)


def test_labels_may_be_absent(spec: InputSpec) -> None:
    dataset = ArrayDataset("unlabeled", "all", IMAGES, None)
    assert [labels for _, labels in batches(dataset, spec, batch_size=6)] == [None, None]


def test_pixels_come_in_the_range_of_the_teacher() -> None:
    spec = InputSpec(
        shape=[1, 5, 4], axes=["c", "h", "w"], value_range=[0.0, 255.0], mean=[0.0], std=[1.0]
    )
    dataset = ArrayDataset("pixels", "all", IMAGES, None)
    images, _ = next(batches(dataset, spec, batch_size=12))
    torch.testing.assert_close(images[:, 0], torch.from_numpy(IMAGES.astype(np.float32)))


def test_images_of_several_sizes_are_resized_one_by_one(tmp_path: Path, spec: InputSpec) -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow reads images")
    for number, size in enumerate([(5, 4), (10, 8), (3, 3)]):
        image.new("L", size[::-1], 51 * number).save(tmp_path / f"{number}.png")
    spec = spec.model_copy(update={"interpolation": "bilinear"})
    images, _ = next(batches(open_data(str(tmp_path)), spec, batch_size=3))
    wanted = torch.tensor([0.0, 0.2, 0.4]).view(3, 1, 1, 1).expand(3, 1, 5, 4)
    torch.testing.assert_close(images, wanted)


@pytest.mark.parametrize("settings", [{"batch_size": 0}, {"batch_size": 1, "limit": 0}])
def test_empty_batches_are_refused(spec: InputSpec, settings: dict[str, int]) -> None:
    with pytest.raises(DataError, match="at least 1"):
        next(batches(ArrayDataset("x", "all", IMAGES, None), spec, **settings))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("largest", "value_range", "meant"),
    [(1, [0, 1], False), (15, [0, 15], False), (15, [0, 1], True), (15, [0, 255], True)],
)
def test_whole_numbers_that_are_no_pixels_are_refused(
    largest: int, value_range: list[float], meant: bool
) -> None:
    spec = InputSpec(
        shape=[1, 2, 2], axes=["c", "h", "w"], value_range=value_range, mean=[0.0], std=[1.0]
    )
    dataset = ArrayDataset("whole", "all", np.full((3, 2, 2), largest, np.uint8), None)
    if meant:
        images, _ = next(batches(dataset, spec, batch_size=3))
        assert images.max() == pytest.approx(largest / 255 * value_range[1])
        return
    with pytest.raises(DataError, match=f"these reach to {largest} only"):
        next(batches(dataset, spec, batch_size=3))
