"""A dead generator is noticed, started afresh, and in the end an error."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dfkd_meta.errors import MethodError
from dfkd_meta.synthesis.guard import RESTARTS, CollapseGuard, relative_spread
from dfkd_meta.synthesis.sources.generator import GeneratorSource
from dfkd_meta.synthesis.sources.pixels import PixelSource, gaussian_start

DIVERSE = torch.randn(8, 1, 4, 4, generator=torch.Generator().manual_seed(0))
ONE_IMAGE = DIVERSE[:1].expand(8, -1, -1, -1)
GENERATOR = torch.Generator()


def guard() -> CollapseGuard:
    return CollapseGuard(GeneratorSource(nn.Sequential(nn.Linear(3, 16)), 3))


def test_spread_is_zero_for_one_image_and_one_about_a_flat_mean() -> None:
    assert relative_spread(ONE_IMAGE) == pytest.approx(0, abs=1e-6)
    assert relative_spread(torch.zeros(4, 3)) == 0
    large = torch.randn(4000, 9, generator=torch.Generator().manual_seed(0))
    assert relative_spread(large) == pytest.approx(1, abs=0.02)


def test_healthy_batches_pass_without_a_word() -> None:
    assert guard().check(DIVERSE, GENERATOR) is None


@pytest.mark.parametrize("how", ["same images", "no gradient"])
def test_death_is_noticed_and_the_generator_restarted_then_given_up(how: str) -> None:
    watched = guard()
    for number in range(1, RESTARTS + 1):
        before = watched.source.module[0].weight.clone()  # type: ignore[attr-defined]
        note = die(watched, how)
        assert note is not None
        assert f"({number} of {RESTARTS})" in note
        assert not torch.equal(before, watched.source.module[0].weight)  # type: ignore[attr-defined]
    copy = guard()
    copy.load_state(watched.state())
    with pytest.raises(MethodError, match="died again") as caught:
        die(copy, how)
    assert caught.value.hint is not None


def die(watched: CollapseGuard, how: str) -> str | None:
    gradient: Tensor = torch.ones(2) if how == "same images" else torch.zeros(2)
    watched.watch([gradient, None])
    return watched.check(ONE_IMAGE if how == "same images" else DIVERSE, GENERATOR)


def test_free_pixels_are_left_alone() -> None:
    source = PixelSource(gaussian_start((1, 4, 4), torch.device("cpu")))
    assert CollapseGuard(source).check(ONE_IMAGE, GENERATOR) is None
