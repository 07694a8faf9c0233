"""Each term equals an independent formula on fixed tensors."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from dfkd_meta.sidecar import Tap
from dfkd_meta.synthesis.gaussians import ClassGaussians
from dfkd_meta.synthesis.grouping import pooled, shares
from dfkd_meta.synthesis.targets import Targets
from dfkd_meta.synthesis.terms.base import StepState
from dfkd_meta.synthesis.terms.features import FeatureTarget
from dfkd_meta.synthesis.terms.gaussian_divergence import GaussianDivergence
from dfkd_meta.synthesis.terms.labels import CrossEntropy
from dfkd_meta.synthesis.terms.moments import (
    MomentNorms,
    StandardizedMoments,
)
from dfkd_meta.synthesis.terms.priors import L2Norm, TotalVariation
from dfkd_meta.synthesis.terms.recorded_moments import RecordedMoments

CONV = Tap(
    id="c:output", module="c", side="output", axes=["c", "h", "w"], shape=[3, 4, 4],
    linear_in_input=False,
)  # fmt: skip
FLAT = Tap(id="f:input", module="f", side="input", axes=["f"], shape=[5], linear_in_input=False)
LABELS = torch.tensor([0, 0, 0, 2, 2, 2])


def state(activations: dict[str, Tensor], features: dict[str, Tensor] | None = None) -> StepState:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(6, 1, 4, 4, generator=generator)
    return StepState(
        images=images,
        view=images,
        logits=torch.randn(6, 3, generator=generator),
        activations=activations,
        targets=Targets(LABELS, features or {}),
        generator=generator,
    )


def recorded(tap: Tap, reduction: str, features: int, classes: tuple[int, ...]) -> RecordedMoments:
    generator = torch.Generator().manual_seed(2)
    groups = max(1, len(classes))
    mean = torch.randn(groups, features, generator=generator)
    variance = torch.rand(groups, features, generator=generator) + 0.5
    return RecordedMoments(tap, reduction, ClassGaussians(mean, variance, classes=classes))


def rows_of_class(activation: Tensor, label: int | None, reduction: str) -> np.ndarray:
    """The observations of one class, by numpy: rows are samples, or samples times positions."""
    x = activation.numpy()[LABELS.numpy() == label] if label is not None else activation.numpy()
    if x.ndim == 2 or reduction == "unit":
        return x.reshape(len(x), -1)
    positions = x.reshape(*x.shape[:2], -1).transpose(0, 2, 1)
    return positions.mean(1) if reduction == "pooled" else positions.reshape(-1, x.shape[1])


@pytest.mark.parametrize("reduction", ["unit", "channel", "pooled"])
@pytest.mark.parametrize("classes", [(), (0, 1, 2)])
def test_standardized_moments_equal_plain_numpy(reduction: str, classes: tuple[int, ...]) -> None:
    activation = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(3)) * 2 + 5
    record = recorded(CONV, reduction, 48 if reduction == "unit" else 3, classes)
    floor = 0.05
    expected = []
    for label in (0, 2) if classes else (None,):
        group = classes.index(label) if label is not None else 0
        x = rows_of_class(activation, label, reduction).astype(np.float64)
        mean = record.statistics.mean[group].double().numpy()
        variance = record.variance[group].double().numpy()
        extra = floor * variance.mean()
        sigma = np.sqrt(variance + extra)
        spread = np.sqrt(x.var(0) + extra) / sigma - 1
        expected.append((((x.mean(0) - mean) / sigma) ** 2 + spread**2).mean())
    found = StandardizedMoments((record,), floor=floor)(state({CONV.id: activation}))
    assert float(found) == pytest.approx(float(np.sqrt(np.mean(expected))), rel=1e-4)


def test_each_record_counts_by_its_own_root_and_a_match_has_no_gradient() -> None:
    activation = torch.randn(6, 5, generator=torch.Generator().manual_seed(3))
    record = recorded(FLAT, "unit", 5, ())
    other = recorded(CONV, "channel", 3, ())
    maps = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(4))
    both = state({FLAT.id: activation, CONV.id: maps})
    alone = [float(StandardizedMoments((one,))(both)) for one in (record, other)]
    together = float(StandardizedMoments((record, other))(both))
    assert together == pytest.approx(sum(alone) / 2, rel=1e-5)
    x = activation.requires_grad_()
    met = ClassGaussians(x.detach().mean(0)[None], residual=x.detach().var(0, correction=0)[None])
    exact = replace(record, statistics=met)
    value = StandardizedMoments((exact,), floor=0.0)(state({FLAT.id: x}))
    (gradient,) = torch.autograd.grad(value, x)
    assert torch.isfinite(gradient).all()


def test_classes_of_few_rows_are_pooled_in_units_of_their_own_spread() -> None:
    activation = torch.randn(6, 5, generator=torch.Generator().manual_seed(3)) * 2 + 5
    record = recorded(FLAT, "unit", 5, (0, 1, 2))
    own = torch.tensor([(0, 1, 2).index(label) for label in LABELS.tolist()])
    mean, variance = (x[own].double() for x in (record.statistics.mean, record.variance))
    z = (activation.double() - mean) / variance.sqrt()
    expected = (z.mean(0) ** 2 + (z.var(0, correction=0).sqrt() - 1) ** 2).mean().sqrt()
    found = StandardizedMoments((record,), least=6, floor=0.0)(state({FLAT.id: activation}))
    assert float(found) == pytest.approx(float(expected), rel=1e-4)


def test_whole_classes_join_until_there_are_enough_rows() -> None:
    rows = torch.tensor([1, 3, 2, 1, 1])  # of five classes
    assert pooled(rows, 1).tolist() == [0, 1, 2, 3, 4]
    assert pooled(rows, 4).tolist() == [0, 0, 1, 1, 1]
    assert pooled(rows, 100).tolist() == [0] * 5
    assert shares(pooled(rows, 4), rows).tolist() == [
        [0.25, 0.75, 0.0, 0.0, 0.0],
        [0.0, 0.0, 0.5, 0.25, 0.25],
    ]


def test_no_group_is_left_with_a_few_rows() -> None:
    for classes, each, groups in ((27, 1, 1), (54, 1, 2), (151, 1, 6), (8, 3, 1), (10, 25, 10)):
        place = pooled(torch.full((classes,), each), 25)
        assert int(place.max()) == groups - 1
        assert int((place.bincount() * each).min()) >= min(25, classes * each)


@pytest.mark.parametrize("dead", [(0,), (0, 1, 2)])
def test_what_never_varies_has_a_unit_as_well(dead: tuple[int, ...]) -> None:
    record = recorded(FLAT, "unit", 5, (0, 1, 2))
    record.variance[list(dead)] = 0
    record.statistics.mean[list(dead)] = 0
    x = torch.rand(6, 5, generator=torch.Generator().manual_seed(3)).requires_grad_()
    for term in (StandardizedMoments((record,)), GaussianDivergence((record,))):
        value = term(state({FLAT.id: x}))
        (gradient,) = torch.autograd.grad(value, x)
        assert float(value.detach()) < 1_000
        assert torch.isfinite(gradient).all()


def test_moment_norms_equal_the_published_formula() -> None:
    activation = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(3))
    record = recorded(CONV, "channel", 3, ())
    x = activation.permute(1, 0, 2, 3).reshape(3, -1)
    mean_gap = x.mean(1) - record.statistics.mean[0]
    variance_gap = x.var(1, unbiased=False) - record.variance[0]
    expected = float(mean_gap.norm() + variance_gap.norm())
    found = float(MomentNorms((record, record))(state({CONV.id: activation})))
    assert found == pytest.approx(2 * expected, rel=1e-4)


@pytest.mark.parametrize("rectify", [False, True])
def test_feature_target_is_a_scaled_mean_square(rectify: bool) -> None:
    generator = torch.Generator().manual_seed(4)
    reached, drawn = torch.randn(2, 6, 5, generator=generator)
    term = FeatureTarget(FLAT, divisor=8.0, scale=3.0, rectify=rectify)
    a, b = reached.numpy() / 8, drawn.numpy()
    if rectify:
        a, b = np.maximum(a, 0), np.maximum(b, 0)
    found = float(term(state({FLAT.id: reached}, {FLAT.id: drawn})))
    assert found == pytest.approx(float(((a - b) ** 2).mean() / 3), rel=1e-5)


def test_cross_entropy_is_in_nats() -> None:
    given = state({})
    chosen = given.logits.double()[range(6), LABELS]
    expected = (given.logits.double().exp().sum(1).log() - chosen).mean()
    assert float(CrossEntropy()(given)) == pytest.approx(float(expected), rel=1e-5)


def test_priors_on_a_known_image() -> None:
    image = torch.zeros(1, 1, 3, 3)
    image[0, 0, 1, 1] = 2.0
    flat = StepState(image, image, torch.zeros(1, 3), {}, Targets(LABELS[:1]), torch.Generator())
    # The center differs by 2 from both neighbors along each of the four directions.
    assert float(TotalVariation()(flat)) == pytest.approx(4 * math.sqrt(8), rel=1e-6)
    assert float(L2Norm()(flat)) == pytest.approx(2.0)
