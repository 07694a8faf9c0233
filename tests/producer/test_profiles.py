"""What each profile asks for, teacher by teacher."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from dfkd_meta.errors import UsageError
from dfkd_meta.producer.config import ExportConfig, Profile
from dfkd_meta.producer.profiles import distinct_taps, plan
from dfkd_meta.sidecar import InputSpec, OutputSpec, StatisticRecord
from dfkd_meta.sidecar.checks.profiles import honest_profile
from dfkd_meta.statistics import RecordRequest, collect, statistics
from dfkd_meta.teachers import Teacher, default_taps, freeze, last_hidden_tap
from tests.statistics.toys import PlainNet, ToyNet, images, stream, teacher

PROFILES = ["minimal", "standard", "full"]


def ids(t: Teacher, profile: str, *, labeled: bool = True, **own: Any) -> list[str]:
    config = ExportConfig(profile=profile, **own)  # type: ignore[arg-type]
    return [request.id for request in plan(config, t, default_taps(t), labeled=labeled)]


def test_minimal_with_batchnorm() -> None:
    assert ids(teacher(), "minimal") == [
        "batchnorm/bn:input/channel/global",
        "soft_targets/output/unit/per_class",
        "class_similarity",
        "dropout",
        "power_spectrum/input/channel/global",
        "quantiles/input/channel/global",
    ]


def test_minimal_without_batchnorm_takes_moments_behind_the_first_nonlinearity() -> None:
    assert ids(teacher(PlainNet()), "minimal") == [
        "moments/head:input/unit/global",
        "moments/output/unit/global",
        "soft_targets/output/unit/per_class",
        "class_similarity",
        "power_spectrum/input/channel/global",
        "quantiles/input/channel/global",
    ]


class Deep(nn.Module):
    """Two convolutions, so that one tap with positions is not linear in the input."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(1, 3, 3), nn.Conv2d(3, 5, 2)
        self.bn = nn.BatchNorm2d(5)
        self.head = nn.Linear(45, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.bn(self.two(self.one(x).relu())).relu().flatten(1))


def test_standard() -> None:
    found = ids(teacher(Deep()), "standard")
    assert found == [
        "batchnorm/bn:input/channel/global",
        "moments/two:output/pooled/global",
        "soft_targets/output/unit/per_class",
        "class_similarity",
        "power_spectrum/input/channel/global",
        "quantiles/input/channel/global",
        "moments/two:output/channel/global",
        "moments/two:output/channel/per_class",
        "moments/two:output/pooled/per_class",
        "moments/two:output/unit/per_class",
        "moments/head:input/unit/global",
        "moments/head:input/unit/per_class",
        "moments/output/unit/global",
        "moments/output/unit/per_class",
        "covariance/head:input/unit/per_class",
        "mixture/two:output+head:input/unit/per_class",
    ]
    assert "power_spectrum/input/channel/global" not in ids(
        teacher(Deep()), "standard", value_cap=6 * 4 - 1
    )
    assert "moments/two:output/unit/per_class" not in ids(
        teacher(Deep()), "standard", standard_unit_cap=44
    )


def test_full_adds_the_input_and_covariances() -> None:
    t = teacher(Deep())
    standard, full = ids(t, "standard"), ids(t, "full")
    assert standard.pop() == "mixture/two:output+head:input/unit/per_class"
    assert full[: len(standard)] == standard
    assert full[len(standard) :] == [
        "moments/input/unit/per_class",
        "moments/input/unit/global",
        "covariance/input/unit/per_class",
        "mixture/input/unit/per_class",
        "mixture/input+two:output+head:input/unit/per_class",
        "moments/one:output/unit/per_class",
        "covariance/two:output/unit/per_class",
        "covariance/output/unit/per_class",
        "quantiles/two:output/channel/global",
        "quantiles/head:input/unit/global",
        "quantiles/output/unit/global",
        "spectrum/input+two:output+output/unit/per_class",
        "spectrum/input+two:output/unit/per_class",
        "spectrum/two:output+output/unit/per_class",
    ]
    small = ids(t, "full", full_unit_cap=47, input_cap=35)
    assert not [name for name in small if "/input/unit" in name or "one:output" in name]
    assert "covariance/two:output/unit/per_class" not in ids(t, "full", hidden_covariance_cap=44)


