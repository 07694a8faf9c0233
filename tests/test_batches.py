"""Batches and augmentation: nothing is lost, nothing leaks, everything repeats."""

from __future__ import annotations

import itertools

import torch
from hypothesis import given
from hypothesis import strategies as st

from dfkd_meta.augmentation import mix_pairs, roll_batch, shift_each
from dfkd_meta.batches import SyntheticBatch, concatenate, shuffled


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@given(rows=st.integers(1, 20), batch_size=st.integers(1, 7))
def test_every_row_comes_once_per_pass(rows: int, batch_size: int) -> None:
    pool = SyntheticBatch(torch.arange(rows)[:, None].float(), torch.arange(rows))
    stream = shuffled(pool, batch_size=batch_size, generator=seeded())
    taken = list(itertools.islice(stream, rows))  # batch_size passes over the rows
    seen = torch.cat([batch.labels for batch in taken if batch.labels is not None])
    assert torch.equal(seen.bincount(minlength=rows), torch.full((rows,), batch_size))
    assert all(torch.equal(b.images[:, 0].long(), b.labels) for b in taken)


def test_concatenating_keeps_labels_only_when_all_have_them() -> None:
    labeled = SyntheticBatch(torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64))
    bare = SyntheticBatch(torch.ones(1, 3))
    assert concatenate([labeled, bare]).labels is None
    both = concatenate([labeled, labeled])
    assert both.labels is not None
    assert len(both) == len(both.labels) == 4


def test_shifting_moves_each_image_by_whole_pixels() -> None:
    image = torch.zeros(1, 1, 9, 9)
    image[0, 0, 4, 4] = 1
    moved = shift_each(image.expand(64, -1, -1, -1), 2, seeded())
    assert moved.sum().item() == 64
    places = moved.flatten(1).argmax(1)
    assert len(places.unique()) > 10
    assert (places // 9 - 4).abs().max() == 2
    assert (places % 9 - 4).abs().max() == 2


def test_augmentation_leaves_flat_inputs_and_zero_reach_alone() -> None:
    flat, image = torch.rand(3, 5), torch.rand(3, 1, 4, 4)
    assert shift_each(flat, 2, seeded()) is flat
    assert roll_batch(flat, 2, seeded()) is flat
    assert shift_each(image, 0, seeded()) is image


def test_mixing_blends_the_first_share_and_keeps_its_mean() -> None:
    images = torch.rand(10, 2, 3, 3)
    mixed = mix_pairs(images, 0.5, seeded())
    assert torch.equal(mixed[5:], images[5:])
    assert not torch.equal(mixed[:5], images[:5])
    assert mixed.min() >= images.min()
    assert mixed.max() <= images.max()
    assert mix_pairs(images, 0.1, seeded()) is images


def test_augmentation_repeats_under_one_seed() -> None:
    images = torch.rand(8, 1, 6, 6)
    assert torch.equal(shift_each(images, 2, seeded()), shift_each(images, 2, seeded()))
    assert torch.equal(mix_pairs(images, 1.0, seeded()), mix_pairs(images, 1.0, seeded()))
