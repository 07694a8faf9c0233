"""``mixture``: modes that are there are found, small ones are never released."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dfkd_meta.errors import StatisticsError
from dfkd_meta.sidecar.manifest import Tap
from dfkd_meta.statistics import Context, RecordRequest, collect, make_accumulator
from dfkd_meta.statistics.clusters import k_means, nearest
from dfkd_meta.statistics.kinds.mixture import Mixture
from dfkd_meta.teachers import default_taps
from tests.statistics.toys import CLASSES, images, stream, teacher

FEATURES = 6
TAP = Tap(id="x", module="x", side="input", axes=["f"], shape=[FEATURES], linear_in_input=True)


def mixture(groups: int = 2, min_count: int = 11, **params: object) -> Mixture:
    request = RecordRequest("mixture", ("x",), "unit", "per_class", {"rank": 2, **params})
    context = Context(nn.Identity(), (TAP,), FEATURES, groups, min_count)
    made = make_accumulator(request, context)
    assert isinstance(made, Mixture)
    return made


def replace_id(tap: Tap, name: str) -> Tap:
    return tap.model_copy(update={"id": name, "module": name})


def blobs(sizes: list[int], seed: int = 0) -> tuple[Tensor, Tensor]:
    """Rows float64 `n f` around one corner per size, far apart, shuffled; and their corners."""
    generator = torch.Generator().manual_seed(seed)
    corners = 20 * torch.eye(FEATURES, dtype=torch.float64)
    blob = torch.cat([torch.full((size,), number) for number, size in enumerate(sizes)])
    blob = blob[torch.randperm(len(blob), generator=generator)]
    noise = torch.randn(len(blob), FEATURES, generator=generator, dtype=torch.float64)
    return corners[blob] + noise, blob


def fill(made: Mixture, rows: Tensor, groups: Tensor, pieces: int = 3) -> None:
    scout = made.scout()
    for own, group in zip(rows.chunk(pieces), groups.chunk(pieces), strict=True):
        scout.see(own, group)
    assign = scout.settle()
    for own, group in zip(rows.chunk(pieces), groups.chunk(pieces), strict=True):
        made.update(own.unsqueeze(1), assign(own, group))


def test_modes_that_are_there_are_found() -> None:
    one, of_one = blobs([60, 40])
    two, of_two = blobs([30, 50, 20], seed=1)
    made = mixture(modes=3)
    fill(made, torch.cat([one, two]), torch.cat([of_one * 0, of_two * 0 + 1]))
    result = made.result()
    arrays = result.arrays
    assert result.count == [100, 100]
    assert arrays["mode_count"][1].tolist() == [50, 30, 20]
    np.testing.assert_allclose(arrays["weight"], arrays["mode_count"] / 100)
    for mode, blob in enumerate((1, 0, 2)):  # by size
        own = two[of_two == blob].numpy()
        np.testing.assert_allclose(arrays["mean"][1, mode], own.mean(0), rtol=1e-10)
        values, vectors = np.linalg.eigh(np.cov(own, rowvar=False, bias=True))
        expected = (vectors[:, -2:] * values[-2:]) @ vectors[:, -2:].T
        factor = arrays["factor"][1, mode]
        np.testing.assert_allclose(factor.T @ factor, expected, rtol=1e-8, atol=1e-10)


def test_a_small_mode_is_folded_into_the_nearest_one() -> None:
    rows, blob = blobs([40, 30, 5])
    rows[blob == 2] = rows[blob == 2] - 15 * torch.eye(FEATURES, dtype=torch.float64)[2]
    rows[blob == 2] += 15 * torch.eye(FEATURES, dtype=torch.float64)[1]  # next to the second
    made = mixture(groups=1, modes=3)
    fill(made, rows, blob * 0)
    before = made.state()
    arrays = made.result().arrays
    assert arrays["mode_count"].tolist() == [[40, 35]]
    own = rows[blob != 0].numpy()
    np.testing.assert_allclose(arrays["mean"][0, 1], own.mean(0), rtol=1e-10)
    values, vectors = np.linalg.eigh(np.cov(own, rowvar=False, bias=True))
    expected = (vectors[:, -2:] * values[-2:]) @ vectors[:, -2:].T
    factor = arrays["factor"][0, 1]
    np.testing.assert_allclose(factor.T @ factor, expected, rtol=1e-8, atol=1e-10)
    assert all(torch.equal(before[key], tensor) for key, tensor in made.state().items())
    lower = mixture(groups=1, min_count=5, modes=3)
    fill(lower, rows, blob * 0)
    assert lower.result().arrays["mode_count"].tolist() == [[40, 30, 5]]


def test_a_group_with_fewer_modes_has_some_of_weight_zero() -> None:
    rows, blob = blobs([50, 50])
    groups = (blob == 1).long()
    rows[groups == 0] = 3.0  # all the same: one center, whatever is asked for
    made = mixture(modes=2)
    fill(made, rows, groups)
    arrays = made.result().arrays
    assert arrays["mode_count"][0].tolist() == [50, 0]
    assert arrays["weight"][0].tolist() == [1, 0]
    assert all(np.isfinite(array).all() for array in arrays.values())


def test_a_factor_has_a_row_for_every_five_samples_at_most() -> None:
    rows, blob = blobs([100, 11])
    made = mixture(modes=2, rank=4)
    fill(made, rows, blob * 0)
    fill(made, rows[:15], torch.ones(15, dtype=torch.int64))
    result = made.result()
    kept = (result.arrays["factor"] != 0).any(3).sum(2)
    assert kept.tolist() == [[4, 2], [3, 0]]
    few = mixture(groups=1, modes=1, rank=4)
    few.update(rows[:15].unsqueeze(1), blob[:15] * 0)
    assert few.result().arrays["factor"].shape[2] == 3
    assert few.result().params == {"rank": 3}


def test_a_sketched_mixture_is_close_to_the_exact_one() -> None:
    rows, blob = blobs([300, 200])
    rows[:, 0] *= 3
    exact, sketched = mixture(groups=1, modes=2), mixture(groups=1, modes=2, exact_up_to=4)
    for made in (exact, sketched):
        fill(made, rows, blob * 0)
    one, two = exact.result().arrays, sketched.result().arrays
    np.testing.assert_array_equal(one["mode_count"], two["mode_count"])
    np.testing.assert_allclose(one["factor"], two["factor"], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("exact_up_to", [128, 3])
def test_several_taps_count_alike_and_are_drawn_together(exact_up_to: int) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(200, 2, generator=generator, dtype=torch.float64)
    mixing = torch.randn(2, FEATURES, generator=generator, dtype=torch.float64)
    large, small = 1e3 * hidden @ mixing, 1e-2 * (hidden.flip(1) @ mixing + 5)
    taps = (TAP, replace_id(TAP, "y"))
    params = {"modes": 1, "rank": 2, "exact_up_to": exact_up_to}
    request = RecordRequest("mixture", ("x", "y"), "unit", "global", params)
    made = make_accumulator(request, Context(nn.Identity(), taps, 2 * FEATURES))
    rows = torch.cat([large, small], 1)
    made.update(rows.unsqueeze(1), torch.zeros(200, dtype=torch.int64))
    factor = made.result().arrays["factor"][0, 0]
    expected = np.cov(rows.numpy(), rowvar=False, bias=True)
    # Of rank 2, so two rows that saw the large tap alone would say nothing right of the small one.
    spread = np.sqrt(np.diag(expected))
    np.testing.assert_allclose(
        factor.T @ factor / np.outer(spread, spread),
        expected / np.outer(spread, spread),
        atol=1e-6,
    )


def test_the_scale_of_a_tap_does_not_change_what_leads() -> None:
    """Two taps of many directions each: with other units, the same rows in those units."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(300, 2 * FEATURES, generator=generator, dtype=torch.float64)
    rows[:, FEATURES:] += rows[:, :FEATURES]
    found = []
    for unit in (1.0, 1e3):
        scaled = rows.clone()
        scaled[:, FEATURES:] *= unit
        request = RecordRequest("mixture", ("x", "y"), "unit", "global", {"modes": 1, "rank": 3})
        context = Context(nn.Identity(), (TAP, replace_id(TAP, "y")), 2 * FEATURES)
        made = make_accumulator(request, context)
        made.update(scaled.unsqueeze(1), torch.zeros(300, dtype=torch.int64))
        factor = made.result().arrays["factor"][0, 0]
        factor[:, FEATURES:] /= unit
        found.append(factor.T @ factor)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6, atol=1e-9)


