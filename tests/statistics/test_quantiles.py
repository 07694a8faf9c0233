"""``quantiles``: within 0.8 % of the true ones, exact under merging, and never an extreme."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from dfkd_meta.errors import StatisticsError
from dfkd_meta.sidecar.manifest import Tap
from dfkd_meta.statistics import Accumulator, Context, RecordRequest, make_accumulator

TAP = Tap(id="x", module="x", side="input", axes=["f"], shape=[2], linear_in_input=True)


def quantiles(min_count: int = 11, **params: object) -> Accumulator:
    request = RecordRequest("quantiles", ("x",), "unit", "global", params)
    return make_accumulator(request, Context(nn.Identity(), (TAP,), 2, 1, min_count))


def fill(made: Accumulator, n: int = 40_000) -> np.ndarray:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 1, 2, generator=generator, dtype=torch.float64)
    x[..., 1] = x[..., 1].relu() * 1_000  # half of it is exactly 0
    for part in x.split(7_000):
        made.update(part, torch.zeros(len(part), dtype=torch.int64))
    return x[:, 0].numpy()


def test_within_a_bucket_of_numpy() -> None:
    made = quantiles()
    rows = fill(made)
    arrays = made.result().arrays
    exact = np.quantile(rows, arrays["probability"], axis=0, method="inverted_cdf").T
    np.testing.assert_allclose(arrays["value"][0], exact, rtol=0.0079, atol=1e-6)
    assert (arrays["value"][0, 1, : len(exact[1]) // 2] == 0).all()
    assert (np.diff(arrays["value"], axis=-1) >= 0).all()


@pytest.mark.parametrize(("n", "outermost"), [(40_000, 0.001), (3_000, 0.01), (30, 0.5)])
def test_no_level_has_fewer_samples_beyond_it_than_the_minimum(n: int, outermost: float) -> None:
    made = quantiles()
    fill(made, n)
    levels = made.result().arrays["probability"]
    assert levels[0] == outermost
    assert levels[-1] == pytest.approx(1 - outermost)


@pytest.mark.parametrize("share", [10, 30])
def test_values_beyond_the_range_may_occur_but_no_quantile_lies_there(share: int) -> None:
    made = quantiles(levels=[0.25, 0.75])
    x = torch.tensor([[1e-9, -1e-7]] * 100, dtype=torch.float64)
    x[:share, 0], x[-share:, 0] = -1e9, 1e9
    made.update(x.unsqueeze(1), torch.zeros(100, dtype=torch.int64))
    if share > 25:
        with pytest.raises(StatisticsError, match="a quantile lies beyond"):
            made.result()
    else:
        assert not made.result().arrays["value"].any()


def test_what_cannot_be_done_is_said() -> None:
    with pytest.raises(StatisticsError, match="between 0 and 1"):
        quantiles(levels=[0.0, 0.5])
    with pytest.raises(StatisticsError, match="between 0 and 1"):
        quantiles(levels=[])
    made = quantiles()
    fill(made, 20)
    with pytest.raises(StatisticsError, match="no quantile"):
        made.result()


def test_levels_are_kept_on_both_sides() -> None:
    """1 - 0.9 is a little less than 0.1 in floats."""
    request = RecordRequest("quantiles", ("x",), "unit", params={"levels": [0.1, 0.5, 0.9]})
    accumulator = make_accumulator(request, Context(module=nn.Identity(), features=1))
    accumulator.update(torch.randn(110, 1, 1, dtype=torch.float64), torch.zeros(110).long())
    assert accumulator.result().arrays["probability"].tolist() == [0.1, 0.5, 0.9]
