"""The default method on every profile: what it makes of the records it finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dfkd_meta.errors import MethodError
from dfkd_meta.sidecar import Sidecar, read_sidecar
from dfkd_meta.synthesis.draws import drawn_start, read_draws
from dfkd_meta.synthesis.engine import Synthesizer
from dfkd_meta.synthesis.gaussians import ClassGaussians, ClassMixtures, read_gaussians
from dfkd_meta.synthesis.marginals import Marginals, read_marginals
from dfkd_meta.synthesis.methods import recorded
from dfkd_meta.synthesis.methods.deep_inversion import batch_statistics
from dfkd_meta.synthesis.recipe import MethodContext, Recipe, methods
from dfkd_meta.synthesis.sources.pixels import PixelSource
from dfkd_meta.synthesis.targets import Targets
from dfkd_meta.synthesis.terms.moments import StandardizedMoments
from dfkd_meta.teachers import teacher_from_sidecar

Published = Callable[[str, str], Path]
CPU = torch.device("cpu")


def context_of(folder: Path) -> MethodContext:
    sidecar = read_sidecar(folder)
    return MethodContext(teacher_from_sidecar(folder, sidecar), sidecar, CPU)


def recipe(context: MethodContext, **options: object) -> Recipe:
    return methods.get("recorded").recipe(context, options)


def keep(sidecar: Sidecar, *kinds: str) -> None:
    """Leave the records of these kinds only."""
    found = [record for record in sidecar.manifest.statistics if record.kind in kinds]
    sidecar.manifest.statistics[:] = found


def weighed(made: Recipe) -> set[str]:
    return {name for name, item in made.terms.items() if item.weight}


def test_draws_that_the_teacher_recognizes_are_used_as_they_are(published: Published) -> None:
    context = context_of(published("digits_cnn", "full"))
    made = recipe(context)
    assert (made.steps, made.terms) == (0, {})
    assert made.rounds is not None
    assert made.rounds.capacity == made.batch_size == 2_048  # no draw is kept
    synthesizer = Synthesizer(context.teacher, made, torch.Generator().manual_seed(0))
    batch = synthesizer.make_batch(300)
    with torch.no_grad():
        picked = context.teacher(batch.images).argmax(1)
    assert float((picked == batch.labels).float().mean()) > 0.9
    assert not torch.equal(batch.images, synthesizer.make_batch(300).images)


def test_draws_have_the_recorded_values(published: Published) -> None:
    context = context_of(published("digits_cnn", "full"))
    draws, wanted = read_draws(context.sidecar, CPU), read_marginals(context.sidecar, CPU)
    assert isinstance(draws, ClassMixtures)
    assert wanted is not None
    targets = Targets(torch.arange(2_000) % 3)
    images = drawn_start(context, draws)(targets, torch.Generator().manual_seed(5))
    found = Marginals.of(images, wanted.probability)
    torch.testing.assert_close(found.value, wanted.value, atol=0.1, rtol=0.05)


def test_other_draws_are_not_trusted(published: Published) -> None:
    context = context_of(published("digits_cnn", "full"))
    made = recipe(context, trust=1.2)
    assert made.steps == 60
    assert weighed(made) == {"features", "moments", "pooled", "layout"}


def test_draws_need_be_no_clearer_than_the_data(
    published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With logits that tell classes badly, draws that are told apart well are trusted."""
    context = context_of(published("digits_cnn", "full"))

    def wide(*given: Any) -> ClassGaussians:
        read = read_gaussians(*given)
        assert read.cholesky is not None
        return replace(read, cholesky=20 * read.cholesky)

    monkeypatch.setattr(recorded, "read_gaussians", wide)
    assert recipe(context, trust=1.2).steps == 0


def test_joint_draws_say_what_an_input_starts_from_and_is_pulled_to(published: Published) -> None:
    context = context_of(published("digits_cnn", "full"))
    made = recipe(context, trust=1.2)
    assert made.targets.joint is not None
    targets = made.targets.sample(60, 0, torch.Generator().manual_seed(0))
    assert set(targets.features) == set(made.targets.joint.sizes)
    pulled = [tap.id for tap in made.terms["features"].term.taps]
    assert pulled == list(made.targets.joint.sizes)[1:]
    # Without noise and steps an input is the draw itself, but for the values it is given.
    source = made.source
    assert isinstance(source, PixelSource)
    assert source.rendering is not None
    still = torch.zeros(60, *context.shape)
    shown = source.rendering(targets, torch.Generator())(still).flatten(1)
    drawn = targets.features["input"]
    own = torch.corrcoef(torch.cat([shown, drawn]))[:60, 60:]
    assert float(own.diagonal().mean()) > 0.8
    assert float(own.diagonal().mean()) > float(own.mean()) + 0.2