def test_k_means_and_nearest() -> None:
    rows, blob = blobs([30, 30, 30])
    centers = k_means(rows, 3, torch.Generator().manual_seed(0))
    own = nearest(rows, centers)
    assert all(len(set(own[blob == number].tolist())) == 1 for number in range(3))
    assert len(k_means(rows[:1].expand(9, -1), 3, torch.Generator().manual_seed(0))) == 1
    open_ended = torch.cat([torch.full((1, FEATURES), math.inf, dtype=torch.float64), centers])
    assert (nearest(rows, open_ended) == own + 1).all()


def test_collected_over_two_passes_with_modes_from_another_layer() -> None:
    t = teacher()
    x, labels = images()
    params = {"modes": 2, "rank": 3, "cluster_tap": "output"}
    request = RecordRequest("mixture", ("input",), "unit", "per_class", params)
    moments = RecordRequest("moments", ("input",), "unit", "per_class")
    batches = list(stream(x, labels))
    collection = collect(t, batches, [request, moments], default_taps(t))
    found = {request.kind: result for request, result in collection.results}
    arrays = found["mixture"].arrays
    assert arrays["mode_count"].sum(1).tolist() == [30] * CLASSES
    assert ((arrays["mode_count"] >= 11) | (arrays["mode_count"] == 0)).all()
    whole = (arrays["weight"][..., None] * arrays["mean"]).sum(1)
    np.testing.assert_allclose(whole, found["moments"].arrays["mean"], rtol=1e-6, atol=1e-9)


def test_what_cannot_be_done_is_said() -> None:
    t = teacher()
    request = RecordRequest("mixture", ("input",), "unit", "global", {"modes": 2})
    with pytest.raises(StatisticsError, match="twice"):
        collect(t, stream(*images()), [request], default_taps(t))
    elsewhere = RecordRequest("mixture", ("input",), "unit", params={"cluster_tap": "nowhere"})
    with pytest.raises(StatisticsError, match="no tap nowhere"):
        collect(t, list(stream(*images())), [elsewhere], default_taps(t))
    with pytest.raises(StatisticsError, match="0 samples are fewer"):
        collect(t, [], [request], default_taps(t))
    with pytest.raises(StatisticsError, match="at least 1"):
        mixture(modes=0)
    per_class = RecordRequest("mixture", ("input",), "unit", "per_class", {"modes": 2})
    with pytest.raises(StatisticsError, match="no labels"):
        collect(t, [(images()[0], None)], [per_class], default_taps(t))
