"""The founding paper's methods: each term by an independent formula, dropout, needs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dfkd_meta.errors import MethodError
from dfkd_meta.sidecar import InputSpec, OutputSpec, Sidecar, Tap, read_sidecar
from dfkd_meta.synthesis.dropout import fixed_dropout
from dfkd_meta.synthesis.engine import Synthesizer
from dfkd_meta.synthesis.gaussians import ClassGaussians
from dfkd_meta.synthesis.methods.lopes_all_layers import before_batchnorm
from dfkd_meta.synthesis.methods.lopes_spectral_layer_pairs import PAIRS, ChainedSpectra
from dfkd_meta.synthesis.recipe import MethodContext, Recipe, methods
from dfkd_meta.synthesis.targets import Targets
from dfkd_meta.synthesis.terms.base import StepState
from dfkd_meta.synthesis.terms.features import FeatureTarget, FeatureTargets
from dfkd_meta.synthesis.terms.spectral import ActivationGraph, DrawnSpectrum, EnergyOutside
from dfkd_meta.teachers import Teacher, default_taps, freeze, teacher_from_sidecar

Published = Callable[[str, str], Path]
CPU = torch.device("cpu")
CONV = Tap(
    id="c:output", module="c", side="output", axes=["c", "h", "w"], shape=[3, 2, 2],
    linear_in_input=False,
)  # fmt: skip
FLAT = Tap(id="f:output", module="f", side="output", axes=["f"], shape=[4], linear_in_input=False)
LAST = Tap(id="l:output", module="l", side="output", axes=["f"], shape=[2], linear_in_input=False)
LABELS = torch.tensor([2, 0, 0, 2, 2])


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def graph(nodes: tuple[Tap, ...], features: int, kept: int = 3, key: str = "s") -> ActivationGraph:
    """A record of the classes 0 and 2."""
    basis = torch.linalg.qr(draw(2, features, kept, seed=len(nodes))).Q.mT.contiguous()
    mean, variance = draw(2, kept, seed=5), draw(2, kept, seed=6).square() + 0.1
    coefficients = ClassGaussians(mean, residual=variance, classes=(0, 2))
    reduction = "unit" if features > 7 else "pooled"
    return ActivationGraph(key, nodes, reduction, basis, coefficients, torch.tensor([2.0, 5.0]))


def state(drawn: Tensor, **activations: Tensor) -> StepState:
    images = draw(len(LABELS), 1, 2, 2)
    return StepState(
        images=images,
        view=images,
        logits=draw(len(LABELS), 3),
        activations={CONV.id: draw(5, 3, 2, 2, seed=1), FLAT.id: draw(5, 4, seed=2)} | activations,
        targets=Targets(LABELS, {"s": drawn, "t": -drawn}),
        generator=torch.Generator(),
    )


def signal(reduction: str) -> np.ndarray:
    """The nodes' activations, one tap after the other, by plain numpy."""
    conv, flat = draw(5, 3, 2, 2, seed=1).double().numpy(), draw(5, 4, seed=2).double().numpy()
    parts = conv.reshape(5, 12) if reduction == "unit" else conv.mean((2, 3))
    return np.concatenate([parts, flat], 1)


@pytest.mark.parametrize("features", [16, 7])  # unit-wise, and pooled
def test_spectral_terms_equal_plain_numpy(features: int) -> None:
    record = graph((CONV, FLAT), features)
    drawn = draw(5, 3, seed=9)
    floor, distances, energies = 0.3, [], []
    for row, label in enumerate(LABELS.tolist()):
        group = (0, 2).index(label)
        x, basis = signal(record.reduction)[row], record.basis[group].double().numpy()
        variance = record.variance[group].double().numpy()
        unit = variance + floor * variance.mean()
        distances.append((((basis @ x - drawn[row].numpy()) ** 2) / unit).mean())
        energies.append(((x - basis.T @ (basis @ x)) ** 2).sum() / (2.0, 5.0)[group])
    now = state(drawn)
    assert float(DrawnSpectrum((record,), floor)(now)) == pytest.approx(
        np.mean(distances), rel=1e-5
    )
    assert float(EnergyOutside((record,))(now)) == pytest.approx(np.mean(energies), rel=1e-5)