def mixtures(t: Teacher, profile: str = "full", **own: Any) -> list[RecordRequest]:
    config = ExportConfig(profile=profile, **own)  # type: ignore[arg-type]
    return [r for r in plan(config, t, default_taps(t), labeled=True) if r.kind == "mixture"]


def test_a_mixture_of_the_input_fits_or_is_left_out() -> None:
    t = teacher(Deep())

    def mixture(**own: Any) -> dict[str, Any]:
        found = {r.taps: dict(r.params) for r in mixtures(t, **own)}
        return found.get(("input",), {})

    assert mixture(seed=4) == {"modes": 10, "rank": 20, "seed": 4, "cluster_tap": "head:input"}
    each = 3 * 5 * 36  # classes, rank, features
    assert mixture(mode_rank=5, mixture_cap=10 * each)["modes"] == 10
    assert mixture(mode_rank=5, modes=4, mixture_cap=4 * each)["modes"] == 4
    assert not mixture(mode_rank=5, mixture_cap=10 * each - 1)
    assert not mixture(modes=1)


def test_a_joint_mixture_takes_the_first_of_the_smallest_maps() -> None:
    def joint(module: nn.Module, **own: Any) -> list[tuple[str, ...]]:
        return [r.taps for r in mixtures(teacher(module), **own) if len(r.taps) > 1]

    assert joint(Deep()) == [("input", "two:output", "head:input")]
    assert joint(Deep(), input_cap=35) == []
    assert joint(PlainNet()) == []  # no hidden map
    without = 3 * 5 * (45 + 45)  # classes, least rank, features
    assert joint(Deep(), joint_cap=without + 3 * 5 * 36) == [("input", "two:output", "head:input")]
    assert joint(Deep(), joint_cap=without) == [("two:output", "head:input")]
    assert joint(Deep(), joint_cap=without - 1) == []


