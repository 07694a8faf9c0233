"""Inputs with a recorded spectrum and recorded values, rendered from white noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from dfkd_meta.data import ArrayDataset, batches
from dfkd_meta.producer.config import ExportConfig
from dfkd_meta.producer.export import export
from dfkd_meta.sidecar import InputSpec, OutputSpec, read_sidecar
from dfkd_meta.synthesis.draws import plain_draws, read_draws
from dfkd_meta.synthesis.engine import Synthesizer
from dfkd_meta.synthesis.marginals import Marginals, ValueMap, read_marginals
from dfkd_meta.synthesis.recipe import MethodContext, methods
from dfkd_meta.synthesis.sources.pixels import PixelSource, white_start
from dfkd_meta.synthesis.spectra import (
    LEEWAY,
    DrawnCoordinates,
    NaturalInputs,
    Spectrum,
    natural_inputs,
    read_spectrum,
)
from dfkd_meta.synthesis.targets import Targets, TargetSampler
from dfkd_meta.teachers import CosineTransform, Teacher, freeze, teacher_from_sidecar
from tests.support.published import blobs

CPU = torch.device("cpu")
HEIGHT, WIDTH = 6, 8
BOUNDS = torch.tensor(-1.5), torch.tensor(1.5)


def spectrum() -> Spectrum:
    """Falling with the frequency, the two channels alike."""
    strength = 1 / (1 + torch.arange(HEIGHT)[:, None] + torch.arange(WIDTH))
    root = strength[:, :, None, None] * torch.tensor([[1.0, 0.0], [0.8, 0.3]])
    return Spectrum(torch.tensor([1.0, -2.0]), root)


def noise(count: int) -> torch.Tensor:
    return torch.randn(count, 2, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))


def test_noise_gets_the_mean_and_power_of_the_spectrum() -> None:
    made = spectrum()
    images = made.inputs(noise(20_000))
    torch.testing.assert_close(images.mean((0, 2, 3)), made.mean, atol=0.05, rtol=0)
    transform = CosineTransform((HEIGHT, WIDTH), CPU, torch.float32)
    waves = transform(images - made.mean[:, None, None], 2)
    power = torch.einsum("nahw,nbhw->hwab", waves, waves) / len(images)
    torch.testing.assert_close(power, made.root @ made.root.mT, rtol=0.06, atol=0.06)


def test_the_recorded_spectrum_is_that_of_the_data(
    published: Callable[[str, str], Path],
) -> None:
    sidecar = read_sidecar(published("digits_cnn", "minimal"))
    made = read_spectrum(sidecar, CPU)
    assert made is not None
    inputs = sidecar.manifest.inputs
    data = torch.cat([part for part, _ in batches(blobs("train"), inputs, batch_size=50)])
    torch.testing.assert_close(made.mean, data.mean()[None], atol=1e-3, rtol=1e-3)
    transform = CosineTransform(inputs.shape[1:], CPU, torch.float32)
    power = transform(data - data.mean(), 2).square().mean((0, 1))
    torch.testing.assert_close(made.root[:, :, 0, 0].square(), power, rtol=0.05, atol=0.01)


def test_rendered_noise_has_the_wanted_values_within_the_bounds() -> None:
    levels = torch.arange(1, 100) / 100
    wanted = Marginals(levels, torch.stack([(levels > 0.7).float(), 4 * levels - 2]))
    own = Marginals.of(spectrum().inputs(noise(2_000)), levels)
    images = NaturalInputs(spectrum(), BOUNDS, ValueMap.between(own, wanted))(noise(2_000))
    drawing, ramp = images.transpose(0, 1).flatten(1)
    assert abs(float((drawing > 0.5).float().mean()) - 0.3) < 0.02
    assert float(((drawing > 0.01) & (drawing < 0.99)).float().mean()) < 0.02
    assert (ramp.min(), ramp.max()) == BOUNDS
    assert abs(float((ramp == 1.5).float().mean()) - 0.125) < 0.02


def test_gradients_pass_through_what_is_cut_and_turned() -> None:
    levels = torch.arange(1, 100) / 100
    wanted = Marginals(levels, torch.stack([(levels > 0.7).float(), 4 * levels - 2]))
    own = Marginals.of(spectrum().inputs(noise(2_000)), levels)
    plain, turned = noise(5).requires_grad_(), noise(5).requires_grad_()
    weight = torch.randn(5, 2, HEIGHT, WIDTH)
    spectrum().inputs(plain).mul(weight).sum().backward()
    NaturalInputs(spectrum(), BOUNDS, ValueMap.between(own, wanted))(turned).mul(
        weight
    ).sum().backward()
    torch.testing.assert_close(turned.grad, plain.grad)


@pytest.mark.parametrize("channel", [1, 2, 3])
def test_coordinates_lead_back_to_the_inputs(channel: int) -> None:
    made = replace(spectrum(), channel=channel)
    white = noise(10).movedim(1, channel)
    torch.testing.assert_close(made.coordinates(made.inputs(white)), white, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("axes", [["c", "t"], ["t", "c"]])
def test_sequences_are_rendered_like_images(axes: list[str], tmp_path: Path) -> None:
    """Steps in one channel, and twice as much in the other: from a sidecar to noise like them."""
    channel = 1 + axes.index("c")
    step = (torch.linspace(0, 3, 24) + torch.rand(400, 1)) % 1 > 0.7
    data = torch.stack([step.float(), 0.2 + step * 0.6], channel)
    spec = InputSpec(
        shape=list(data.shape[1:]), axes=axes, value_range=[0, 1], mean=[0.5] * 2, std=[0.25] * 2
    )
    module = freeze(nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.ReLU(), nn.Linear(8, 3)))
    outputs = OutputSpec(num_classes=3)
    teacher = Teacher(module, "local", "own", {}, inputs=spec, outputs=outputs)
    dataset = ArrayDataset("steps", "train", data.numpy(), np.arange(400) % 3)
    export(teacher, dataset, ExportConfig(profile="minimal"), tmp_path)

    context = MethodContext(teacher, read_sidecar(tmp_path), CPU)
    white = white_start(context.shape, CPU, 0.0)
    sampler = TargetSampler((0, 1, 2), CPU)
    rendering = natural_inputs(context, white, None, sampler)
    assert rendering is not None
    targets = sampler.sample(4_000, 0, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    found = rendering(targets, generator)(white(targets, generator))
    assert found.shape == (4_000, *spec.shape)

    def traits(x: torch.Tensor) -> torch.Tensor:
        """How the channels go together, each with itself three steps on, and their upper values."""
        one, two = x.movedim(channel, 1).unbind(1)
        pairs = [(one, two), (one[:, 3:], one[:, :-3]), (two[:, 3:], two[:, :-3])]
        alike = [torch.stack([a.flatten(), b.flatten()]).corrcoef()[0, 1] for a, b in pairs]
        return torch.stack([*alike, one.quantile(0.9), two.quantile(0.9)])

    wanted, made = traits(data), traits(found * 0.25 + 0.5)
    torch.testing.assert_close(made[[0, 3, 4]], wanted[[0, 3, 4]], atol=0.02, rtol=0)
    assert (wanted[1:3] < -0.4).all()
    assert (made[1:3] < -0.15).all()  # cut to two values, noise keeps about half


def test_the_smallest_export_is_enough(tmp_path: Path) -> None:
    """22 samples, of which one level of the values may be recorded: none to turn noise by."""
    spec = InputSpec(
        shape=[1, 6, 6], axes=["c", "h", "w"], value_range=[0, 1], mean=[0.5], std=[0.5]
    )
    module = freeze(nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 2)))
    teacher = Teacher(module, "local", "own", {}, inputs=spec, outputs=OutputSpec(num_classes=2))
    images = np.random.default_rng(0).random((22, 1, 6, 6), dtype=np.float32)
    export(
        teacher,
        ArrayDataset("few", "train", images, np.arange(22) % 2),
        ExportConfig(profile="minimal"),
        tmp_path,
    )
    sidecar = read_sidecar(tmp_path)
    assert sidecar.find("quantiles")
    assert read_marginals(sidecar, CPU) is None
    made = methods.get("recorded").recipe(MethodContext(teacher, sidecar, CPU), {"steps": 2})
    batch = Synthesizer(teacher, made, torch.Generator().manual_seed(0)).make_batch(4)
    assert torch.isfinite(batch.images).all()


def test_noise_completes_what_draws_leave_open() -> None:
    """Draws that know the left half of the frequencies, at all the power that is there."""
    made = spectrum()
    known = (torch.arange(WIDTH) < WIDTH // 2).float()

    def draw(targets: Targets, generator: torch.Generator) -> torch.Tensor:
        white = torch.randn(len(targets.labels), 2, HEIGHT, WIDTH, generator=generator)
        return made.inputs(white * known)

    many = Targets(torch.zeros(4_000, dtype=torch.int64))
    drawn = DrawnCoordinates.of(made, draw, many)
    expected = (1 - known).clamp_min(LEEWAY).expand(2, HEIGHT, WIDTH)
    torch.testing.assert_close(drawn.spread, expected, atol=0.15, rtol=0)
    generator = torch.Generator().manual_seed(1)
    completed = drawn(many, generator)(noise(4_000)).square().mean(0)
    torch.testing.assert_close(completed, torch.ones_like(completed), atol=0.15, rtol=0)


def test_what_a_sidecar_records_decides_how_noise_is_rendered(
    published: Callable[[str, str], Path],
) -> None:
    folder = published("digits_cnn", "full")
    sidecar = read_sidecar(folder)
    context = MethodContext(teacher_from_sidecar(folder, sidecar), sidecar, CPU)
    white = white_start(context.shape, CPU, 0.0)
    targets = Targets(torch.arange(60) % context.teacher.outputs.num_classes)

    sampler = TargetSampler(context.classes, CPU)

    def images() -> torch.Tensor:
        draws = read_draws(sidecar, CPU)
        draw = None if draws is None else plain_draws(context, draws)
        rendering = natural_inputs(context, white, draw, sampler)
        assert rendering is not None
        generator = torch.Generator().manual_seed(1)
        return rendering(targets, generator)(white(targets, generator))

    def without(*kinds: str) -> None:
        statistics = sidecar.manifest.statistics
        statistics[:] = [record for record in statistics if record.kind not in kinds]

    def alike(found: torch.Tensor) -> float:
        """How much images of one class have in common: the share of variance between classes."""
        rows = found.flatten(1)
        means = torch.stack([rows[targets.labels == label].mean(0) for label in range(3)])
        return float(means.var(0).sum() / rows.var(0).sum())

    drawn = images()
    without("covariance", "mixture")
    noise = images()
    assert alike(drawn) > 2 * alike(noise)
    without("quantiles")
    assert not torch.equal(images(), noise)
    assert read_spectrum(sidecar, CPU) is not None
    inputs = sidecar.manifest.inputs.model_copy(update={"shape": [64], "axes": ["f"]})
    flat = replace(sidecar, manifest=sidecar.manifest.model_copy(update={"inputs": inputs}))
    assert read_spectrum(flat, CPU) is None  # without positions the record is a covariance
    without("power_spectrum")
    assert natural_inputs(context, white, None, sampler) is None


def test_the_rate_falls_to_a_tenth() -> None:
    source = PixelSource(white_start((1, 2, 2), CPU, 0.0), learning_rate=0.5, decay_over=10)
    source.begin(Targets(torch.zeros(1, dtype=torch.int64)), torch.Generator().manual_seed(0))
    rates = []
    for _ in range(10):
        rates.append(source.optimizer.param_groups[0]["lr"])
        source.after_step()
    assert rates[0] == 0.5
    assert rates == sorted(rates, reverse=True)
    assert abs(source.optimizer.param_groups[0]["lr"] - 0.05) < 1e-9
