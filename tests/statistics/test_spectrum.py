"""The spectrum of an activation graph, beyond the laws that every statistic obeys."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dfkd_meta.errors import StatisticsError
from dfkd_meta.sidecar.manifest import Tap
from dfkd_meta.statistics import Context, RecordRequest, Result, collect, make_accumulator
from dfkd_meta.statistics.base import Scope
from dfkd_meta.teachers import ActivationTap, default_taps
from tests.statistics.toys import CLASSES, ToyNet, images, stream, teacher

FEATURES = 12


def spectrum(rows: Tensor, **params: Any) -> Result:
    """The record of one group: rows float64 `n f`."""
    shape = [rows.shape[1]]
    tap = Tap(id="t", module="t", side="output", axes=["f"], shape=shape, linear_in_input=False)
    request = RecordRequest("spectrum", ("t",), "unit", "global", params)
    accumulator = make_accumulator(request, Context(ToyNet(), (tap,), rows.shape[1]))
    accumulator.update(rows.unsqueeze(1), torch.zeros(len(rows), dtype=torch.int64))
    return accumulator.result()


def energy_outside(rows: Tensor, arrays: dict[str, np.ndarray]) -> float:
    """Mean squared norm of what the basis leaves out, by plain numpy."""
    basis = arrays["basis"][0]
    outside = rows.numpy() - rows.numpy() @ basis.T @ basis
    return float((outside**2).sum(1).mean())


def correlated(samples: int = 80, features: int = FEATURES, rank: int = FEATURES) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(rank, features, generator=generator, dtype=torch.float64)
    weak = 0.8 ** torch.arange(rank, dtype=torch.float64)
    return torch.randn(samples, rank, generator=generator, dtype=torch.float64) * weak @ mixing + 1


GRAPHS = pytest.mark.parametrize("graph", ["covariance", "correlation"])


@GRAPHS
@pytest.mark.parametrize("exact_up_to", [0, 1024])
def test_basis_is_orthonormal_and_begins_with_the_mean(graph: str, exact_up_to: int) -> None:
    rows = correlated()
    found = spectrum(rows, graph=graph, kept_fraction=0.4, exact_up_to=exact_up_to)
    basis = found.arrays["basis"][0]
    assert basis.shape == (5, FEATURES)
    assert found.params == {"graph": graph, "kept_fraction": 5 / FEATURES}
    np.testing.assert_allclose(basis @ basis.T, np.eye(5), atol=1e-10)
    mean = rows.mean(0).numpy()
    np.testing.assert_allclose(np.abs(basis[0] @ mean), np.linalg.norm(mean), rtol=1e-10)
    np.testing.assert_allclose(found.arrays["coefficient_mean"][0, 1:], 0, atol=1e-10)


@GRAPHS
def test_energy_is_split_between_coefficients_and_the_rest(graph: str) -> None:
    rows = correlated()
    arrays = spectrum(rows, graph=graph, kept_fraction=0.25).arrays
    kept = arrays["coefficient_mean"] ** 2 + arrays["coefficient_variance"]
    total = rows.square().sum(1).mean()
    np.testing.assert_allclose(kept.sum() + arrays["residual_energy"][0], total, rtol=1e-12)
    np.testing.assert_allclose(arrays["residual_energy"][0], energy_outside(rows, arrays))


def test_no_orthogonal_rows_leave_less_energy_than_the_eigenvectors() -> None:
    rows = correlated()
    kept = spectrum(rows, kept_fraction=1 / 3).arrays
    centered = rows - rows.mean(0)
    mean = rows.mean(0) / rows.mean(0).norm()
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        others = torch.randn(FEATURES, 3, generator=generator, dtype=torch.float64)
        basis = torch.linalg.qr(torch.cat([mean[:, None], others], 1)).Q
        outside = centered - centered @ basis @ basis.T
        assert float(outside.square().sum(1).mean()) > kept["residual_energy"][0]


def test_everything_kept_leaves_nothing_outside() -> None:
    found = spectrum(correlated(), kept_fraction=1.0).arrays
    assert found["basis"].shape == (1, FEATURES, FEATURES)
    np.testing.assert_allclose(found["residual_energy"], 0, atol=1e-10)


@GRAPHS
@pytest.mark.parametrize("exact_up_to", [0, 1024])
@pytest.mark.parametrize("case", ["dead", "few", "constant", "zero"])
def test_degenerate_activations_still_have_an_orthonormal_basis(
    case: str, exact_up_to: int, graph: str
) -> None:
    rows = correlated()
    if case == "dead":
        rows[:, 3:] = 0
    elif case == "few":
        rows = rows[:2]
    elif case == "constant":
        rows = rows[:1].expand(20, -1)
    else:
        rows = torch.cat([rows, -rows])  # a mean of zero has no direction
    found = spectrum(rows, graph=graph, kept_fraction=0.5, exact_up_to=exact_up_to).arrays
    basis = found["basis"][0]
    assert len(basis) == min(6, max(1, len(rows) // 5))
    np.testing.assert_allclose(basis @ basis.T, np.eye(len(basis)), atol=1e-8)
    assert all(np.isfinite(array).all() for array in found.values())
    assert found["residual_energy"][0] == pytest.approx(energy_outside(rows, found), abs=1e-8)


def test_the_correlation_graph_does_not_see_the_scale_of_a_unit() -> None:
    """Scaling one unit turns the covariance's eigenvectors to it, not those of the correlation."""
    rows = correlated() - correlated().mean(0)
    scaled = rows * torch.tensor([1000.0] + [1.0] * (FEATURES - 1))
    for graph, same in (("correlation", True), ("covariance", False)):
        a, b = (spectrum(x, graph=graph, kept_fraction=0.2).arrays["basis"] for x in (rows, scaled))
        assert np.allclose(a, b, atol=1e-8) == same


