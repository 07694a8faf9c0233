"""Taps: which places are found, what they hold, and that hooks leave no trace."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dfkd_meta.errors import TeacherError
from dfkd_meta.sidecar.manifest import InputSpec, OutputSpec, Tap
from dfkd_meta.teachers import (
    ActivationTap,
    Teacher,
    build_model,
    default_taps,
    freeze,
    last_hidden_tap,
    reduce_features,
)
from dfkd_meta.teachers.watching import watch_pass
from tests.teachers.conftest import image_spec


def make_teacher(module: nn.Module, shape: list[int], classes: int = 4) -> Teacher:
    spec = (
        image_spec(shape, [0.5], [0.5])
        if len(shape) == 3
        else InputSpec(shape=shape, axes=["f"], value_range=[0.0, 1.0], mean=[0.5], std=[0.5])
    )
    outputs = OutputSpec(num_classes=classes)
    return Teacher(freeze(module), "local", "test", {}, spec, outputs)


def built(name: str, shape: list[int]) -> Teacher:
    module = build_model(name, {"num_classes": 4, "shape": shape, "width": 0.25}, seed=0)
    return make_teacher(module, shape)


def hook_count(module: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


def test_taps_of_lenet_in_forward_order() -> None:
    taps = default_taps(built("lenet5", [1, 32, 32]))
    assert [tap.id for tap in taps] == [
        "input",
        "conv1:output",
        "conv2:output",
        "conv3:output",
        "fc1:output",
        "fc2:input",
        "output",
    ]
    assert [tap.linear_in_input for tap in taps] == [True, True] + [False] * 5
    assert [" ".join(tap.axes) for tap in taps] == ["c h w"] * 4 + ["f"] * 3


def test_every_batchnorm_has_a_tap_of_its_own() -> None:
    teacher = built("resnet8", [3, 16, 16])
    names = {n for n, m in teacher.module.named_modules() if isinstance(m, nn.BatchNorm2d)}
    taps = default_taps(teacher)
    assert {tap.module for tap in taps if tap.side == "input"} >= names
    assert last_hidden_tap(taps).id == "linear:input"
    linear = {tap.id for tap in taps if tap.linear_in_input}
    assert linear == {"input", "conv1:output", "bn1:input"}


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("lenet5", [1, 32, 32]),
        ("resnet8", [3, 16, 16]),
        ("hinton800", [64]),
        ("digits_cnn", [1, 8, 8]),
    ],
)
def test_the_tap_records_what_it_says_and_changes_nothing(name: str, shape: list[int]) -> None:
    if name == "hinton800":
        arguments = {"num_classes": 4, "shape": shape, "width": 0.1}
        teacher = make_teacher(build_model(name, arguments, seed=0), shape)
    else:
        teacher = built(name, shape)
    taps = default_taps(teacher)
    images = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0), requires_grad=True)
    plain = teacher(images)
    with ActivationTap(teacher.module, taps) as tap:
        assert torch.equal(teacher(images), plain)
        assert {key: list(a.shape) for key, a in tap.activations.items()} == {
            t.id: [3, *t.shape] for t in taps
        }
        assert torch.equal(tap.activations["output"], plain)
        assert torch.equal(tap.activations["input"], images)
        hidden = tap.activations[last_hidden_tap(taps).id]
        assert torch.autograd.grad(hidden.sum(), images)[0].abs().sum() > 0
    assert hook_count(teacher.module) == 0


def test_default_taps_leave_no_hooks_and_no_random_state() -> None:
    teacher = built("digits_cnn", [1, 8, 8])
    before = torch.get_rng_state()
    default_taps(teacher)
    assert hook_count(teacher.module) == 0
    assert torch.equal(torch.get_rng_state(), before)


def test_hooks_go_when_the_pass_fails() -> None:
    teacher = built("digits_cnn", [1, 8, 8])
    with (
        pytest.raises(RuntimeError),
        ActivationTap(teacher.module, default_taps(teacher)),
    ):
        teacher(torch.zeros(2, 3, 8, 8))
    assert hook_count(teacher.module) == 0


class Twice(nn.Module):
    """Calls one layer twice and owns a layer that is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Linear(6, 6)
        self.unused = nn.Linear(6, 6)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.relu(self.shared(self.shared(x))))
        return logits


