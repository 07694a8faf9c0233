"""The default method: everything the sidecar records, class by class, matched together."""

from __future__ import annotations

import torch
from pydantic import Field

from dfkd_meta.config import Config
from dfkd_meta.sidecar import StatisticRecord, Tap
from dfkd_meta.synthesis.gaussians import ClassGaussians, read_gaussians
from dfkd_meta.synthesis.recipe import MethodContext, Query, Recipe, Weighted, method
from dfkd_meta.synthesis.sources import PixelSource, Start, gaussian_start
from dfkd_meta.synthesis.targets import Targets, TargetSampler
from dfkd_meta.synthesis.terms.features import FeatureTarget
from dfkd_meta.synthesis.terms.labels import CrossEntropy
from dfkd_meta.synthesis.terms.moments import RecordedMoments, StandardizedMoments
from dfkd_meta.synthesis.terms.priors import TotalVariation
from dfkd_meta.teachers import last_hidden_tap, valid_bounds


class RecordedConfig(Config):
    """One set of defaults for every data set.

    Images drawn from input-level records need few steps (``drawn_steps``) and are cheap, so there
    are many of them (``drawn_images``); images that start as noise need more steps, so fewer are
    made. Weights: ``features`` pulls each image to its own draw at the last hidden layer, ``moments``
    matches the batch's moments at every tap, ``labels`` is cross-entropy. ``residual`` adds the
    pixel variance that the input factor leaves out.
    """

    drawn_images: int = Field(20_000, ge=1)
    drawn_steps: int = Field(10, ge=0)
    free_images: int = Field(10_000, ge=1)
    free_steps: int = Field(100, ge=0)
    batch_size: int = Field(500, ge=2)
    class_share: int = Field(25, ge=2)
    learning_rate: float = Field(0.05, gt=0)
    features_weight: float = Field(1.0, ge=0)
    moments_weight: float = Field(1.0, ge=0)
    labels_weight: float = Field(0.1, ge=0)
    residual: bool = False
    start_std: float = Field(1.0, gt=0)
    tv_weight: float = Field(0.0, ge=0)


@method(
    "recorded",
    source="this project: class-wise moments (Yin et al. 2020, eq. 4, per class) with draws at the "
    "last hidden layer (Lopes et al. 2017)",
    config=RecordedConfig,
    needs=(
        (
            Query("covariance", scope="per_class"),
            Query("moments", scope="per_class"),
            Query("soft_targets", scope="per_class"),
        ),
    ),
)
def recorded(context: MethodContext, config: RecordedConfig) -> Recipe:
    """Start from the richest input-level record, else noise; match every record at every tap."""
    drawn = _input_gaussians(context, config)
    gaussians = _hidden_gaussians(context)
    terms: dict[str, Weighted] = {"labels": Weighted(CrossEntropy(), config.labels_weight)}
    for tap, source in gaussians.items():
        term = FeatureTarget(context.sidecar.tap(tap), scale=_mean_variance(source))
        terms[f"features:{tap}"] = Weighted(term, config.features_weight)
    moments = _moments(context)
    if moments:
        terms["moments"] = Weighted(StandardizedMoments(moments), config.moments_weight)
    terms["tv"] = Weighted(TotalVariation(), config.tv_weight)
    images = config.drawn_images if drawn else config.free_images
    classes = context.teacher.outputs.num_classes
    # As many classes as have room in a batch, but enough that the batches together reach all.
    share = max(config.batch_size // config.class_share, -(-classes * config.batch_size // images))
    return Recipe(
        targets=TargetSampler(classes, context.device, gaussians, classes_per_batch=share),
        source=PixelSource(_start(context, config, drawn), _bounds(context)),
        images=images,
        batch_size=config.batch_size,
        terms=terms,
        steps=config.drawn_steps if drawn else config.free_steps,
        learning_rate=config.learning_rate,
    )


def _input_gaussians(context: MethodContext, config: RecordedConfig) -> ClassGaussians | None:
    """Per-class Gaussians of the input itself, if the publisher shipped them."""
    for record in context.sidecar.find("covariance", scope="per_class", reduction="unit"):
        if _is_input(context.sidecar.tap(record.taps[0])):
            return read_gaussians(context.sidecar, record, context.device, residual=config.residual)
    return None


def _is_input(tap: Tap) -> bool:
    return tap.module == "" and tap.side == "input"


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


def _mean_variance(source: ClassGaussians) -> float:
    """Variance of a drawn feature, averaged over groups and features: the scale of a distance."""
    if source.cholesky is not None:
        return float(source.cholesky.square().sum(2).mean())
    variance = torch.zeros_like(source.mean)
    if source.factor is not None:
        variance = variance + source.factor.square().sum(1)
    if source.residual is not None:
        variance = variance + source.residual
    return float(variance.mean())


def _start(context: MethodContext, config: RecordedConfig, drawn: ClassGaussians | None) -> Start:
    if drawn is None:
        return gaussian_start(context.shape, context.device, std=config.start_std)

    def start(targets: Targets, generator: torch.Generator) -> torch.Tensor:
        return drawn.sample(targets.labels, generator).reshape(-1, *context.shape)

    return start


def _bounds(context: MethodContext) -> tuple[torch.Tensor, torch.Tensor]:
    low, high = valid_bounds(context.teacher.inputs)
    return low.to(context.device), high.to(context.device)
