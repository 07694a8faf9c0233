"""One pass over data through a teacher, and everything it refuses."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dfkd_meta.errors import StatisticsError
from dfkd_meta.statistics import RecordRequest, collect, feature_count, statistics
from dfkd_meta.statistics.collect import _forward, _Pass
from dfkd_meta.teachers import ActivationTap, default_taps, observations
from tests.statistics.toys import CLASSES, ToyNet, images, stream, teacher

CONV, OUT = "conv:output", "output"


def moments(tap: str = CONV, reduction: str = "channel", scope: str = "global") -> RecordRequest:
    return RecordRequest("moments", (tap,), reduction, scope)  # type: ignore[arg-type]


@pytest.mark.parametrize("reduction", ["unit", "channel", "pooled"])
def test_observations_are_as_wide_as_counted(reduction: str) -> None:
    t = teacher()
    x, _ = images(7)
    for tap in default_taps(t):
        with ActivationTap(t.module, [tap]) as taps:
            t(x)
        found = observations(taps.activations[tap.id], tap, reduction)
        assert len(found) == 7
        assert found.shape[-1] == feature_count([tap], reduction)


def test_one_batch_is_held_at_a_time() -> None:
    t, made, held = teacher(), list[weakref.ref[Tensor]](), list[int]()

    def watch(module: nn.Module, args: object, out: Tensor) -> None:
        held.append(sum(reference() is not None for reference in made))
        made.append(weakref.ref(out))

    x, labels = images()
    stored = [(x[rows], labels[rows]) for rows in torch.arange(90).split(30)]
    handle = t.module.conv.register_forward_hook(watch)  # type: ignore[operator, union-attr]
    collect(t, stored, [moments()], default_taps(t))
    handle.remove()
    assert held[-3:] == [0, 0, 0]


def test_records_equal_a_computation_by_hand() -> None:
    t = teacher()
    x, labels = images()
    requests = [
        moments(scope="per_class"),
        moments(),
        moments(reduction="unit", scope="per_class"),
        moments(reduction="pooled"),
    ]
    found = collect(t, stream(x, labels), requests, default_taps(t))
    assert found.samples == 90
    assert found.class_counts == [30, 30, 30]
    conv = t.module.conv(x).double().numpy()  # type: ignore[operator]
    by_channel, whole, unit, pooled = (result for _, result in found.results)
    assert [r.id for r, _ in found.results] == [r.id for r in requests]
    assert by_channel.count == [30, 30, 30]
    assert whole.count == pooled.count == [90]
    for c in range(CLASSES):
        own = conv[labels.numpy() == c]
        np.testing.assert_allclose(by_channel.arrays["mean"][c], own.mean((0, 2, 3)), rtol=1e-5)
        np.testing.assert_allclose(by_channel.arrays["variance"][c], own.var((0, 2, 3)), rtol=1e-5)
        flat = own.reshape(len(own), -1)
        np.testing.assert_allclose(unit.arrays["variance"][c], flat.var(0), rtol=1e-5)
    np.testing.assert_allclose(whole.arrays["variance"][0], conv.var((0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(pooled.arrays["variance"][0], conv.mean((2, 3)).var(0), rtol=1e-5)


def test_several_taps_are_one_feature_vector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(statistics._entries, "joint", statistics.get("moments"))
    t = teacher()
    x, labels = images()
    request = RecordRequest("joint", ("input", "output"), "unit")
    result = collect(t, stream(x, labels), [request], default_taps(t)).results[0][1]
    assert result.arrays["mean"].shape == (1, 36 + CLASSES)
    np.testing.assert_allclose(result.arrays["mean"][0, :36], x.mean(0).flatten(), atol=1e-6)


def test_batch_size_does_not_matter() -> None:
    t = teacher()
    x, labels = images()
    requests = [moments(scope="per_class"), RecordRequest("soft_targets", (OUT,), "unit")]
    one, other = (
        collect(t, stream(x, labels, size), requests, default_taps(t)) for size in (7, 90)
    )
    for (_, a), (_, b) in zip(one.results, other.results, strict=True):
        for role in a.arrays:
            np.testing.assert_allclose(a.arrays[role], b.arrays[role], rtol=1e-5, atol=1e-7)


def test_nan_in_the_data_names_tap_and_batch() -> None:
    t = teacher()
    x, labels = images()
    x[70, 0, 2, 2] = float("nan")
    with pytest.raises(StatisticsError, match="batch 2 gives NaN") as caught:
        collect(t, stream(x, labels), [moments()], default_taps(t))
    assert caught.value.where == f"tap {CONV}"
    x[70, 0, 2, 2] = float("inf")
    with pytest.raises(StatisticsError, match="NaN or infinite"):
        collect(t, stream(x, labels), [moments("input", "unit")], default_taps(t))


def test_large_finite_activations_are_no_infinity() -> None:
    t = teacher()
    x, labels = images()
    x[0] = 3e38
    found = collect(t, stream(x, labels), [moments("input", "unit")], default_taps(t))
    assert np.isfinite(found.results[0][1].arrays["mean"]).all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (torch.tensor([0, 1, CLASSES]), f"label {CLASSES}, the teacher knows 0..{CLASSES - 1}"),
        (torch.tensor([0, -1, 1]), "label -1"),
        (torch.tensor([[0], [1], [2]]), "labels of shape"),
    ],
)
def test_wrong_labels(wrong: Tensor, message: str) -> None:
    t = teacher()
    with pytest.raises(StatisticsError, match=message):
        collect(t, [(images(3)[0], wrong)], [moments()], default_taps(t))


def test_small_classes_are_listed() -> None:
    t = teacher()
    x, labels = images()
    kept = (labels != 1) | (torch.arange(90) < 20)
    few = int((labels[kept] == 1).sum())
    with pytest.raises(StatisticsError, match=f"class 1: {few}") as caught:
        collect(t, stream(x[kept], labels[kept]), [moments(scope="per_class")], default_taps(t))
    assert "per_class=false" in str(caught.value.hint)
    collect(t, stream(x[kept], labels[kept]), [moments()], default_taps(t))  # global is fine
    lower = collect(
        t, stream(x[kept], labels[kept]), [moments(scope="per_class")], default_taps(t), min_count=1
    )
    assert lower.results[0][1].count == torch.bincount(labels[kept]).tolist()


def test_some_classes_are_described_as_if_there_were_no_others() -> None:
    t = teacher()
    x, labels = images()
    kept = labels != 1
    requests = [moments(scope="per_class"), moments(), moments(reduction="unit")]
    few = stream(x[kept], labels[kept])
    found = collect(t, few, requests, default_taps(t), classes=[0, 2])
    assert (found.classes, found.class_counts, found.samples) == ((0, 2), [30, 0, 30], 60)
    whole = collect(t, stream(x, labels), requests[:1], default_taps(t)).results[0][1]
    rest = collect(t, stream(x[kept], labels[kept]), requests[1:], default_taps(t)).results
    described, *overall = (result for _, result in found.results)
    assert described.count == [30, 30]
    for role, array in described.arrays.items():
        np.testing.assert_allclose(array, whole.arrays[role][[0, 2]], rtol=1e-12)
    for mine, (_, other) in zip(overall, rest, strict=True):
        assert mine.count == [60]
        for role, array in mine.arrays.items():
            np.testing.assert_allclose(array, other.arrays[role], rtol=1e-12)
    with pytest.raises(StatisticsError, match="a sample of class 1, which is not described"):
        collect(t, stream(x, labels), requests, default_taps(t), classes=[0, 2])


def test_too_few_samples_and_no_samples() -> None:
    t = teacher()
    for n in (0, 10):
        with pytest.raises(StatisticsError, match=f"{n} samples are fewer"):
            collect(t, stream(*images(n)), [moments()], default_taps(t))


def test_no_labels() -> None:
    t = teacher()
    x, _ = images()
    found = collect(t, stream(x, None), [moments()], default_taps(t))
    assert found.class_counts is None
    assert found.results[0][1].count == [90]
    with pytest.raises(StatisticsError, match="no labels"):
        collect(t, stream(x, None), [moments(scope="per_class")], default_taps(t))


def test_shape_that_disagrees_with_the_input_specification() -> None:
    t = teacher()
    with pytest.raises(StatisticsError, match=r"\[1, 8, 8\].*\[1, 6, 6\]"):
        collect(t, [(torch.zeros(20, 1, 8, 8), None)], [moments()], default_taps(t))


def test_a_tensor_that_is_not_what_the_tap_says() -> None:
    t = teacher()
    taps = [
        tap.model_copy(update={"shape": [5, 4, 4]}) if tap.id == CONV else tap
        for tap in default_taps(t)
    ]
    with pytest.raises(StatisticsError, match=r"\[32, 4, 4, 4\], expected \[32, 5, 4, 4\]"):
        collect(t, stream(*images()), [moments()], taps)


class Forgetful(ToyNet):
    """Counts its calls in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        self.calls: Tensor
        self.calls += 1
        return super().forward(x)