def test_calls_are_numbered_unused_modules_skipped_and_inplace_switched_off() -> None:
    module = Twice()
    teacher = make_teacher(module, [6])
    taps = default_taps(teacher)
    ids = ["input", "shared:output", "shared:output#1", "head:input", "output"]
    assert [tap.id for tap in taps] == ids
    assert [tap.linear_in_input for tap in taps] == [True, True, True, False, False]
    x = torch.rand(5, 6)
    with ActivationTap(module, taps) as tap:
        for _ in range(2):  # a second pass counts its calls anew
            teacher(x)
        once, twice = (tap.activations[name] for name in ids[1:3])
    assert torch.equal(once, module.shared(x))
    assert torch.equal(twice, module.shared(once))
    assert bool((twice < 0).any())  # before the ReLU that was in place


class Overwrites(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(3, 3)
        self.two = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.two(self.one(x).relu_())
        return logits


def test_a_tensor_overwritten_in_place_has_no_tap_and_is_refused() -> None:
    teacher = make_teacher(Overwrites(), [3])
    assert [tap.id for tap in default_taps(teacher)] == ["input", "two:input", "output"]
    taps = [
        Tap(
            id="one:output", module="one", side="output", axes=["f"], shape=[3],
            linear_in_input=True,
        )
    ]  # fmt: skip
    with (
        pytest.raises(TeacherError, match="in place") as caught,
        ActivationTap(teacher.module, taps),
        torch.no_grad(),
    ):
        teacher(torch.rand(2, 3))
    assert caught.value.where == "tap one:output"


def test_a_missing_or_unreached_module_is_named() -> None:
    module = freeze(Twice())
    tap = default_taps(make_teacher(module, [6]))[1]
    with pytest.raises(TeacherError, match=r"no module 'shred'") as caught:
        ActivationTap(module, [tap.model_copy(update={"module": "shred"})])
    assert caught.value.hint == "did you mean shared or head?"
    unused = tap.model_copy(update={"module": "unused"})
    with (
        pytest.raises(TeacherError, match="never reaches module 'unused'"),
        ActivationTap(module, [unused]),
    ):
        module(torch.zeros(1, 6))


class Windows(nn.Module):
    """Patches that attend within windows: as many samples as windows, and a table of biases."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.mix = nn.Conv2d(1, 6, 2, 2), nn.Linear(6, 6)
        self.bias, self.head = nn.Linear(2, 6), nn.Linear(6, 4)
        self.register_buffer("table", torch.randn(1, 7, 7, 2))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        mixed = torch.relu(self.mix(tokens.reshape(-1, 4, 6))).reshape(tokens.shape)
        logits: Tensor = self.head(mixed.mean(1) + self.bias(self.table).mean((0, 1, 2)))
        return logits


def test_what_has_no_axis_of_samples_has_no_tap() -> None:
    taps = default_taps(make_teacher(Windows(), [1, 8, 8]))
    assert [tap.id for tap in taps] == ["input", "patches:output", "head:input", "output"]


class Half(nn.Module):
    """Weights of a coarser type, and inputs brought to it, as models of transformers do."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 6, 3), nn.Linear(6, 4)
        self.to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.conv(x.to(self.conv.weight.dtype)))
        logits: Tensor = self.head(hidden.mean((2, 3)).to(self.conv.weight.dtype))
        return logits


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_rounding_does_not_hide_that_a_layer_is_linear_in_the_input(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    taps = default_taps(make_teacher(Half(dtype), [1, 8, 8]))
    assert [tap.linear_in_input for tap in taps] == [True, True, False, False]


class Beside(nn.Module):
    """The last layer sees the input, or hidden features, and the input or hidden units at once."""

    def __init__(self, raw: bool) -> None:
        super().__init__()
        self.raw = raw
        self.conv, self.head = nn.Conv2d(1, 20, 3, padding=1), nn.Conv2d(20 + raw, 4, 8)
        self.hidden, self.last = nn.Linear(4, 30), nn.Linear(30 + 4, 4)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.conv(x))
        maps = self.head(torch.cat([x, hidden], 1) if self.raw else hidden).flatten(1)
        corner = x[:, 0, 0, :4] if self.raw else maps
        logits: Tensor = self.last(torch.cat([corner, torch.relu(self.hidden(maps))], 1))
        return logits


