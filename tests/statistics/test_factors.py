"""Square roots of covariances, on the matrices where the usual ones fail."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dfkd_meta.sidecar.manifest import Tap
from dfkd_meta.statistics import Context, RecordRequest, make_accumulator
from dfkd_meta.statistics.factors import (
    lower_factor,
    nystrom_eigenpairs,
    split_residual,
    top_eigenpairs,
)


def covariance(features: int, samples: int, seed: int = 0) -> Tensor:
    """A covariance of rank min(features, samples - 1) with decaying spectrum `1 f f`."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(samples, features, generator=generator, dtype=torch.float64)
    rows = rows * 0.7 ** torch.arange(features, dtype=torch.float64)
    rows = rows - rows.mean(0)
    return (rows.T @ rows / samples).unsqueeze(0)


@settings(max_examples=40)
@given(
    features=st.integers(1, 12),
    samples=st.integers(1, 30),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
    seed=st.integers(0, 99),
)
def test_triangular_factor_exists_for_every_covariance(
    features: int, samples: int, scale: float, seed: int
) -> None:
    sigma = covariance(features, samples, seed) * scale
    lower = lower_factor(sigma)
    assert torch.equal(lower, lower.tril())
    assert (lower.diagonal(dim1=-2, dim2=-1) >= 0).all()
    size = float(sigma.abs().max())
    torch.testing.assert_close(lower @ lower.mT, sigma, rtol=0, atol=1e-13 * size + 1e-300)


def test_triangular_factor_is_choleskys_where_that_exists() -> None:
    sigma = covariance(6, 100)
    torch.testing.assert_close(lower_factor(sigma), torch.linalg.cholesky(sigma))


def test_triangular_factor_of_dead_units() -> None:
    sigma = covariance(6, 100)
    sigma[:, 2] = sigma[:, :, 2] = 0
    with pytest.raises(torch.linalg.LinAlgError):
        torch.linalg.cholesky(sigma)
    lower = lower_factor(sigma)
    torch.testing.assert_close(lower @ lower.mT, sigma, rtol=0, atol=1e-14)
    assert not lower[0, 2].any()
    assert torch.equal(lower_factor(torch.zeros(1, 3, 3)), torch.zeros(1, 3, 3))


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_low_rank_split_keeps_the_total_variance(rank: int) -> None:
    sigma = covariance(8, 50)
    trace = sigma.diagonal(dim1=-2, dim2=-1).sum(-1)
    factor, residual = split_residual(*top_eigenpairs(sigma, rank), trace)
    rebuilt = factor.mT @ factor + residual.reshape(-1, 1, 1) * torch.eye(8)
    torch.testing.assert_close(rebuilt.diagonal(dim1=-2, dim2=-1).sum(-1), trace)
    kept = torch.linalg.eigvalsh(rebuilt)[0, -rank:]
    torch.testing.assert_close(kept, torch.linalg.eigvalsh(sigma)[0, -rank:])
    if rank == 8:
        torch.testing.assert_close(rebuilt, sigma)
        assert residual.abs().max() < 1e-14


def test_a_component_weaker_than_the_residual_is_not_kept() -> None:
    """Possible when eigenvalues are underestimated: the trace must still be exact."""
    values = torch.tensor([[3.0, 0.1]], dtype=torch.float64)
    vectors = torch.eye(5, dtype=torch.float64)[:2].unsqueeze(0)
    trace = torch.tensor([6.0], dtype=torch.float64)
    factor, residual = split_residual(values, vectors, trace)
    assert torch.equal(factor[0, 1], torch.zeros(5))
    torch.testing.assert_close(factor.square().sum() + 5 * residual.sum(), trace[0])
    torch.testing.assert_close(residual, torch.tensor([0.75], dtype=torch.float64))


def test_no_more_components_than_may_be_are_kept() -> None:
    matrix = torch.diag(torch.tensor([9.0, 4.0, 2.0, 1.0], dtype=torch.float64))
    pairs = top_eigenpairs(torch.stack([matrix, matrix]), 3)
    trace = torch.full((2,), 16.0, dtype=torch.float64)
    factor, residual = split_residual(*pairs, trace, torch.tensor([1, 9]))
    assert (factor.norm(dim=-1) > 0).tolist() == [[True, False, False], [True, True, True]]
    torch.testing.assert_close(factor.square().sum((1, 2)) + 4 * residual, trace)