def test_a_pass_that_changes_the_teacher_is_refused() -> None:
    t = teacher(Forgetful())
    with pytest.raises(StatisticsError, match="changed the teacher") as caught:
        collect(t, stream(*images()), [moments()], default_taps(t))
    assert caught.value.where == "calls"
    trained = teacher()
    trained.module.train()
    with pytest.raises(StatisticsError, match="changed the teacher") as caught:
        collect(trained, stream(*images()), [moments()], default_taps(teacher()))
    assert "bn.running_mean" in str(caught.value.where)


def test_hooks_are_gone_afterwards_also_after_an_error() -> None:
    t = teacher()
    x, labels = images()
    collect(t, stream(x, labels), [moments()], default_taps(t))
    with pytest.raises(StatisticsError):
        collect(t, stream(x * float("nan"), labels), [moments()], default_taps(t))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in t.module.modules())


def test_requests_that_make_no_sense() -> None:
    t = teacher()
    with pytest.raises(StatisticsError, match="requested twice"):
        collect(t, stream(*images()), [moments(), moments()], default_taps(t))
    with pytest.raises(StatisticsError, match="no tap conv9:output"):
        collect(t, stream(*images()), [moments("conv9:output")], default_taps(t))
    bad = RecordRequest("batchnorm", (CONV,), "channel")
    with pytest.raises(StatisticsError, match="not the input of a BatchNorm") as caught:
        collect(t, stream(*images()), [bad], default_taps(t))
    assert "bn:input" in str(caught.value.hint)
    with pytest.raises(StatisticsError, match="no dropout layer at head"):
        collect(
            t,
            stream(*images()),
            [RecordRequest("dropout", params={"sites": ["head"]})],
            default_taps(t),
        )
    with pytest.raises(StatisticsError, match="moments needs a reduction"):
        collect(t, stream(*images()), [RecordRequest("moments", (CONV,))], default_taps(t))
    with pytest.raises(StatisticsError, match="dropout has no scope per_class"):
        collect(t, stream(*images()), [RecordRequest("dropout", scope="per_class")], [])
    with pytest.raises(StatisticsError, match="linear layer or a convolution") as caught:
        nowhere = RecordRequest("class_similarity", params={"module": "nope"})
        collect(t, stream(*images()), [nowhere], default_taps(t))
    assert caught.value.where == "nope"
    for kind, wrong in (("covariance", {"rank": "x"}), ("quantiles", {"levels": 0.5})):
        with pytest.raises(StatisticsError, match=f"parameters that {kind} cannot take"):
            request = RecordRequest(kind, (OUT,), "unit", params=wrong)
            collect(t, stream(*images()), [request], default_taps(t))
    for params, message in (({"rank": 0}, "at least 1"), ({"temperature": 0.0}, "at least 0.01")):
        kind = "covariance" if "rank" in params else "soft_targets"
        with pytest.raises(StatisticsError, match=message):
            collect(
                t,
                stream(*images()),
                [RecordRequest(kind, (OUT,), "unit", params=params)],
                default_taps(t),
            )


