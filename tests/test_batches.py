"""Batches and augmentation: nothing is lost, nothing leaks, everything repeats."""

from __future__ import annotations

import itertools

import torch
from hypothesis import given
from hypothesis import strategies as st

from dfkd_meta.augmentation import draw_blend, draw_paste, reach_of, roll_batch, shift_each
from dfkd_meta.batches import Pool, SyntheticBatch, concatenate, shuffled


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


def numbered(first: int, count: int) -> SyntheticBatch:
    rows = torch.arange(first, first + count)
    return SyntheticBatch(rows[:, None].float(), rows)


@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6), capacity=st.integers(1, 12))
def test_a_pool_keeps_the_latest_rows(sizes: list[int], capacity: int) -> None:
    pool, added, kept = Pool(capacity), 0, list[int]()
    for size in sizes:
        pool.add(numbered(added, size))
        added += size
        rows = pool.contents()
        assert rows.labels is not None
        most = min(size, capacity)  # of too many rows some from everywhere
        kept = [*kept, *(added - size + i * size // most for i in range(most))][-capacity:]
        assert sorted(rows.labels.tolist()) == kept
        assert torch.equal(rows.images[:, 0].long(), rows.labels)
        assert len(pool) == len(rows) == min(added, capacity)


def test_new_rows_are_drawn_at_once_and_a_saved_pass_goes_on() -> None:
    pool, generator = Pool(8), seeded()
    pool.add(numbered(0, 4))
    pool.draw(2, generator)
    pool.add(numbered(4, 4))
    drawn = pool.draw(8, generator)
    assert drawn.labels is not None
    assert sorted(drawn.labels.tolist()) == list(range(8))
    pool.draw(3, generator)
    copy = Pool(8)
    copy.load_state(pool.state(), torch.device("cpu"))
    rest = [p.draw(5, generator).images for p in (pool, copy)]  # no new pass begins in these
    assert torch.equal(*rest)


def test_rows_without_labels_make_a_pool_unlabeled() -> None:
    pool = Pool(9)
    pool.add(numbered(0, 2))
    pool.add(SyntheticBatch(torch.zeros(2, 1)))
    assert pool.contents().labels is None
    pool.add(numbered(0, 2))
    assert pool.contents().labels is None


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
    moved = shift_each(image.expand(64, -1, -1, -1), (2, 2), seeded())
    assert moved.sum().item() == 64
    places = moved.flatten(1).argmax(1)
    assert len(places.unique()) > 10
    assert (places // 9 - 4).abs().max() == 2
    assert (places % 9 - 4).abs().max() == 2


def test_each_axis_moves_by_its_own_share() -> None:
    assert reach_of([3, 8, 256], 1 / 16) == reach_of([9, 3, 8, 256], 1 / 16) == (0, 16)
    assert reach_of([64], 1 / 16) == (0, 0)
    image = torch.zeros(1, 1, 9, 9)
    image[0, 0, 4, 4] = 1
    places = shift_each(image.expand(64, -1, -1, -1), (1, 3), seeded()).flatten(1).argmax(1)
    assert (places // 9 - 4).abs().max() == 1
    assert (places % 9 - 4).abs().max() == 3


def test_augmentation_leaves_flat_inputs_and_zero_reach_alone() -> None:
    flat, image = torch.rand(3, 5), torch.rand(3, 1, 4, 4)
    assert shift_each(flat, (2, 2), seeded()) is flat
    assert roll_batch(flat, 2, seeded()) is flat
    assert shift_each(image, (0, 0), seeded()) is image


def test_mixing_blends_the_first_share_of_inputs_and_labels_alike() -> None:
    images, labels = torch.rand(10, 2, 3, 3), torch.eye(10)
    blend = draw_blend(10, 0.5, seeded())
    assert blend is not None
    mixed, shares = blend(images), blend(labels)
    assert torch.equal(mixed[5:], images[5:])
    assert not torch.equal(mixed[:5], images[:5])
    assert torch.allclose(shares.sum(1), torch.ones(10))
    assert torch.allclose(torch.einsum("ni,i...->n...", shares, images), mixed, atol=1e-6)
    assert draw_blend(10, 0.1, seeded()) is None


def test_pasting_gives_the_last_share_a_rectangle_of_another_image() -> None:
    images = torch.arange(40.0)[:, None, None, None].expand(40, 2, 8, 6).clone()
    paste = draw_paste(images.shape, 0.5, seeded())
    assert paste is not None
    pasted, shares = paste(images), paste(torch.eye(40))
    assert torch.equal(pasted[:20], images[:20])
    for row in range(20, 40):
        other = pasted[row] != row
        assert len(pasted[row][other].unique()) <= 1
        area = other[0].float().mean()
        assert torch.equal(other[0], other[1])
        assert torch.isclose(shares[row, row], 1 - area) or shares[row, row] == 1
        down, right = other[0].any(1).sum(), other[0].any(0).sum()
        assert other[0].sum() == down * right  # one rectangle
        assert abs(down / 8 - right / 6) <= 1 / 8 + 1 / 6
    areas = (pasted[20:] != images[20:]).float().mean((1, 2, 3))
    assert areas.min() < 0.1
    assert areas.max() > 0.7
    assert torch.allclose(shares.sum(1), torch.ones(40))
    assert draw_paste(torch.Size([40, 12]), 0.5, seeded()) is None
    assert draw_paste(images.shape, 0.02, seeded()) is None


def test_augmentation_repeats_under_one_seed() -> None:
    images = torch.rand(8, 1, 6, 6)
    assert torch.equal(shift_each(images, (2, 2), seeded()), shift_each(images, (2, 2), seeded()))
    one, two = draw_blend(8, 1.0, seeded()), draw_blend(8, 1.0, seeded())
    assert one is not None
    assert two is not None
    assert torch.equal(one(images), two(images))