@pytest.mark.parametrize(
    ("architecture", "profile", "terms"),
    [
        ("digits_cnn", "standard", {"features", "moments", "pooled", "layout"}),
        ("digits_cnn", "minimal", {"features", "overall", "pooled"}),
        ("hinton800", "standard", {"features", "moments"}),
        ("hinton800", "minimal", {"features", "overall"}),
    ],
)
def test_every_profile_is_used(
    published: Published, architecture: str, profile: str, terms: set[str]
) -> None:
    context = context_of(published(architecture, profile))
    made = recipe(context)
    assert weighed(made) == terms
    assert made.source.rendering is not None  # type: ignore[attr-defined]


def test_how_inputs_differ_is_told_by_class_or_else_over_all(published: Published) -> None:
    context = context_of(published("digits_cnn", "standard"))
    term = recipe(context).terms["pooled"].term
    assert isinstance(term, StandardizedMoments)
    assert {record.reduction for record in term.records} == {"pooled"}
    assert all(record.statistics.classes for record in term.records)
    context = context_of(published("digits_cnn", "minimal"))
    term = recipe(context).terms["pooled"].term
    assert isinstance(term, StandardizedMoments)
    assert not any(record.statistics.classes for record in term.records)
    assert all(record.reduction == "channel" for record in batch_statistics(context))


def test_what_little_there_is_is_enough(published: Published) -> None:
    context = context_of(published("digits_cnn", "standard"))
    keep(context.sidecar, "batchnorm")
    made = recipe(context)
    assert weighed(made) == {"labels", "overall"}
    assert made.source.rendering is None  # type: ignore[attr-defined]
    keep(context.sidecar)
    with pytest.raises(MethodError, match="needs what this sidecar does not hold"):
        recipe(context)


@pytest.mark.parametrize("kind", ["mixture", "covariance"])
def test_draws_alone_are_enough(published: Published, kind: str) -> None:
    context = context_of(published("digits_cnn", "full"))
    keep(context.sidecar, kind)
    assert recipe(context, trust=0.5).steps == 0


def test_batches_of_large_inputs_are_smaller(published: Published) -> None:
    context = context_of(published("digits_cnn", "standard"))
    numbers = 64  # of an image
    made = recipe(context, batch_numbers=50 * numbers + 1)
    assert made.batch_size == 50
    assert recipe(context).batch_size == context.fitting(250) == 250
    assert context.fitting(250, numbers) == 2


def test_fewer_large_inputs_are_drawn_together(
    published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorded, "DRAWN_NUMBERS", 100 * 64)
    made = recipe(context_of(published("digits_cnn", "full")), trust=0.5)
    assert made.rounds is not None
    assert (made.images, made.batch_size, made.rounds.capacity) == (100, 100, 100)


def test_batchnorm_counts_beside_class_wise_moments_without_positions(published: Published) -> None:
    context = context_of(published("digits_cnn", "standard"))
    flat = [
        record
        for record in context.sidecar.find("moments", scope="per_class")
        if len(context.sidecar.tap(record.taps[0]).shape) == 1
    ]
    kept = [*context.sidecar.find("batchnorm"), *flat]
    context.sidecar.manifest.statistics[:] = kept
    assert weighed(recipe(context)) == {"features", "moments", "overall"}
    context.sidecar.manifest.statistics[:] = flat
    assert weighed(recipe(context)) == {"features", "moments"}


def test_refined_inputs_are_what_they_were_made_for(published: Published) -> None:
    for profile in ("minimal", "standard"):
        context = context_of(published("digits_cnn", profile))
        made = recipe(context, steps=30)
        synthesizer = Synthesizer(context.teacher, made, torch.Generator().manual_seed(0))
        batch = synthesizer.make_batch(60)
        with torch.no_grad():
            picked = context.teacher(batch.images).argmax(1)
        assert float((picked == batch.labels).float().mean()) > 0.9, profile