@pytest.mark.parametrize("kind", ["moments", "covariance", "soft_targets", "quantiles"])
def test_memory_does_not_grow_with_the_samples(kind: str) -> None:
    t = teacher()
    requests = [RecordRequest(kind, (OUT,), "unit", "per_class")]
    running = _Pass(t, requests, default_taps(t), min_count=11)
    sizes = []
    for batch in _forward(t, [images(33, seed) for seed in range(5)], running.taps):
        running.absorb(batch)
        states = [accumulator.state() for accumulator in running.accumulators.values()]
        sizes.append([tensor.numel() for state in states for tensor in state.values()])
    assert all(size == sizes[0] for size in sizes)


def test_convolutional_head_has_class_similarity_where_it_is_named() -> None:
    t = teacher(nn.Sequential(nn.Conv2d(1, CLASSES, 6), nn.Flatten()))
    with pytest.raises(StatisticsError, match="linear layer or a convolution"):
        collect(t, stream(*images()), [RecordRequest("class_similarity")], default_taps(t))
    named = RecordRequest("class_similarity", params={"module": "0"})
    ((_, found),) = collect(t, stream(*images()), [named], default_taps(t)).results
    rows = t.module.get_submodule("0").weight.flatten(1).double()
    cosines = torch.nn.functional.cosine_similarity(rows[:, None], rows[None], dim=-1)
    np.testing.assert_allclose(found.arrays["similarity"], cosines.numpy(), atol=1e-12)