def test_a_last_hidden_layer_that_is_a_map_is_not_joined_with_itself() -> None:
    layers = [nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 2), nn.ReLU(), nn.Conv2d(5, 3, 1)]
    convolutional = teacher(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    (found,) = mixtures(convolutional, "standard")
    assert found.taps == ("4:output", "4:input")


class Level(nn.Module):
    """Maps of one size all along, as of a transformer."""

    def __init__(self) -> None:
        super().__init__()
        sizes = [1, 2, 2, 2, 2]
        self.maps = nn.ModuleList(nn.Conv2d(a, 2, 3, padding=1) for a in sizes)
        self.head = nn.Linear(72, 3)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.maps:
            x = layer(x).relu()
        return self.head(x.flatten(1))


def test_where_all_maps_are_alike_a_joint_mixture_takes_a_deep_one() -> None:
    found = [r.taps for r in mixtures(teacher(Level())) if len(r.taps) > 1]
    assert found == [("input", "maps.3:output", "head:input")]  # of maps.1 to maps.4


def test_the_input_takes_a_joint_mixture_of_more_rank() -> None:
    def rank(profile: str, **own: Any) -> int:
        (found,) = (r for r in mixtures(teacher(Deep()), profile, **own) if len(r.taps) > 1)
        return int(found.params["rank"])

    assert rank("standard") == 20
    assert rank("full") == 80
    assert rank("full", joint_rank=5) == 5
    assert rank("full", joint_cap=3 * 70 * (36 + 45 + 45)) == 70  # classes, rank, features


def spectra(t: Teacher, **own: Any) -> dict[str, RecordRequest]:
    config = ExportConfig(profile="full", **own)
    requests = plan(config, t, default_taps(t), labeled=True)
    return {"+".join(r.taps): r for r in requests if r.kind == "spectrum"}


def kept(request: RecordRequest, size: int) -> float:
    fraction: float = request.params["kept_fraction"]
    return fraction * size


def test_spectra_keep_their_fraction_within_the_cap() -> None:
    t = teacher(Deep())  # input 36, two:output 45, output 3: 84 + 81 + 48 units in three graphs
    whole, first = "input+two:output+output", "input+two:output"
    assert kept(spectra(t)[whole], 84) == pytest.approx(8)
    assert kept(spectra(t, kept_fraction=0.5)[first], 81) == pytest.approx(40)
    capped = spectra(t, spectrum_cap=3 * 213 * 6 + 1)
    assert [kept(capped[name], size) for name, size in ((whole, 84), (first, 81))] == [
        pytest.approx(6),
        pytest.approx(6),
    ]
    assert kept(capped["two:output+output"], 48) == pytest.approx(5)  # its own 10 %
    assert not spectra(t, spectrum_cap=3 * 213 - 1)


def test_spectra_of_many_units_have_a_node_per_channel() -> None:
    found = spectra(teacher(Deep()), spectrum_unit_cap=80)
    assert found["input+two:output+output"].reduction == "pooled"  # 1 + 5 + 3 nodes
    assert kept(found["input+two:output+output"], 9) == pytest.approx(1)
    assert found["two:output+output"].reduction == "unit"


def test_spectra_need_classes_and_layers() -> None:
    assert list(spectra(teacher(PlainNet()))) == ["input+output"]  # hidden is linear in the input
    assert not spectra(teacher(nn.Sequential(nn.Flatten(), nn.Linear(36, 3))))
    assert not spectra(teacher(Deep()), per_class=False)


def test_ranks() -> None:
    t = teacher(Deep())
    for cap, expected in ((44, 3), (45, None)):  # of the 45 features at two:output
        config = ExportConfig(profile="full", cholesky_cap=cap, input_rank=7, hidden_rank=3)
        params = {r.id: r.params for r in plan(config, t, default_taps(t), labeled=True)}
        assert params["covariance/input/unit/per_class"]["rank"] == 7
        assert params["covariance/two:output/unit/per_class"].get("rank") == expected
    capped = ExportConfig(profile="full", value_cap=3 * 45**2 - 1)
    params = {r.id: r.params for r in plan(capped, t, default_taps(t), labeled=True)}
    assert params["covariance/head:input/unit/per_class"]["rank"] == 40
    assert params["soft_targets/output/unit/per_class"] == {"temperature": 8.0}
    low = ExportConfig(profile="full", value_cap=3 * 36 * 5)
    params = {r.id: r.params for r in plan(low, t, default_taps(t), labeled=True)}
    assert params["covariance/input/unit/per_class"]["rank"] == 5  # of 36 features, 3 classes
    assert params["covariance/two:output/unit/per_class"]["rank"] == 4  # of 45
    tiny = ExportConfig(profile="full", value_cap=26)
    params = {r.id: r.params for r in plan(tiny, t, default_taps(t), labeled=True)}
    assert params["soft_targets/output/unit/per_class"]["covariance"] is False
    assert not [name for name in params if name.startswith("covariance/two")]
    assert "moments/two:output/unit/per_class" not in params


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("labeled", [True, False])
@pytest.mark.parametrize("net", [ToyNet, PlainNet, Deep])
def test_nothing_twice_and_no_classes_without_labels(
    profile: str, labeled: bool, net: type[nn.Module]
) -> None:
    found = ids(teacher(net()), profile, labeled=labeled)
    assert len(set(found)) == len(found)
    assert any("per_class" in name for name in found) == labeled
    assert not any("per_class" in name for name in ids(teacher(net()), profile, per_class=False))


@pytest.mark.parametrize("profile", ["minimal", "standard"])
@pytest.mark.parametrize("net", [ToyNet, PlainNet, Deep])
def test_only_full_records_more_of_the_input_than_a_spectrum(
    profile: str, net: type[nn.Module]
) -> None:
    t = teacher(net())
    linear = {tap.id for tap in default_taps(t) if tap.linear_in_input}
    config = ExportConfig(profile=profile)  # type: ignore[arg-type]
    for request in plan(config, t, default_taps(t), labeled=True):
        public = request.scope == "global" and request.reduction == "channel"
        assert public or not linear & set(request.taps)


def test_batchnorm_input_is_the_same_tensor_as_the_convolution_output() -> None:
    t = teacher(Deep())
    taps = default_taps(t)
    found = [tap.id for tap in distinct_taps(t, taps)]
    assert "bn:input" in [tap.id for tap in taps]
    assert found == ["input", "one:output", "two:output", "head:input", "output"]
    same = next(tap for tap in taps if tap.id == "bn:input")
    assert "bn:input" in [tap.id for tap in distinct_taps(t, taps, same)]


@pytest.mark.parametrize("profile", PROFILES)
def test_the_profile_is_honest(profile: str) -> None:
    config = ExportConfig(profile=profile)  # type: ignore[arg-type]

    def honest(t: Teacher, *, labeled: bool) -> str:
        taps, classes = default_taps(t), t.outputs.num_classes
        records = [
            StatisticRecord(
                id=request.id,
                kind=request.kind,
                taps=list(request.taps),
                reduction=request.reduction,
                scope=request.scope,
                classes=list(range(classes)) if request.scope == "per_class" else None,
            )
            for request in plan(config, t, taps, labeled=labeled)
        ]
        return honest_profile(config.profile, taps, records, classes)

    for net in (ToyNet, PlainNet, Deep):
        assert honest(teacher(net()), labeled=True) == profile
        unlabeled = honest(teacher(net()), labeled=False)
        assert unlabeled == ("minimal" if profile == "minimal" else "custom")
    linear = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    assert honest(teacher(linear), labeled=True) == "custom"
    convolutional = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 4), nn.Flatten())
    assert honest(teacher(convolutional), labeled=True) == profile


