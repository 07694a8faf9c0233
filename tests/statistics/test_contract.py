"""The laws of an accumulator, for every registered statistic; a new file is picked up by itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import Tensor, nn

from dfkd_meta.errors import StatisticsError, UsageError
from dfkd_meta.sidecar.kinds import KINDS
from dfkd_meta.sidecar.manifest import Tap
from dfkd_meta.statistics import Accumulator, Context, RecordRequest, make_accumulator, statistics

torch.set_num_threads(1)
FEATURES, GROUPS = 6, 3
CASES = [
    pytest.param(kind, params, id=f"{kind}-{dict(params)}")
    for kind in statistics.names()
    for params in statistics.get(kind).examples
]
every_statistic = pytest.mark.parametrize(("kind", "params"), CASES)


def toy() -> nn.Module:
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.BatchNorm1d(FEATURES), nn.Dropout(0.2), nn.Linear(FEATURES, 4)]
    module = nn.Sequential(*layers)
    module(torch.randn(32, FEATURES))  # so that the running statistics are not 0 and 1
    return module.eval().requires_grad_(False)


def make(kind: str, params: Mapping[str, Any], groups: int = GROUPS) -> Accumulator:
    number = KINDS[kind].taps if kind in KINDS else 1
    tap = Tap(
        id="0:input", module="0", side="input", axes=["f"], shape=[FEATURES], linear_in_input=True
    )
    taps = (tap,) if number else ()
    scope = "global" if groups == 1 else "per_class"
    request = RecordRequest(kind, tuple(t.id for t in taps), "unit", scope, params)  # type: ignore[arg-type]
    return make_accumulator(request, Context(toy(), taps, FEATURES, groups, min_count=2))


def samples(
    n: int = 90, positions: int = 2, seed: int = 0, scale: float = 1.0, shift: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Correlated features float64 `n p f` and groups `n`, every group present."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(FEATURES, FEATURES, generator=generator, dtype=torch.float64)
    x = torch.randn(n, positions, FEATURES, generator=generator, dtype=torch.float64) @ mixing
    groups = torch.arange(n) % GROUPS
    return (x + groups.reshape(-1, 1, 1)) * scale + shift, groups


def assert_same_state(a: Accumulator, b: Accumulator, rtol: float = 1e-9) -> None:
    left, right = a.state(), b.state()
    assert left.keys() == right.keys()
    for key in left:
        size = float(right[key].abs().max()) if right[key].numel() else 0.0
        torch.testing.assert_close(left[key], right[key], rtol=rtol, atol=rtol * size)


@every_statistic
@pytest.mark.parametrize("groups", [1, GROUPS])
def test_equals_its_numpy_reference(kind: str, params: Mapping[str, Any], groups: int) -> None:
    accumulator = make(kind, params, groups)
    x, labels = samples()
    labels = labels % groups
    for part, own in zip(x.split(7), labels.split(7), strict=True):
        accumulator.update(part, own)
    expected = accumulator.reference(
        x.numpy(), labels.numpy(), accumulator.request, accumulator.context
    )
    result = accumulator.result()
    assert result.arrays.keys() == expected.keys()
    for role, array in expected.items():
        assert result.arrays[role].dtype == np.float64
        np.testing.assert_allclose(result.arrays[role], array, rtol=1e-8, atol=1e-10, err_msg=role)


@every_statistic
def test_roles_and_counts_agree_with_the_standard(kind: str, params: Mapping[str, Any]) -> None:
    if kind not in KINDS:
        pytest.skip("a plug-in's kind is not part of format 1.0")
    accumulator = make(kind, params)
    x, groups = samples()
    accumulator.update(x, groups)
    result, standard = accumulator.result(), KINDS[kind]
    assert any(wanted <= set(result.arrays) for wanted in standard.alternatives)
    assert set(result.arrays) <= set(standard.roles)
    assert set(standard.params) <= set(result.params)
    assert result.count == ([30, 30, 30] if standard.needs_count else None)
    for role, array in result.arrays.items():
        assert array.ndim == len(standard.roles[role].axes.split())
        assert np.isfinite(array).all()
        if standard.roles[role].nonnegative:
            assert (array >= 0).all()
        if standard.roles[role].lower_triangular:
            np.testing.assert_array_equal(array, np.tril(array))


@every_statistic
@pytest.mark.parametrize("groups", [1, GROUPS])
def test_shapes_are_known_before_any_sample(
    kind: str, params: Mapping[str, Any], groups: int
) -> None:
    accumulator = make(kind, params, groups)
    expected = accumulator.shapes()
    x, labels = samples(75_000, 1)  # no group is too small for any row or quantile
    accumulator.update(x, labels % groups)
    found = {role: array.shape for role, array in accumulator.result().arrays.items()}
    assert found == expected


@st.composite
def splits(draw: st.DrawFn) -> tuple[int, list[int], list[int]]:
    """Number of samples, cut points, and an order in which the pieces are merged."""
    n = draw(st.integers(1, 40))
    cuts = sorted(draw(st.lists(st.integers(0, n), max_size=5)))
    order = draw(st.permutations(range(len(cuts) + 1)))
    return n, cuts, list(order)


def pieces(x: Tensor, groups: Tensor, cuts: list[int]) -> Iterator[tuple[Tensor, Tensor]]:
    for start, end in zip([0, *cuts], [*cuts, len(x)], strict=True):
        yield x[start:end], groups[start:end]


@every_statistic
@settings(max_examples=25)
@given(split=splits(), shift=st.sampled_from([0.0, 1.0, -1e4]), positions=st.integers(1, 3))
def test_any_split_and_any_merge_order_give_the_same(
    kind: str,
    params: Mapping[str, Any],
    split: tuple[int, list[int], list[int]],
    shift: float,
    positions: int,
) -> None:
    n, cuts, order = split
    x, groups = samples(n, positions, shift=shift)
    groups = (groups * 7 + torch.arange(n) // 5) % GROUPS
    whole = make(kind, params)
    whole.update(x, groups)
    parts = []
    for own_x, own_groups in pieces(x, groups, cuts):
        parts.append(make(kind, params))
        parts[-1].update(own_x, own_groups)
    merged = make(kind, params)
    for index in order:
        merged.merge(parts[index])
    assert_same_state(merged, whole)


@every_statistic
def test_empty_state_is_the_identity(kind: str, params: Mapping[str, Any]) -> None:
    full, left, right = (make(kind, params) for _ in range(3))
    for accumulator in (full, right):
        accumulator.update(*samples())
    left.merge(full)
    right.merge(make(kind, params))
    right.update(samples()[0][:0], samples()[1][:0])
    for accumulator in (left, right):
        assert_same_state(accumulator, full, rtol=0)


@every_statistic
def test_state_survives_safetensors(kind: str, params: Mapping[str, Any]) -> None:
    x, groups = samples()
    first, second, whole = (make(kind, params) for _ in range(3))
    first.update(x[:25], groups[:25])
    saved = load(save(first.state()))
    second.load_state(saved)
    second.update(x[25:], groups[25:])
    first.update(x[25:], groups[25:])  # going on must not write into what was saved
    whole.update(x, groups)
    assert_same_state(second, first, rtol=0)
    second.load_state(saved)  # untouched by going on
    second.update(x[25:], groups[25:])
    assert_same_state(second, first, rtol=0)
    assert_same_state(second, whole)


@every_statistic
def test_per_class_is_global_over_each_class(kind: str, params: Mapping[str, Any]) -> None:
    x, groups = samples()
    together = make(kind, params)
    together.update(x, groups)
    for group in range(GROUPS):
        alone = make(kind, params, groups=1)
        own = x[groups == group]
        alone.update(own, torch.zeros(len(own), dtype=torch.int64))
        for key, tensor in alone.state().items():
            assert tensor.shape[0] == 1, f"the first axis of {key} is not the group"
            torch.testing.assert_close(together.state()[key][group], tensor[0])


@every_statistic
def test_pooling_the_classes_gives_the_global_statistic(
    kind: str, params: Mapping[str, Any]
) -> None:
    x, groups = samples()
    per_class, alone = make(kind, params), make(kind, params, groups=1)
    per_class.update(x, groups)
    alone.update(x, torch.zeros_like(groups))
    assert_same_state(per_class.pooled(), alone)


@every_statistic
def test_neither_merge_nor_result_changes_an_operand(kind: str, params: Mapping[str, Any]) -> None:
    a, b = make(kind, params), make(kind, params)
    b.update(*samples())
    before = b.state()
    a.merge(b)
    a.update(*samples(seed=1))
    b.result()
    assert all(torch.equal(before[key], tensor) for key, tensor in b.state().items())


def test_float32_trap_of_raw_moments() -> None:
    """Mean 100, sd 0.1 in float32: E[x^2] - E[x]^2 in float32 gives twice the variance."""
    generator = torch.Generator().manual_seed(0)
    x = 100 + 0.1 * torch.randn(20_000, 1, FEATURES, generator=generator)
    for kind, params in (("moments", {}), ("covariance", {})):
        accumulator = make(kind, params, groups=1)
        for part in x.split(512):
            accumulator.update(part.double(), torch.zeros(len(part), dtype=torch.int64))
        truth = x.double().numpy()[:, 0].var(0)
        arrays = accumulator.result().arrays
        roots = arrays.get("cholesky", np.sqrt(arrays.get("variance", 0))[..., None])
        found = (roots[0] ** 2).sum(-1)
        np.testing.assert_allclose(found, truth, rtol=1e-6)
    naive = x.square().mean(0) - x.mean(0).square()
    assert (abs(naive[0].numpy() / truth - 1) > 1e-3).any(), "the trap has gone: weaken nothing"


def test_merging_different_requests_is_refused() -> None:
    a, b = make("moments", {}), make("moments", {}, groups=1)
    with pytest.raises(StatisticsError, match="merged"):
        a.merge(b)
    with pytest.raises(StatisticsError, match="another request"):
        a.load_state(b.state())


def test_unknown_kind_and_wrong_taps() -> None:
    accumulator = make("moments", {})
    with pytest.raises(UsageError, match="momentz"):
        make_accumulator(replace(accumulator.request, kind="momentz"), accumulator.context)
    with pytest.raises(StatisticsError, match="1 tap"):
        make_accumulator(replace(accumulator.request, taps=()), accumulator.context)


def test_an_unknown_parameter_is_refused() -> None:
    request = RecordRequest("covariance", ("fc:input",), "unit", params={"rnak": 3})
    with pytest.raises(StatisticsError, match="no parameter 'rnak'") as caught:
        make_accumulator(request, Context(module=nn.Identity(), features=3))
    assert "rank" in (caught.value.hint or "")