def test_spectral_terms_of_several_graphs_are_the_mean() -> None:
    one, other = graph((CONV, FLAT), 16), graph((FLAT,), 4, kept=3, key="t")
    now = state(draw(5, 3, seed=9))
    for term in (DrawnSpectrum, EnergyOutside):
        alone = [float(term((record,))(now)) for record in (one, other)]
        assert alone[0] != pytest.approx(alone[1], rel=1e-3)
        assert float(term((one, other))(now)) == pytest.approx(np.mean(alone), rel=1e-5)
        assert {tap.id for tap in term((one, other)).taps} == {CONV.id, FLAT.id}


def test_the_gradient_reaches_the_activations_of_every_class() -> None:
    flat = draw(5, 4, seed=2).requires_grad_()
    record = graph((CONV, FLAT), 16)
    for term in (DrawnSpectrum((record,)), EnergyOutside((record,))):
        now = state(draw(5, 3, seed=9), **{FLAT.id: flat})
        (gradient,) = torch.autograd.grad(term(now), flat)
        assert (gradient.abs().sum(1) > 0).all()


def test_both_terms_share_one_projection(monkeypatch: pytest.MonkeyPatch) -> None:
    record, now, looked = graph((CONV, FLAT), 16), state(draw(5, 3, seed=9)), []
    project = ActivationGraph._spectra
    monkeypatch.setattr(
        ActivationGraph, "_spectra", lambda *given: looked.append(1) or project(*given)
    )
    for term in (DrawnSpectrum((record,)), EnergyOutside((record,))):
        term(now)
    assert looked == [1]


def test_nothing_outside_is_a_finite_energy() -> None:
    """A basis of full rank leaves rounding outside; an energy of 0 must not be divided by."""
    record = dataclasses.replace(graph((FLAT,), 4, kept=4), energy=torch.zeros(2))
    assert 0 <= float(EnergyOutside((record,))(state(draw(5, 4)))) < 1e-6


def test_feature_targets_are_the_sum_over_taps() -> None:
    """Lopes et al. 2017: the mean square of each layer, summed; nothing at all without a layer."""
    parts = (FeatureTarget(CONV, rectify=True), FeatureTarget(FLAT, divisor=2.0, rectify=True))
    now = state(draw(5, 3))
    now.targets.features.update({CONV.id: draw(5, 12, seed=3), FLAT.id: draw(5, 4, seed=4)})
    expected = 0.0
    for tap, divisor, size, seed in ((CONV, 1.0, 12, 3), (FLAT, 2.0, 4, 4)):
        reached = now.activations[tap.id].reshape(5, size).numpy() / divisor
        aim = draw(5, size, seed=seed).numpy()
        expected += ((np.maximum(reached, 0) - np.maximum(aim, 0)) ** 2).mean()
    assert float(FeatureTargets(parts)(now)) == pytest.approx(expected, rel=1e-5)
    assert float(FeatureTargets(())(now)) == 0


def test_a_chain_of_pairs_draws_from_the_conditional_distribution() -> None:
    """Against the posterior of a linear Gaussian model in its covariance form, by numpy."""
    first = dataclasses.replace(graph((CONV, FLAT), 16), key="first")
    second = dataclasses.replace(graph((FLAT, LAST), 6, kept=2), key="second", reduction="unit")
    sampler = ChainedSpectra((0,), CPU, chain=(first, second))
    targets = sampler.sample(20_000, 0, torch.Generator().manual_seed(0))
    a, b = targets.features["first"].double(), targets.features["second"].double()
    # Everything here is of class 0, the first group of both records.
    layer = second.basis[0, :, :4].double()
    white = float(first.energy_unit[0] / 16 + second.energy_unit[0] / 6)
    seen = a @ first.basis[0, :, 12:].double()
    prior = torch.diag(second.variance[0].double())
    gain = prior @ layer @ torch.linalg.inv(layer.T @ prior @ layer + white * torch.eye(4))
    mean = second.coefficients.mean[0].double()
    error = b - (mean + (seen - mean @ layer) @ gain.T)
    expected = prior - gain @ layer.T @ prior
    torch.testing.assert_close(error.mean(0), torch.zeros(2).double(), rtol=0, atol=0.02)
    torch.testing.assert_close(error.T @ error / len(b), expected, rtol=0.05, atol=0.01)
    assert np.abs(np.corrcoef(error.T, a.T)[:2, 2:]).max() < 0.03  # nothing of a is left in it


def test_a_pair_that_follows_no_other_is_drawn_on_its_own() -> None:
    lone = dataclasses.replace(graph((LAST, CONV), 14), key="lone")
    before = dataclasses.replace(graph((CONV, FLAT), 16), key="before")
    sampler = ChainedSpectra((0,), CPU, chain=(before, lone))
    found = sampler.sample(50, 0, torch.Generator().manual_seed(1)).features
    generator, labels = torch.Generator().manual_seed(1), torch.zeros(50, dtype=torch.int64)
    for record in (before, lone):
        assert torch.equal(found[record.key], record.coefficients.sample(labels, generator))


