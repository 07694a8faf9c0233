"""Which layers of two nets belong together."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dfkd_meta.distillation.pairs import match_pairs
from dfkd_meta.errors import UsageError
from tests.distillation.nets import CLASSES, a_teacher, built


def names(pairs: list) -> list[tuple[str, str]]:
    return [(pair.teacher.id, pair.student.id) for pair in pairs]


def hooks(module: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


def test_maps_are_matched_by_size_and_the_last_of_each_wins() -> None:
    pairs = match_pairs(a_teacher("resnet20"), built("resnet8"))
    assert names(pairs) == [
        (f"{name}:output", f"{name}:output") for name in ("layer1", "layer2", "layer3", "mean")
    ]
    assert [pair.teacher.shape for pair in pairs] == [[8, 8, 8], [16, 4, 4], [32, 2, 2], [32, 1, 1]]
    assert str(pairs[1]) == "teacher layer2 [16, 4, 4] -> student layer2 [8, 4, 4]"
    assert [pair.channels for pair in pairs] == [(4, 8), (8, 16), (16, 32), (16, 32)]


def test_nets_with_some_sizes_in_common() -> None:
    pairs = match_pairs(a_teacher("digits_cnn"), built("resnet8"))
    assert names(pairs) == [
        ("relu2:output", "layer1:output"),
        ("relu3:output", "layer2:output"),
        ("mean:output", "mean:output"),
    ]


def test_flat_nets_match_hidden_layers_in_order_without_dropout() -> None:
    pairs = match_pairs(a_teacher("hinton1200"), built("hinton800"))
    assert names(pairs) == [("relu1:output", "relu1:output"), ("relu2:output", "relu2:output")]


def flat(*sizes: int) -> nn.Module:
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in zip((64, *sizes), (*sizes, CLASSES), strict=True):
        layers += [nn.Linear(before, after), nn.Dropout(0.5), nn.ReLU()]
    return nn.Sequential(*layers[:-2])


def test_flat_nets_of_other_depths_share_their_last_hidden_layer() -> None:
    deep, shallow = flat(10, 11, 12, 13), flat(5, 6)
    shapes = [(p.teacher.shape, p.student.shape) for p in match_pairs(a_teacher(deep), shallow)]
    assert shapes == [([11], [5]), ([13], [6])]
    shapes = [(p.teacher.shape, p.student.shape) for p in match_pairs(a_teacher(shallow), deep)]
    assert shapes == [([5], [11]), ([6], [13])]


class Early(nn.Module):
    """Its 8x8 maps come before any weights, so they say nothing about what was learned."""

    def __init__(self) -> None:
        super().__init__()
        self.normalize = nn.Identity()
        self.conv = nn.Conv2d(1, 6, 4, stride=4)
        self.relu = nn.ReLU()
        self.head = nn.Linear(24, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.conv(self.normalize(x)))
        logits: Tensor = self.head(self.relu(x).flatten(1))
        return logits


def test_places_before_the_first_weights_are_no_features() -> None:
    pairs = match_pairs(a_teacher(Early()), Early())
    assert [pair.teacher.shape for pair in pairs] == [[6, 2, 2]]


def test_a_shared_module_is_matched_at_its_last_call() -> None:
    pairs = match_pairs(a_teacher(Early()), Early())
    assert names(pairs) == [("relu:output#1", "relu:output#1")]


def test_nothing_in_common_is_an_error_that_says_what_each_has() -> None:
    with pytest.raises(UsageError, match=r"maps of 8x8, 4x4, 1x1 against 2 hidden layers") as error:
        match_pairs(a_teacher("digits_cnn"), built("hinton800"))
    assert "losses on logits" in str(error.value.hint)
    conv = nn.Sequential(nn.Conv2d(1, 2, 2), nn.Flatten(), nn.Linear(98, CLASSES))
    with pytest.raises(UsageError, match=r"maps of 2x2 against maps of 7x7"):
        match_pairs(a_teacher(Early()), conv)


def test_pairs_by_name() -> None:
    teacher, student = a_teacher("digits_cnn"), built("digits_cnn")
    pairs = match_pairs(teacher, student, [("relu1", "relu2"), ("fc:input", "fc:input")])
    assert names(pairs) == [("relu1:output", "relu2:output"), ("fc:input", "fc:input")]
    again = match_pairs(a_teacher(Early()), Early(), [("relu:output#1", "relu")])
    assert names(again) == [("relu:output#1", "relu:output")]


@pytest.mark.parametrize(
    ("named", "message", "hint"),
    [
        (("relu9", "relu1"), "the teacher has no layer 'relu9'", "did you mean relu"),
        (("relu1", "blue"), "the student has no layer 'blue'", "known: conv1"),
        (("relu1", "relu1:output#4"), "no features .* at 'relu1:output#4'", "relu1:input"),
        (("relu1", "relu3"), r"relu1 \[8, 8, 8\] -> student relu3 \[16, 4, 4\] differs", "relu3"),
        (("relu1", "fc:input"), "differs in more than its channels", "these would match"),
    ],
)
def test_names_that_cannot_be_paired(named: tuple[str, str], message: str, hint: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        match_pairs(a_teacher("digits_cnn"), built("digits_cnn"), [named])
    assert hint in str(error.value.hint)


def test_looking_changes_neither_net() -> None:
    teacher, student = a_teacher("digits_cnn"), built("digits_cnn")
    student.train()
    student.bn1.eval()
    before = {name: value.clone() for name, value in student.state_dict().items()}
    torch.manual_seed(1)
    random = torch.get_rng_state()
    match_pairs(teacher, student)
    assert hooks(teacher.module) == hooks(student) == 0
    assert student.training
    assert not student.bn1.training
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())


def test_hooks_are_gone_when_the_pass_fails() -> None:
    teacher, broken = a_teacher("digits_cnn"), nn.Sequential(nn.Conv2d(7, 1, 1))
    with pytest.raises(RuntimeError):
        match_pairs(teacher, broken)
    assert hooks(broken) == hooks(teacher.module) == 0