class Gated(nn.Module):
    """A linear gate in the middle (as in squeeze-and-excitation), and a head that is none."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.conv, self.gate, self.head = nn.Conv2d(1, 3, 3), nn.Linear(3, 3), head

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv(x))
        x = x * torch.sigmoid(self.gate(x.mean((2, 3)))).unflatten(1, (3, 1, 1))
        logits: Tensor = self.head(x)
        return logits


class Cosine(nn.Module):
    """Class vectors that are no layer's weights."""

    def __init__(self) -> None:
        super().__init__()
        self.project, self.vectors = nn.Linear(3, 5), nn.Parameter(torch.randn(3, 5))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.normalize(self.project(x.mean((2, 3)))) @ self.vectors.T


def test_the_head_is_the_layer_with_an_output_for_each_class() -> None:
    pooled = nn.Sequential(nn.Conv2d(3, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    gated = teacher(Gated(pooled))
    assert last_hidden_tap(default_taps(gated)).id == "head.0:input"
    requests = plan(ExportConfig(profile="standard"), gated, default_taps(gated), labeled=True)
    (similar,) = [request for request in requests if request.kind == "class_similarity"]
    assert similar.params == {"module": "head.0"}
    pass_of_it = collect(gated, stream(*images()), requests, default_taps(gated))
    (found,) = [result for request, result in pass_of_it.results if request == similar]
    assert found.arrays["similarity"].shape == (3, 3)


def test_without_a_layer_for_the_classes_there_is_no_class_similarity() -> None:
    cosine = teacher(nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), Cosine()))
    assert last_hidden_tap(default_taps(cosine)).id == "2.project:input"
    assert "class_similarity" not in ids(cosine, "minimal")