@pytest.mark.parametrize("raw", [True, False])
def test_an_input_beside_hidden_features_is_noticed(raw: bool) -> None:
    torch.manual_seed(0)
    teacher = make_teacher(Beside(raw), [1, 8, 8])
    places = {place.id: place.tap() for place in watch_pass(teacher.module, teacher.inputs)}
    for name in ("head:input", "last:input"):
        assert places[name].linear_in_input == raw
    assert not places["hidden:output"].linear_in_input


def test_a_unit_that_happens_to_be_on_or_off_for_all_samples_makes_no_layer_linear() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(36, 40), nn.ReLU(), nn.Linear(40, 4))
    with torch.no_grad():
        module[0].bias[:4] = torch.tensor([50.0, -50.0, -50.0, -50.0])
    assert [tap.linear_in_input for tap in default_taps(make_teacher(module, [36]))][2] is False


def test_volumes() -> None:
    layers = [nn.Conv3d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 4)]
    spec = InputSpec(
        shape=[1, 4, 4, 4], axes=["c", "d", "h", "w"], value_range=[0.0, 1.0], mean=[0.5], std=[0.5]
    )
    module = freeze(nn.Sequential(*layers))
    teacher = Teacher(module, "local", "test", {}, spec, OutputSpec(num_classes=4))
    axes = [" ".join(tap.axes) for tap in default_taps(teacher)]
    assert axes == ["c d h w", "c d h w", "f", "f"]


class Tokens(nn.Module):
    """Tokens through a linear layer and attention-like mixing, as in a transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 8)
        self.norm = nn.LayerNorm(8)
        self.mix = nn.Linear(8, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(input=x.unflatten(1, (3, 4)))  # n t f, named as some libraries do
        logits: Tensor = self.head(self.mix(self.norm(tokens)).mean(1))
        return logits


def test_token_axes() -> None:
    teacher = make_teacher(Tokens(), [12])
    taps = default_taps(teacher)
    embed = next(tap for tap in taps if tap.id == "embed:output")
    assert (embed.axes, embed.shape, embed.linear_in_input) == (["t", "f"], [3, 8], True)
    with ActivationTap(teacher.module, taps) as tap:
        teacher(torch.rand(5, 12))
        tokens = tap.activations["embed:output"]
    assert torch.equal(reduce_features(tokens, embed, "channel"), tokens.reshape(15, 8))
    assert torch.equal(reduce_features(tokens, embed, "pooled"), tokens.mean(1))


def test_reductions_of_an_image_tensor() -> None:
    tap = Tap(
        id="t", module="m", side="output", axes=["c", "h", "w"], shape=[2, 3, 4],
        linear_in_input=False,
    )  # fmt: skip
    x = torch.rand(5, 2, 3, 4)
    assert torch.equal(reduce_features(x, tap, "unit"), x.reshape(5, 24))
    rows = reduce_features(x, tap, "channel")
    assert torch.equal(rows, x.permute(0, 2, 3, 1).reshape(60, 2))
    pooled = reduce_features(x, tap, "pooled")
    torch.testing.assert_close(pooled, rows.reshape(5, 12, 2).mean(1))
    # channel-wise mean and variance are what BatchNorm would track
    norm = nn.BatchNorm2d(2, momentum=1.0)
    norm(x)
    torch.testing.assert_close(norm.running_mean, rows.mean(0))
    torch.testing.assert_close(norm.running_var, rows.var(0))
    with pytest.raises(TeacherError, match="the tap says"):
        reduce_features(x[:, :1], tap, "unit")
    with pytest.raises(ValueError, match="reduction"):
        reduce_features(x, tap, "median")


def test_reductions_of_features_are_all_the_same() -> None:
    tap = Tap(id="t", module="m", side="input", axes=["f"], shape=[7], linear_in_input=False)
    x = torch.rand(5, 7)
    for reduction in ("unit", "channel", "pooled"):
        assert torch.equal(reduce_features(x, tap, reduction), x)


def test_without_any_layer_there_is_no_last_hidden_one() -> None:
    taps = default_taps(make_teacher(nn.Sequential(nn.Flatten()), [4]))
    assert [tap.id for tap in taps] == ["input", "output"]
    with pytest.raises(TeacherError, match="no last hidden layer"):
        last_hidden_tap(taps)