def test_a_sketch_finds_what_low_rank_data_hold() -> None:
    rows = correlated(300, 1500, rank=8)
    sketched = spectrum(rows, kept_fraction=12 / 1500).arrays
    exact = spectrum(rows, kept_fraction=12 / 1500, exact_up_to=1500).arrays
    # Eight directions vary and the mean is one more: beyond nine the rows are arbitrary.
    a, b = sketched["basis"][0, :9], exact["basis"][0, :9]
    np.testing.assert_allclose(np.abs(a @ b.T).diagonal()[:5], 1, atol=1e-6)
    np.testing.assert_allclose(sketched["residual_energy"], 0, atol=1e-6)


@pytest.mark.parametrize("scope", ["global", "per_class"])
def test_several_taps_are_one_graph(scope: Scope) -> None:
    """One pass over a network equals the statistic of its taps' features, one after the other."""
    net = teacher()
    taps = [tap for tap in default_taps(net) if tap.id in ("input", "hidden:output", "output")]
    request = RecordRequest(
        "spectrum", tuple(tap.id for tap in taps), "unit", scope, {"kept_fraction": 0.2}
    )
    x, labels = images(200)  # with fewer a class would have fewer rows
    ((_, found),) = collect(net, stream(x, labels), [request], taps).results
    with torch.no_grad(), ActivationTap(net.module, taps) as tap:
        net(x)
        features = torch.cat([tap.activations[t.id].flatten(1).double() for t in taps], 1)
    groups = CLASSES if scope == "per_class" else 1
    context = Context(net.module, tuple(taps), features.shape[1], groups)
    own = make_accumulator(request, context)
    assigned = (labels % groups).numpy()
    expected = own.reference(features.unsqueeze(1).numpy(), assigned, request, context)
    assert found.arrays["basis"].shape == (groups, round(0.2 * (36 + 5 + 3)), 36 + 5 + 3)
    for role, array in expected.items():
        np.testing.assert_allclose(found.arrays[role], array, rtol=1e-6, atol=1e-7, err_msg=role)


@pytest.mark.parametrize("fraction", [0, -0.1, 1.01])
def test_a_fraction_outside_its_range_is_refused(fraction: float) -> None:
    with pytest.raises(StatisticsError, match="kept_fraction"):
        spectrum(correlated(), kept_fraction=fraction)


def test_a_graph_that_is_not_computed_is_refused_by_name() -> None:
    with pytest.raises(StatisticsError, match="'weights'") as caught:
        spectrum(correlated(), graph="weights")
    assert caught.value.hint == "graphs: covariance, correlation"


def test_layers_with_different_positions_have_no_channel_wise_graph() -> None:
    net = teacher()
    request = RecordRequest("spectrum", ("input", "conv:output"), "channel")
    with pytest.raises(StatisticsError, match="channel-wise"):
        collect(net, stream(*images()), [request], default_taps(net))