class Dropping(nn.Module):
    """Dropout of units, of channels, and the same layer twice in a pass."""

    def __init__(self) -> None:
        super().__init__()
        self.channels = nn.Dropout2d(0.5)
        self.units = nn.Dropout(0.25)
        self.alpha = nn.AlphaDropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.units(self.units(self.channels(x)).flatten(1))


def test_masks_are_fixed_for_a_batch_and_differ_between_inputs() -> None:
    module, ones = Dropping().eval(), torch.ones(400, 6, 2, 2)
    keep = {"units": 0.75, "channels": 0.5}
    with fixed_dropout(module, keep, torch.Generator().manual_seed(0)):
        first, again = module(ones), module(2 * ones)
    assert torch.equal(again, 2 * first)
    assert not (first[0] == first).all(1)[1:].any()
    found = sorted(first.unique().tolist())
    assert found == pytest.approx([0, 1 / (0.75**2 * 0.5)])  # inverted: what is kept is scaled up
    assert float(first.mean()) == pytest.approx(1, abs=0.1)
    by_channel = first.reshape(400, 6, 4)
    assert ((by_channel == 0).all(2)).float().mean() > 0.45  # 0.5 dropped whole
    with fixed_dropout(module, keep, torch.Generator().manual_seed(0)):
        assert torch.equal(module(ones), first)
    with fixed_dropout(module, keep, torch.Generator().manual_seed(1)):
        assert not torch.equal(module(ones), first)


def test_masks_are_gone_afterwards_also_after_an_error() -> None:
    module, ones = Dropping().eval(), torch.ones(2, 6, 2, 2)
    with pytest.raises(ZeroDivisionError), fixed_dropout(module, {"units": 0.5}, torch.Generator()):
        raise ZeroDivisionError
    assert torch.equal(module(ones), ones.flatten(1))
    with fixed_dropout(module, {"units": 0.0}, torch.Generator()):
        assert not module(ones).any()


@pytest.mark.parametrize("path", ["nowhere", "", "alpha"])
def test_a_site_that_is_no_dropout_layer_is_refused(path: str) -> None:
    with (
        pytest.raises(MethodError, match="dropout layer where"),
        fixed_dropout(Dropping(), {path: 0.5}, torch.Generator()),
    ):
        pass


def opened(folder: Path, name: str) -> tuple[Teacher, Sidecar, Recipe]:
    sidecar = read_sidecar(folder)
    teacher = teacher_from_sidecar(folder, sidecar)
    return teacher, sidecar, methods.get(name).recipe(MethodContext(teacher, sidecar, CPU), {})


@pytest.mark.parametrize(
    ("architecture", "rectified"), [("digits_cnn", False), ("hinton800", True)]
)
def test_a_layer_is_rectified_where_a_relu_takes_its_output(
    architecture: str, rectified: bool, published: Published
) -> None:
    """Not where a BatchNorm does: the ReLU after it cuts at another place."""
    _, _, recipe = opened(published(architecture, "full"), "lopes_all_layers")
    term = recipe.terms["layers"].term
    assert isinstance(term, FeatureTargets)
    assert len(term.targets) > 1
    assert all(target.rectify is rectified for target in term.targets)
    for target in term.targets:
        assert f"{target.tap.id} (" in recipe.notes[0]


def test_a_relu_before_the_batchnorm_is_told_apart() -> None:
    inputs = InputSpec(
        shape=[1, 4, 4], axes=["c", "h", "w"], value_range=[0.0, 1.0], mean=[0.0], std=[1.0]
    )
    found = []
    for between in (nn.Identity(), nn.ReLU()):
        net = nn.Sequential(
            nn.Conv2d(1, 2, 3), between, nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3)
        )
        teacher = Teacher(freeze(net), "local", "x", {}, inputs, OutputSpec(num_classes=3))
        layers = [tap for tap in default_taps(teacher) if tap.side == "output" and tap.module]
        found.append(before_batchnorm(teacher, layers))
    assert found == [{"0:output"}, set()]


