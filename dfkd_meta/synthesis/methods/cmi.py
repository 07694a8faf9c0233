"""Contrastive model inversion (Fang et al. 2021)."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from dfkd_meta.augmentation import flip_some, reach_of, shift_each
from dfkd_meta.config import Config
from dfkd_meta.synthesis.methods.deep_inversion import (
    STATISTICS,
    statistic_norms,
    statistics_notes,
)
from dfkd_meta.synthesis.recipe import SHARE, Augment, MethodContext, Recipe, Weighted, method
from dfkd_meta.synthesis.rounds import Rounds
from dfkd_meta.synthesis.sources.inverted import InvertedSource
from dfkd_meta.synthesis.sources.networks import make_generator
from dfkd_meta.synthesis.targets import TargetSampler
from dfkd_meta.synthesis.terms.adversarial import AgreementDivergence
from dfkd_meta.synthesis.terms.contrastive import InstanceContrast
from dfkd_meta.synthesis.terms.labels import CrossEntropy


class PoolConfig(Config):
    """What CMI, FastDFKD and NAYER share: a pool that grows while the student learns from it.

    One batch of ``batch_size`` inputs per ``student_steps`` student steps, after ``warm_up``
    batches without a student; the pool keeps the latest ``capacity`` inputs. ``width`` is the
    generator's. Before the networks see them, inputs
    move by up to ``shift`` of their size (published: 4 of 32 pixels) and are mirrored half the time
    if ``flip`` is set (published: always; digits have a left and a right).
    """

    batch_size: int = Field(200, ge=2)
    student_steps: int = Field(100, ge=1)
    warm_up: int = Field(4, ge=0)
    capacity: int = Field(60_000, ge=1)
    latent: int = Field(256, ge=1)
    width: int = Field(8, ge=1)
    shift: float = Field(1 / 8, ge=0, lt=0.5)
    flip: bool = False


class CMIConfig(PoolConfig):
    """The published weights for CIFAR-10; sizes for a CPU.

    Under a budget ``share`` of the time makes inputs: a batch takes as long as hundreds of student
    steps. Published: 200 steps per batch of 256, learning rate 1e-3, width 64, 400 student steps
    per batch, 4,096 rows drawn from a bank of 40,960.
    """

    steps: int = Field(40, ge=0)
    share: float = Field(SHARE, gt=0, lt=1)
    learning_rate: float = Field(5e-3, gt=0)
    bn_weight: float = Field(1.0, ge=0)
    oh_weight: float = Field(1.0, ge=0)
    adv_weight: float = Field(0.5, ge=0)
    cr_weight: float = Field(0.8, ge=0)
    temperature: float = Field(0.1, gt=0)
    negatives: int = Field(512, ge=0)
    bank: int = Field(8_192, ge=1)


def shift_and_flip(context: MethodContext, config: PoolConfig) -> Augment:
    """Each input moved and mirrored for itself: the view of FastDFKD's and CMI's code."""
    reach = reach_of(context.shape, config.shift)

    def augment(images: Tensor, generator: torch.Generator) -> Tensor:
        images = shift_each(images, reach, generator)
        return flip_some(images, generator) if config.flip else images

    return augment


@method(
    "cmi",
    source="Fang et al. 2021 (Contrastive Model Inversion for Data-Free Knowledge Distillation)",
    config=CMIConfig,
    needs=(STATISTICS,),
    in_rounds=True,
)
def cmi(context: MethodContext, config: CMIConfig) -> Recipe:
    """BatchNorm + one-hot + adversarial + contrastive, by a generator made anew for each batch.

    The places of the contrastive feature are those of the BatchNorm term. As in the published code
    the batch of the lowest loss is kept, and the adversarial term counts agreement only; its
    classes are random and sorted, here balanced. Unlike there, a generator made anew has PyTorch's
    initial weights (published: N(0, 0.02^2)), and the adversarial term is off in a warm-up.
    """
    statistics = statistic_norms(context)
    places = {tap.id: tap for tap in statistics.taps}
    contrast = InstanceContrast(
        context.teacher,
        tuple(places.values()),
        context.generator,
        temperature=config.temperature,
        negatives=config.negatives,
        capacity=config.bank,
        learning_rate=config.learning_rate,
        flip=config.flip,
    )
    module = make_generator(
        config.latent, context.teacher.inputs, config.width, context.generator, context.device
    )
    return Recipe(
        targets=TargetSampler(context.classes, context.device),
        source=InvertedSource(module, config.latent, learning_rate=config.learning_rate),
        images=config.batch_size,
        batch_size=config.batch_size,
        terms={
            "bn": Weighted(statistics, config.bn_weight),
            "oh": Weighted(CrossEntropy(), config.oh_weight),
            "adv": Weighted(AgreementDivergence(), config.adv_weight),
            "cr": Weighted(contrast, config.cr_weight),
        },
        steps=config.steps,
        augment=shift_and_flip(context, config),
        mirrored=config.flip,
        rounds=Rounds(
            config.student_steps,
            warm_up=config.warm_up,
            capacity=config.capacity,
            share=config.share,
        ),
        keep_best=True,
        notes=statistics_notes(context),
    )
