"""FastDFKD (Fang et al. 2022)."""

from __future__ import annotations

from pydantic import Field

from dfkd_meta.synthesis.methods.cmi import PoolConfig, shift_and_flip
from dfkd_meta.synthesis.methods.deep_inversion import (
    STATISTICS,
    batch_statistics,
    has_batchnorm,
    statistics_notes,
)
from dfkd_meta.synthesis.recipe import MethodContext, Recipe, Weighted, method
from dfkd_meta.synthesis.rounds import Rounds
from dfkd_meta.synthesis.sources.meta import MetaSource, Update
from dfkd_meta.synthesis.sources.networks import make_generator
from dfkd_meta.synthesis.targets import TargetSampler
from dfkd_meta.synthesis.terms.adversarial import AgreementDivergence
from dfkd_meta.synthesis.terms.labels import CrossEntropy
from dfkd_meta.synthesis.terms.moments import MomentumNorms

RATES = {2: (0.015, 0.05), 5: (0.01, 0.05), 10: (0.006, 0.05)}  # generator, latents


class FastDFKDConfig(PoolConfig):
    """The published weights for CIFAR-10; sizes and paces for a CPU.

    ``inner_steps`` is 2, 5 or 10 in the paper; learning rates that are not given are those of the
    nearest of these. The meta step is taken with ``learning_rate * inner_steps``. A run on a CPU
    has tens of batches, the published one 220, so a batch moves more: rates three to five times the
    published (generator 5e-3, 3e-3, 2e-3; latents 0.015, 0.01, 0.01), momentum 0.5 for 0.9.
    ``reset_after`` batches after the warm-up the first layers start afresh (0: never). Published
    besides: batches of 256, 400 student steps per batch, 20 batches of warm-up, width 64.
    """

    student_steps: int = Field(50, ge=1)
    inner_steps: int = Field(5, ge=1)
    update: Update = "fomaml"
    learning_rate: float | None = Field(None, gt=0)
    latent_rate: float | None = Field(None, gt=0)
    bn_weight: float = Field(10.0, ge=0)
    oh_weight: float = Field(0.4, ge=0)
    adv_weight: float = Field(1.1, ge=0)
    momentum: float = Field(0.5, ge=0, lt=1)
    reset_after: int = Field(120, ge=0)

    @property
    def rates(self) -> tuple[float, float]:
        """Learning rates of generator and latents."""
        nearest = min(RATES, key=lambda steps: abs(steps - self.inner_steps))
        generator, latents = RATES[nearest]
        return self.learning_rate or generator, self.latent_rate or latents


@method(
    "fast_dfkd",
    source="Fang et al. 2022 (Up to 100x Faster Data-Free Knowledge Distillation)",
    config=FastDFKDConfig,
    needs=(STATISTICS,),
    in_rounds=True,
)
def fast_dfkd(context: MethodContext, config: FastDFKDConfig) -> Recipe:
    """BatchNorm + one-hot + adversarial, by a few steps from what a meta-generator has learned.

    As in the published code the batch of the lowest loss among the inner steps is kept, before the
    last update is seen. Its classes are random, here balanced.
    """
    learning_rate, latent_rate = config.rates
    statistics = MomentumNorms(
        batch_statistics(context), config.momentum, relative=not has_batchnorm(context)
    )
    module = make_generator(
        config.latent, context.teacher.inputs, config.width, context.generator, context.device
    )
    source = MetaSource(
        module,
        config.latent,
        learning_rate=learning_rate,
        latent_rate=latent_rate,
        meta_rate=learning_rate * config.inner_steps,
        update=config.update,
        reset_at=config.warm_up + config.reset_after if config.reset_after else None,
    )
    return Recipe(
        targets=TargetSampler(context.classes, context.device),
        source=source,
        images=config.batch_size,
        batch_size=config.batch_size,
        terms={
            "bn": Weighted(statistics, config.bn_weight),
            "oh": Weighted(CrossEntropy(), config.oh_weight),
            "adv": Weighted(AgreementDivergence(), config.adv_weight),
        },
        steps=config.inner_steps,
        augment=shift_and_flip(context, config),
        mirrored=config.flip,
        rounds=Rounds(config.student_steps, warm_up=config.warm_up, capacity=config.capacity),
        keep_best=True,
        notes=statistics_notes(context),
    )