def test_layers_that_are_not_recorded_are_not_claimed(published: Published) -> None:
    teacher, sidecar, recipe = opened(published("digits_cnn", "full"), "lopes_all_layers")
    said = "layers matched besides the logits: "
    listed = "conv2:output (covariance), conv3:output (covariance), conv1:output (moments)"
    assert recipe.notes == (said + listed,)
    kept = [r for r in sidecar.manifest.statistics if not any(":output" in t for t in r.taps)]
    manifest = sidecar.manifest.model_copy(update={"statistics": kept})
    part = dataclasses.replace(sidecar, manifest=manifest)
    recipe = methods.get("lopes_all_layers").recipe(MethodContext(teacher, part, CPU), {})
    assert recipe.notes == (said + "none",)


def test_dropout_changes_the_images_and_needs_dropout(published: Published) -> None:
    teacher, _, recipe = opened(published("hinton800", "full"), "lopes_all_layers_dropout")
    made = []
    for perturb in (recipe.perturb, None):
        short = dataclasses.replace(recipe, steps=2, perturb=perturb)
        batch = Synthesizer(teacher, short, torch.Generator().manual_seed(0)).make_batch(6)
        made.append(batch.images)
    assert not torch.equal(*made)
    with pytest.raises(MethodError, match="dropout") as caught:
        opened(published("digits_cnn", "full"), "lopes_all_layers_dropout")
    assert "lopes_all_layers" in str(caught.value.hint)


def test_a_batch_takes_one_mask_per_layer(published: Published) -> None:
    """The pass that is seen at each step drops what the first one dropped."""
    teacher, _, recipe = opened(published("hinton800", "full"), "lopes_all_layers_dropout")
    patterns = []

    def watch(layer: nn.Module, args: tuple[Tensor, ...]) -> None:
        patterns.append(args[0] == 0)

    handle = teacher.module.get_submodule("fc1").register_forward_pre_hook(watch)
    short = dataclasses.replace(recipe, steps=3)
    Synthesizer(teacher, short, torch.Generator().manual_seed(0)).make_batch(8)
    handle.remove()
    assert len(patterns) == 3
    assert all(torch.equal(pattern, patterns[0]) for pattern in patterns)
    assert float(patterns[0].float().mean()) == pytest.approx(0.2, abs=0.08)


@pytest.mark.parametrize("name", ["lopes_spectral_all_layers", "lopes_spectral_layer_pairs"])
@pytest.mark.parametrize("architecture", ["digits_cnn", "hinton800"])
def test_spectral_methods_reach_their_draws(
    name: str, architecture: str, published: Published
) -> None:
    """Steps bring the activations to the spectrum drawn, and the teacher to the class."""
    teacher, _, recipe = opened(published(architecture, "full"), name)
    recognized = []
    for steps in (0, 80):
        short = dataclasses.replace(recipe, steps=steps)
        batch = Synthesizer(teacher, short, torch.Generator().manual_seed(0)).make_batch(60)
        with torch.no_grad():
            recognized.append(
                float((teacher(batch.images).argmax(1) == batch.labels).float().mean())
            )
    assert recognized[1] > 0.9 > recognized[0]


def test_pairs_and_network_are_told_apart(published: Published) -> None:
    _, sidecar, _ = opened(published("digits_cnn", "full"), "lopes_spectral_all_layers")
    taps = [len(record.taps) for record in sidecar.find("spectrum")]
    assert max(taps) > 2
    assert [len(record.taps) for record in PAIRS.records(sidecar)] == [2] * (len(taps) - 1)
    whole = [record for record in sidecar.find("spectrum") if len(record.taps) > 2]
    pairs = PAIRS.records(sidecar)
    for kept, name, lacking in (
        (whole, "lopes_spectral_layer_pairs", "per class spectrum over pairs of layers"),
        (pairs, "lopes_spectral_all_layers", "per class spectrum over all layers"),
    ):
        manifest = sidecar.manifest.model_copy(update={"statistics": kept})
        part = dataclasses.replace(sidecar, manifest=manifest)
        assert methods.get(name).missing(part) == [lacking]


def test_the_only_pair_is_the_network_too(published: Published) -> None:
    _, sidecar, _ = opened(published("digits_cnn", "full"), "lopes_spectral_all_layers")
    manifest = sidecar.manifest.model_copy(update={"statistics": PAIRS.records(sidecar)[:1]})
    part = dataclasses.replace(sidecar, manifest=manifest)
    assert not methods.get("lopes_spectral_all_layers").missing(part)
    some = manifest.statistics[0].model_copy(update={"classes": [0, 1]})
    part = dataclasses.replace(part, manifest=manifest.model_copy(update={"statistics": [some]}))
    assert methods.get("lopes_spectral_all_layers").missing(part)  # a class has no spectrum
