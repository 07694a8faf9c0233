"""Generators: any shape, within the range of real inputs, seeded, resumable bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dfkd_meta.checkpoint import load_state, save_state
from dfkd_meta.sidecar import InputSpec
from dfkd_meta.synthesis.sources.generator import GeneratorSource
from dfkd_meta.synthesis.sources.networks import WithinRange, make_generator, reinitialize
from dfkd_meta.synthesis.targets import Targets

CPU = torch.device("cpu")
IMAGE = InputSpec(
    shape=[3, 8, 8],
    axes=["c", "h", "w"],
    value_range=[0.0, 1.0],
    mean=[0.5, 0.1, 0.9],
    std=[0.5, 0.2, 2.0],
)
FLAT = InputSpec(shape=[20], axes=["f"], value_range=[-2.0, 3.0], mean=[0.5], std=[2.0])
LATENT = 6


def spec(shape: list[int]) -> InputSpec:
    axes = {1: ["f"], 2: ["t", "f"], 3: ["c", "h", "w"]}[len(shape)]
    return InputSpec(shape=shape, axes=axes, value_range=[0.0, 1.0], mean=[0.2], std=[0.3])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def source(inputs: InputSpec = IMAGE, seed: int = 0) -> GeneratorSource:
    module = make_generator(LATENT, inputs, 4, generator(seed), CPU)
    return GeneratorSource(module, LATENT, learning_rate=0.01)


def aim(count: int = 5) -> Targets:
    return Targets(torch.zeros(count, dtype=torch.int64))


@pytest.mark.parametrize(
    "shape",
    [[1, 28, 28], [3, 32, 32], [1, 8, 8], [2, 7, 5], [5, 1, 3], [1, 33, 18], [20], [4, 6], [1]],
    ids=str,
)
def test_outputs_have_the_shape_of_an_input_and_differ(shape: list[int]) -> None:
    made = source(spec(shape)).fresh(aim(9), generator())
    assert made.shape == (9, *shape)
    assert torch.isfinite(made).all()
    assert len(made.detach().flatten(1).unique(dim=0)) == 9


@pytest.mark.parametrize("inputs", [IMAGE, FLAT], ids=["image", "flat"])
def test_outputs_stay_within_the_range_of_real_inputs(inputs: InputSpec) -> None:
    module = make_generator(LATENT, inputs, 4, generator(), CPU)
    made = module(1e4 * torch.randn(200, LATENT, generator=generator())).detach()
    features = made.transpose(0, 1).flatten(1) if made.dim() == 4 else made.flatten()[None]
    for row, mean, std in zip(features, inputs.mean, inputs.std, strict=True):
        low, high = ((end - mean) / std for end in inputs.value_range)
        assert low - 1e-5 <= float(row.min()) < float(row.max()) <= high + 1e-5


@pytest.mark.parametrize(
    ("mean", "expected"), [(0.2, 0.0), (0.0, 0.1), (5.0, 0.9 - 5.0)], ids=["inside", "low", "high"]
)
def test_a_raw_output_of_zero_is_the_mean_of_the_data(mean: float, expected: float) -> None:
    inputs = InputSpec(shape=[2], axes=["f"], value_range=[0.0, 1.0], mean=[mean], std=[1.0])
    assert WithinRange(inputs)(torch.zeros(3, 2)).numpy() == pytest.approx(expected, abs=1e-6)


def test_fresh_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    one = source().fresh(aim(), generator())
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert torch.equal(one, source().fresh(aim(), generator()))
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(one, source(seed=1).fresh(aim(), generator()))


def test_reinitialized_weights_are_new_and_seeded() -> None:
    modules = [source().module for _ in range(2)]
    before = [parameter.clone() for parameter in modules[0].parameters()]
    for module in modules:
        reinitialize(module, generator(7))
    weights = [list(module.parameters()) for module in modules]
    assert all(torch.equal(one, two) for one, two in zip(*weights, strict=True))
    changed = [not torch.equal(old, new) for old, new in zip(before, weights[0], strict=True)]
    assert sum(changed) >= len(changed) // 2  # BatchNorm starts the same each time


def step(source: GeneratorSource, draws: torch.Generator) -> torch.Tensor:
    """One batch that is pulled to 0; returns what it looked like."""
    source.begin(aim(), draws)
    images = source.images()
    source.optimizer.zero_grad()
    images.square().mean().backward()
    source.optimizer.step()
    source.after_step()
    source.end()
    return images.detach()


def test_a_saved_source_continues_bit_for_bit(tmp_path: Path) -> None:
    first, draws = source(), generator(3)
    for _ in range(3):
        step(first, draws)
    save_state(tmp_path / "state", {"source": first.state(), "draws": draws.get_state()})
    expected = [step(first, draws) for _ in range(3)]
    saved = load_state(tmp_path / "state")
    second, again = source(seed=9), generator()
    second.load_state(saved["source"])
    again.set_state(saved["draws"])
    assert all(torch.equal(images, step(second, again)) for images in expected)


def test_a_restart_forgets_weights_and_momentum() -> None:
    one, draws = source(), generator()
    before = step(one, draws)
    for _ in range(20):
        step(one, draws)
    assert step(one, generator()).square().mean() < before.square().mean() / 2
    one.restart(generator(1))
    assert not one.optimizer.state_dict()["state"]
    assert step(one, generator()).square().mean() > before.square().mean() / 2


def test_the_latent_of_a_batch_stays_while_it_is_optimized() -> None:
    one = source()
    one.begin(aim(), generator())
    assert torch.equal(one.images(), one.images())
