"""The default method: whatever the sidecar records, used together."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import chain

import torch
from pydantic import Field

from dfkd_meta.config import Config
from dfkd_meta.synthesis.draws import Draws, drawn_along, drawn_start, plain_draws, read_draws
from dfkd_meta.synthesis.gaussians import (
    ClassGaussians,
    JointMixtures,
    read_gaussians,
    read_joint,
)
from dfkd_meta.synthesis.methods.deep_inversion import STATISTICS, batch_statistics
from dfkd_meta.synthesis.methods.lopes_top_layer import TOP, top_record, top_target
from dfkd_meta.synthesis.recipe import SHARE, MethodContext, Query, Recipe, Weighted, method
from dfkd_meta.synthesis.rounds import Rounds
from dfkd_meta.synthesis.scales import scaled_inputs
from dfkd_meta.synthesis.sources.pixels import PixelSource, Start, gaussian_start, white_start
from dfkd_meta.synthesis.spectra import natural_inputs
from dfkd_meta.synthesis.targets import Targets, TargetSampler, every_class
from dfkd_meta.synthesis.terms.adversarial import AgreementDivergence
from dfkd_meta.synthesis.terms.features import FeatureTarget, FeatureTargets
from dfkd_meta.synthesis.terms.labels import CrossEntropy
from dfkd_meta.synthesis.terms.moments import StandardizedMoments
from dfkd_meta.synthesis.terms.recorded_moments import RecordedMoments
from dfkd_meta.teachers import last_hidden_tap

BETAS = (0.5, 0.99)  # of Adam: steps are few, so its memory is short
DRAWN_NUMBERS = 2**25  # in the inputs drawn together: 128 MiB of float32
PROBE_SIZE = 500  # draws shown to the teacher before trusting them: a standard error under 1.4 %


class RecordedConfig(Config):
    """One set of defaults for every data set. Student and synthesis take turns.

    Draws from input-level records are used as they are when the teacher recognizes them as well as
    the data: gives them the class they were drawn for at least ``trust`` times as often (98 % and
    99 % on digits, 89 % and 91 % on clothes, 31 % and 98 % on photographs). They cost next to
    nothing, so there are ``drawn_batch`` new ones (fewer of large inputs) every ``drawn_turn``
    student steps, and none stays.

    Otherwise ``batch_size`` inputs (fewer if together they held more than ``batch_numbers``
    numbers) are refined for ``steps`` steps for every ``student_steps`` student steps (under a
    budget: in ``share`` of the time) and ``warm_up`` times more, all before the first student step
    unless ``adversarial`` asks the student; the latest ``capacity`` stay. They start as noise with
    the recorded spectrum and values, each with a contrast of its own (which completes draws, where
    there are any), and move in the coordinates of the spectrum, by Adam at ``learning_rate``.
    Without a spectrum they do so in units of each feature's spread, as a BatchNorm before all
    layers or moments of the input have it, or else start as noise of std up to ``start_std``.
    ``features`` pulls each to a draw of its own: at a deep map and the last hidden layer where a
    joint mixture describes them (with the input, the draw also says what to start from), else at
    the last hidden layer, or at the logits if they are all there is.
    ``moments`` matches the channels' recorded moments class by class, ``pooled`` those of their
    means over positions (by how much inputs differ from one another), ``layout`` those of every
    unit where there are positions; ``overall`` matches moments over all classes where none are
    recorded by class, or only at layers without positions, and these have some. ``labels`` is
    cross-entropy (None: 1 where there is nothing to draw from, else 0), ``adversarial`` asks for
    inputs on which the student is still unlike the teacher. So that moments mean something, classes
    of fewer than ``class_samples`` rows in a batch are pooled.
    """

    trust: float = Field(0.9, ge=0)
    drawn_batch: int = Field(2_048, ge=2)
    drawn_turn: int = Field(8, ge=1)
    batch_size: int = Field(250, ge=2)
    steps: int = Field(60, ge=0)
    student_steps: int = Field(80, ge=1)
    share: float = Field(SHARE, gt=0, lt=1)
    warm_up: int = Field(1, ge=0)
    capacity: int = Field(60_000, ge=2)
    class_samples: int = Field(25, ge=2)
    batch_numbers: int = Field(2**22, ge=1)
    learning_rate: float = Field(0.4, gt=0)
    contrast: float = Field(0.5, ge=0)
    start_std: float = Field(1.0, gt=0)
    features_weight: float = Field(0.3, ge=0)
    moments_weight: float = Field(1.0, ge=0)
    pooled_weight: float = Field(1.0, ge=0)
    layout_weight: float = Field(1.0, ge=0)
    overall_weight: float = Field(1.0, ge=0)
    adversarial_weight: float = Field(0.0, ge=0)
    labels_weight: float | None = Field(None, ge=0)


@method(
    "recorded",
    source="this project: class-wise moments (Yin et al. 2020, eq. 4, per class) with draws at the "
    "last hidden layer (Lopes et al. 2017)",
    config=RecordedConfig,
    needs=(
        (
            Query("mixture", scope="per_class"),
            Query("covariance", scope="per_class"),
            Query("moments"),
            Query("batchnorm"),
            TOP,
        ),
    ),
    in_rounds=True,
)
def recorded(context: MethodContext, config: RecordedConfig) -> Recipe:
    """Draws of the input if the teacher recognizes them, else inputs that match every record."""
    draws = read_draws(context.sidecar, context.device)
    if draws is not None:
        source = PixelSource(drawn_start(context, draws))
        recognized = _recognized(context, source)
        if recognized >= config.trust * _recognized_data(context):
            size = context.fitting(config.drawn_batch, DRAWN_NUMBERS)
            return Recipe(
                targets=TargetSampler(context.classes, context.device),
                source=source,
                images=size,
                batch_size=size,
                rounds=Rounds(config.drawn_turn, capacity=size),
                notes=(
                    f"the teacher recognizes {recognized:.0%} of the inputs drawn from the "
                    "sidecar, which are used as they are (options.trust; no other option but "
                    "drawn_batch and drawn_turn counts)",
                ),
            )
    return _refined(context, config, draws)


@dataclass(frozen=True)
class Aim:
    """What each input is pulled to: distances at some layers, and what its draws there come from.

    With ``joint`` one draw gives all of them, else ``gaussians`` do, by tap id.
    """

    distances: tuple[FeatureTarget, ...] = ()
    gaussians: dict[str, ClassGaussians] = field(default_factory=dict)
    joint: JointMixtures | None = None


def _recognized(context: MethodContext, source: PixelSource) -> float:
    """The fraction of a batch of starting inputs that the teacher gives the class aimed at.

    The probe has a stream of its own: looking does not change what is made afterwards.
    """
    generator = torch.Generator().manual_seed(0)
    targets = every_class(PROBE_SIZE, context.classes, context.device)
    right = 0
    with torch.no_grad():
        for labels in targets.labels.split(context.fitting(PROBE_SIZE)):  # type: ignore[no-untyped-call]
            drawn = source.fresh(Targets(labels), generator)
            right += int((context.teacher(drawn).argmax(1) == labels).sum())
    return right / PROBE_SIZE


def _recognized_data(context: MethodContext) -> float:
    """The same fraction of the data themselves, as the recorded logits tell; 1 if none do."""
    if not TOP.found(context.sidecar):
        return 1.0
    logits = read_gaussians(context.sidecar, top_record(context), context.device)
    labels = every_class(PROBE_SIZE, context.classes, context.device).labels
    drawn = logits.sample(labels, torch.Generator().manual_seed(0))
    return float((drawn.argmax(1) == labels).float().mean())


def _refined(context: MethodContext, config: RecordedConfig, draws: Draws | None) -> Recipe:
    """Inputs optimized to match hidden-layer records."""
    aim = _aim(context)
    size = context.fitting(config.batch_size, config.batch_numbers)
    sampler = TargetSampler(context.classes, context.device, aim.gaussians, joint=aim.joint)
    return Recipe(
        targets=sampler,
        source=_free_inputs(context, config, _input_draw(context, draws, aim.joint), sampler),
        images=size,
        batch_size=size,
        terms=_terms(context, config, aim),
        steps=config.steps,
        rounds=Rounds(
            config.student_steps,
            warm_up=config.warm_up,
            capacity=config.capacity,
            share=config.share,
            ahead=not config.adversarial_weight,
        ),
    )


def _input_draw(
    context: MethodContext, draws: Draws | None, joint: JointMixtures | None
) -> Start | None:
    """What is known of an input before it moves: the part of its joint draw, or a draw of its own.

    Only the former fits the activations that the input is pulled to.
    """
    for tap in map(context.sidecar.tap, joint.sizes if joint else ()):
        if tap.is_model_input:
            return drawn_along(context, tap)
    return None if draws is None else plain_draws(context, draws)


def _free_inputs(
    context: MethodContext, config: RecordedConfig, draw: Start | None, sampler: TargetSampler
) -> PixelSource:
    """Inputs as parameters, in coordinates of their recorded spectrum, or else spread."""
    start = white_start(context.shape, context.device, config.contrast)
    rendering = natural_inputs(context, start, draw, sampler) or scaled_inputs(context)
    bounds = None
    if rendering is None:
        start = gaussian_start(context.shape, context.device, std=config.start_std, vary=True)
        bounds = context.bounds
    return PixelSource(
        start,
        bounds,
        config.learning_rate,
        betas=BETAS,
        rendering=rendering,
        decay_over=config.steps,
    )


def _terms(context: MethodContext, config: RecordedConfig, aim: Aim) -> dict[str, Weighted]:
    labels = config.labels_weight
    if labels is None:
        labels = 0.0 if aim.distances else 1.0
    terms: dict[str, Weighted] = {
        "labels": Weighted(CrossEntropy(), labels),
        "adversarial": Weighted(AgreementDivergence(), config.adversarial_weight),
    }
    if aim.distances:
        terms["features"] = Weighted(FeatureTargets(aim.distances), config.features_weight)
    weights = {
        "moments": config.moments_weight,
        "pooled": config.pooled_weight,
        "layout": config.layout_weight,
        "overall": config.overall_weight,
    }
    for name, records in _moments(context).items():
        if records:
            moments = StandardizedMoments(tuple(records), config.class_samples)
            terms[name] = Weighted(moments, weights[name])
    return terms


def _moments(context: MethodContext) -> dict[str, list[RecordedMoments]]:
    """The records to compare a batch with, by term: class by class, or else over all classes."""
    sidecar, device = context.sidecar, context.device
    found: dict[str, list[RecordedMoments]] = {"moments": [], "pooled": [], "layout": []}
    for record in sidecar.find("moments", scope="per_class"):
        read = RecordedMoments.read(sidecar, record, device)
        found[_compared_as(read)].append(read)
    by_class = list(chain(*found.values()))
    if not _of_maps(by_class) and any(query.found(sidecar) for query in STATISTICS):
        overall = list(batch_statistics(context))
        if not by_class or _of_maps(overall):
            found["overall"] = overall
    if not found["pooled"]:
        records = sidecar.find("moments", scope="global", reduction="pooled")
        read_all = (RecordedMoments.read(sidecar, record, device) for record in records)
        found["pooled"] = [read for read in read_all if _compared_as(read) == "pooled"]
    return found


def _of_maps(records: list[RecordedMoments]) -> bool:
    """Whether some are of a layer with positions."""
    return any(len(record.tap.shape) > 1 for record in records)


def _compared_as(read: RecordedMoments) -> str:
    """The term that class-wise moments belong to: without positions all reductions are alike."""
    if len(read.tap.shape) == 1:
        return "moments"
    return {"unit": "layout", "pooled": "pooled"}.get(read.reduction, "moments")


def _aim(context: MethodContext) -> Aim:
    """The richest there is: joint draws, else the last hidden layer, else the logits."""
    sidecar, device = context.sidecar, context.device
    if (joint := read_joint(sidecar, device)) is not None:
        taps = [tap for tap in map(sidecar.tap, joint.sizes) if not tap.is_model_input]
        scales = [(tap, joint.mean_variance(tap.id)) for tap in taps]
        if near := tuple(FeatureTarget(tap, scale=scale) for tap, scale in scales if scale):
            return Aim(near, joint=joint)
    layers = [tap for tap in sidecar.manifest.taps if tap.module]
    if any(tap.side == "input" for tap in layers):
        tap = last_hidden_tap(layers)
        for kind in ("covariance", "moments"):
            for record in sidecar.find(kind, tap=tap.id, scope="per_class", reduction="unit"):
                gaussians = read_gaussians(sidecar, record, device)
                term = FeatureTarget(tap, scale=gaussians.mean_variance)
                return Aim((term,), {tap.id: gaussians})
    if TOP.found(sidecar):
        record = top_record(context)
        gaussians = read_gaussians(sidecar, record, device)
        term = replace(top_target(context, record), rectify=False, scale=gaussians.mean_variance)
        return Aim((term,), {term.tap.id: gaussians})
    return Aim()
