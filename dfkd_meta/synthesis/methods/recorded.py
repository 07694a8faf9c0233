"""The default method: everything the sidecar records, class by class, matched together."""

from __future__ import annotations

import torch
from pydantic import Field

from dfkd_meta.config import Config
from dfkd_meta.sidecar import StatisticRecord
from dfkd_meta.synthesis.gaussians import (
    ClassGaussians,
    ClassMixtures,
    read_gaussians,
    read_mixtures,
)
from dfkd_meta.synthesis.recipe import MethodContext, Query, Recipe, Weighted, method
from dfkd_meta.synthesis.sources.pixels import PixelSource, Start, gaussian_start
from dfkd_meta.synthesis.targets import Targets, TargetSampler
from dfkd_meta.synthesis.terms.features import FeatureTarget
from dfkd_meta.synthesis.terms.labels import CrossEntropy
from dfkd_meta.synthesis.terms.moments import RecordedMoments, StandardizedMoments
from dfkd_meta.teachers import last_hidden_tap, valid_bounds

PROBE_SIZE = 500  # draws shown to the teacher before trusting them: a standard error under 1.4 %


class RecordedConfig(Config):
    """One set of defaults for every data set.

    Draws from input-level records are used as they are when the teacher recognizes them: when at
    least ``trust`` of them are given the class they were drawn for (98 % on digits, 31 % on
    photographs). They cost nothing, so there are ``drawn_images`` of them. Otherwise
    ``refined_images`` inputs, which start from the draws or from noise of std up to ``start_std``,
    are refined for ``steps`` steps: ``features`` pulls each to its own draw at the last hidden
    layer, ``moments`` matches the batch with every recorded moment, ``labels`` is cross-entropy.
    A class has ``class_samples`` or more rows in a batch, so that its moments mean something.
    """

    trust: float = Field(0.9, ge=0)
    drawn_images: int = Field(20_000, ge=1)
    refined_images: int = Field(8_000, ge=1)
    steps: int = Field(60, ge=0)
    batch_size: int = Field(500, ge=2)
    class_samples: int = Field(25, ge=2)
    learning_rate: float = Field(0.1, gt=0)
    start_std: float = Field(1.0, gt=0)
    features_weight: float = Field(1.0, ge=0)
    moments_weight: float = Field(1.0, ge=0)
    labels_weight: float = Field(0.0, ge=0)


@method(
    "recorded",
    source="this project: class-wise moments (Yin et al. 2020, eq. 4, per class) with draws at the "
    "last hidden layer (Lopes et al. 2017)",
    config=RecordedConfig,
    needs=(
        (
            Query("covariance", scope="per_class"),
            Query("moments", scope="per_class"),
        ),
    ),
)
def recorded(context: MethodContext, config: RecordedConfig) -> Recipe:
    """Start from the richest input-level record, else noise; match every record at every tap."""
    drawn = _input_draws(context)
    start = _start(context, config, drawn)
    source = PixelSource(start, _bounds(context), config.learning_rate)
    as_drawn = drawn is not None and _recognized(context, source) >= config.trust
    gaussians = {} if as_drawn else _hidden_gaussians(context)
    terms = {} if as_drawn else _terms(context, config, gaussians)
    images = config.drawn_images if as_drawn else config.refined_images
    classes = context.teacher.outputs.num_classes
    # As many classes as have room in a batch, but enough that the batches together reach all.
    share = max(
        config.batch_size // config.class_samples, -(-classes * config.batch_size // images)
    )
    return Recipe(
        targets=TargetSampler(classes, context.device, gaussians, classes_per_batch=share),
        source=source,
        images=images,
        batch_size=config.batch_size,
        terms=terms,
        steps=0 if as_drawn else config.steps,
    )


def _recognized(context: MethodContext, source: PixelSource) -> float:
    """The fraction of a batch of starting inputs that the teacher gives the class aimed at.

    The probe has a stream of its own: looking does not change what is made afterwards.
    """
    generator = torch.Generator().manual_seed(0)
    sampler = TargetSampler(context.teacher.outputs.num_classes, context.device)
    targets = sampler.sample(PROBE_SIZE, 0, generator)
    with torch.no_grad():
        picked = context.teacher(source.fresh(targets, generator)).argmax(1)
    return float((picked == targets.labels).float().mean())


def _terms(
    context: MethodContext, config: RecordedConfig, gaussians: dict[str, ClassGaussians]
) -> dict[str, Weighted]:
    terms: dict[str, Weighted] = {"labels": Weighted(CrossEntropy(), config.labels_weight)}
    for tap, source in gaussians.items():
        term = FeatureTarget(context.sidecar.tap(tap), scale=source.mean_variance)
        terms["features"] = Weighted(term, config.features_weight)
    moments = _moments(context)
    if moments:
        terms["moments"] = Weighted(StandardizedMoments(moments), config.moments_weight)
    return terms


def _input_draws(context: MethodContext) -> ClassMixtures | ClassGaussians | None:
    """The richest per-class distribution of the input itself that the publisher shipped."""
    sidecar, device = context.sidecar, context.device
    at_input = [tap.id for tap in sidecar.manifest.taps if not tap.module and tap.side == "input"]
    for tap in at_input:
        for record in sidecar.find("mixture", tap=tap, scope="per_class", reduction="unit"):
            return read_mixtures(sidecar, record, device)
        for record in sidecar.find("covariance", tap=tap, scope="per_class", reduction="unit"):
            return read_gaussians(sidecar, record, device, residual=False)
    return None


def _hidden_gaussians(context: MethodContext) -> dict[str, ClassGaussians]:
    """Per-class Gaussians at the last hidden layer, by tap id; empty when none are recorded."""
    layers = [tap for tap in context.sidecar.manifest.taps if tap.module]
    if not any(tap.side == "input" for tap in layers):
        return {}
    tap = last_hidden_tap(layers)
    records: list[StatisticRecord] = []
    for kind in ("covariance", "moments"):
        records += context.sidecar.find(kind, tap=tap.id, scope="per_class", reduction="unit")
    return {tap.id: read_gaussians(context.sidecar, records[0], context.device)} if records else {}


def _moments(context: MethodContext) -> tuple[RecordedMoments, ...]:
    """Every moments record, class-wise and global, as something to compare a batch with."""
    return tuple(
        RecordedMoments.read(context.sidecar, record, context.device)
        for record in context.sidecar.find("moments")
    )


def _start(
    context: MethodContext, config: RecordedConfig, drawn: ClassMixtures | ClassGaussians | None
) -> Start:
    if drawn is None:
        return gaussian_start(context.shape, context.device, std=config.start_std, vary=True)

    def start(targets: Targets, generator: torch.Generator) -> torch.Tensor:
        return drawn.sample(targets.labels, generator).reshape(-1, *context.shape)

    return start


def _bounds(context: MethodContext) -> tuple[torch.Tensor, torch.Tensor]:
    low, high = valid_bounds(context.teacher.inputs)
    return low.to(context.device), high.to(context.device)