def test_many_classes_get_what_fits() -> None:
    t = teacher()  # of three classes
    few = ids(t, "minimal", value_cap=8)
    assert "class_similarity" not in few
    assert "soft_targets/output/unit/global" in few
    assert "soft_targets/output/unit/per_class" in ids(t, "minimal", value_cap=9)
    for cap, held in ((26, {"temperature": 8.0, "covariance": False}), (27, {"temperature": 8.0})):
        config = ExportConfig(profile="minimal", logits_cap=cap)
        params = {r.id: r.params for r in plan(config, t, default_taps(t), labeled=True)}
        assert params["soft_targets/output/unit/per_class"] == held


def test_records_of_ones_own() -> None:
    t = teacher()
    own = {"kind": "moments", "taps": ["conv:output"], "reduction": "pooled"}
    found = ids(t, "minimal", records=[own, own])
    assert found[-1] == "moments/conv:output/pooled/global"
    assert len(found) == 7
    config = ExportConfig.model_validate({"records": [own]})
    assert config.records == (RecordRequest("moments", ("conv:output",), "pooled"),)


def test_a_record_that_no_sidecar_can_carry_is_refused_before_the_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(statistics._entries, "median", statistics.get("moments"))
    with pytest.raises(UsageError, match="'median', which a sidecar cannot carry"):
        ids(teacher(), "minimal", records=[{"kind": "median", "taps": ["output"]}])


def test_a_linear_teacher_keeps_the_records_of_its_input() -> None:
    flat = InputSpec(shape=[6], axes=["f"], value_range=[0, 1], mean=[0.5], std=[0.25])
    linear = Teacher(freeze(nn.Linear(6, 3)), "local", "x", {}, flat, OutputSpec(num_classes=3))
    assert [tap.id for tap in distinct_taps(linear, default_taps(linear))] == ["input", "output"]
    wrapped = replace(linear, module=freeze(nn.Sequential(nn.Linear(6, 3))))
    found = ids(wrapped, "full")
    assert "covariance/input/unit/per_class" in found
    assert not [name for name in found if "0:input" in name]


def test_records_are_left_out_by_the_names_they_have() -> None:
    t = teacher()
    everything = ids(t, "minimal")
    left = ids(t, "minimal", leave_out=["power_spectrum/*", "dropout"])
    assert left == [name for name in everything if name not in {everything[3], everything[4]}]
    assert ids(t, "minimal", only=["*/input/*"]) == everything[4:]
    assert ids(t, "minimal", only=["*/input/*"], leave_out=["quantiles/*"]) == [everything[4]]


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"leave_out": ["mixture/*"]}, "leave_out: none of the records matches 'mixture/"),
        ({"only": ["dropout", "Dropout"]}, "only: none of the records matches 'Dropout'"),
        ({"leave_out": ["*"]}, "no record to take"),
    ],
)
def test_leaving_out_what_is_not_there_is_refused(own: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        ids(teacher(), "minimal", **own)


def test_planning_leaves_the_random_state_alone() -> None:
    t = teacher()
    torch.manual_seed(3)
    ids(t, "full")
    after = torch.rand(())
    torch.manual_seed(3)
    assert torch.equal(after, torch.rand(()))


def test_few_samples_have_no_quantiles() -> None:
    t = teacher(ToyNet())
    taps = default_taps(t)
    for samples, there in ((21, False), (22, True)):
        for profile in get_args(Profile):
            settings = ExportConfig(profile=profile)
            requests = plan(settings, t, taps, labeled=True, samples=samples)
            assert any(r.kind == "quantiles" for r in requests) == there


def test_a_record_by_class_is_refused_where_none_is_wanted() -> None:
    t = teacher(ToyNet())
    asked = (RecordRequest("moments", ("fc:input",), "unit", "per_class"),)
    settings = ExportConfig(profile="minimal", per_class=False, records=asked)
    with pytest.raises(UsageError, match="per_class is false"):
        plan(settings, t, default_taps(t), labeled=True)