@pytest.mark.parametrize("exact_up_to", [4, 64])
def test_no_sample_can_be_read_from_a_covariance(exact_up_to: int) -> None:
    """Of 25 samples in 64 dimensions the span of 24 rows would be all of them, up to their mean."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(25, 64, generator=generator, dtype=torch.float64)
    request = RecordRequest(
        "covariance", ("x",), "unit", params={"rank": 40, "exact_up_to": exact_up_to}
    )
    tap = Tap(id="x", module="", side="input", axes=["f"], shape=[64], linear_in_input=True)
    found = make_accumulator(request, Context(torch.nn.Identity(), (tap,), 64))
    found.update(rows.unsqueeze(1), torch.zeros(25, dtype=torch.int64))
    factor = torch.from_numpy(found.result().arrays["factor"][0])
    assert len(factor) == 5
    centered = rows - rows.mean(0)
    span = torch.linalg.qr(factor.T).Q
    outside = (centered - centered @ span @ span.T).norm(dim=1) / centered.norm(dim=1)
    assert float(outside.min()) > 0.5
    channels = replace(request, reduction="channel")
    found = make_accumulator(channels, Context(torch.nn.Identity(), (tap,), 64))
    found.update(rows.unsqueeze(1), torch.zeros(25, dtype=torch.int64))
    assert found.result().arrays["factor"].shape == (1, 5, 64)  # a flat tap has no positions
    tokens = tap.model_copy(update={"axes": ["t", "f"], "shape": [5, 64]})
    found = make_accumulator(channels, Context(torch.nn.Identity(), (tokens,), 64))
    found.update(rows.reshape(5, 5, 64), torch.zeros(5, dtype=torch.int64))
    assert found.result().arrays["factor"].shape[1] > 20  # there a sample is many observations


def test_nystrom_is_exact_when_the_rank_fits_the_sketch() -> None:
    sigma = covariance(40, 9)  # rank 8
    omega = torch.linalg.qr(torch.randn(40, 12, dtype=torch.float64)).Q
    values, vectors = nystrom_eigenpairs(sigma @ omega, omega, 8)
    torch.testing.assert_close(values, top_eigenpairs(sigma, 8)[0], rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(
        vectors.mT @ (values.unsqueeze(-1) * vectors), sigma, rtol=0, atol=1e-8
    )


def test_sketched_covariance_of_many_features_is_close_to_the_exact_one() -> None:
    """1,100 features, beyond the exact limit: as good as the best rank-10 matrix within 20 %."""
    features, samples = 1_100, 400
    tap = Tap(
        id="input", module="", side="input", axes=["f"], shape=[features], linear_in_input=True
    )
    generator = torch.Generator().manual_seed(0)
    decay = 1 / torch.arange(1, features + 1, dtype=torch.float64)
    x = torch.randn(samples, 1, features, generator=generator, dtype=torch.float64) * decay + 5
    groups = torch.zeros(samples, dtype=torch.int64)
    request = RecordRequest("covariance", ("input",), "unit", "global", {"rank": 10})
    accumulator = make_accumulator(request, Context(torch.nn.Identity(), (tap,), features))
    for part in x.split(64):
        accumulator.update(part, groups[: len(part)])
    assert all(tensor.numel() <= features * 30 for tensor in accumulator.state().values())
    result = accumulator.result()
    assert result.params == {"rank": 10, "sketch_size": 30}
    sigma = np.cov(x[:, 0].numpy(), rowvar=False, bias=True)
    values, vectors = np.linalg.eigh(sigma)
    top = vectors[:, -10:] * np.sqrt(values[-10:])
    factor, residual = result.arrays["factor"][0], result.arrays["residual_variance"][0]
    found = factor.T @ factor + residual * np.eye(features)
    assert np.trace(found) == pytest.approx(np.trace(sigma), rel=1e-10)
    best = np.linalg.norm(sigma - top @ top.T)
    assert np.linalg.norm(sigma - found) < 1.2 * best
