"""Data-free quantization and distillation with adversarial generators (Choi et al. 2020)."""

from __future__ import annotations

from pydantic import Field

from dfkd_meta.synthesis.methods.dafl import OnlineConfig, online_generator
from dfkd_meta.synthesis.methods.deep_inversion import (
    STATISTICS,
    batch_statistics,
    statistics_notes,
)
from dfkd_meta.synthesis.recipe import MethodContext, Recipe, Weighted, method
from dfkd_meta.synthesis.rounds import Rounds
from dfkd_meta.synthesis.targets import TargetSampler
from dfkd_meta.synthesis.terms.adversarial import AdversarialDivergence
from dfkd_meta.synthesis.terms.gaussian_divergence import GaussianDivergence
from dfkd_meta.synthesis.terms.outputs import Balance, InstanceEntropy


class DfqConfig(OnlineConfig):
    """``warm_up`` batches are made before there is a student to play against.

    Weights are those of the DataFree port, but for the balance (20 there).
    """

    warm_up: int = Field(20, ge=0)
    adv_weight: float = Field(1.0, ge=0)
    bn_weight: float = Field(1.0, ge=0)
    oh_weight: float = Field(1.0, ge=0)
    balance_weight: float = Field(5.0, ge=0)


@method(
    "dfq", source="Choi et al. 2020, eq. 3-8", config=DfqConfig, needs=(STATISTICS,), in_rounds=True
)
def dfq(context: MethodContext, config: DfqConfig) -> Recipe:
    """Adversarial KL + BatchNorm statistics + instance entropy + batch entropy, by a generator.

    There is no official code. The paper's forms are followed: a Gaussian divergence for the
    BatchNorm statistics (the DataFree port: DeepInversion's norms) and the entropy of each
    prediction (the port: cross-entropy with its argmax); one generator, where the paper also tries
    several. Recorded global moments stand in for a teacher without BatchNorm.
    """
    return Recipe(
        targets=TargetSampler(context.classes, context.device),
        source=online_generator(context, config),
        images=config.batch_size,
        batch_size=config.batch_size,
        terms={
            "adv": Weighted(AdversarialDivergence(), config.adv_weight),
            "bn": Weighted(GaussianDivergence(batch_statistics(context)), config.bn_weight),
            "oh": Weighted(InstanceEntropy(), config.oh_weight),
            "balance": Weighted(Balance(), config.balance_weight),
        },
        steps=1,
        keep_best=True,  # of one step: the inputs that the loss was taken on, not rendered again
        rounds=Rounds(
            config.student_steps,
            fresh=config.fresh,
            warm_up=config.warm_up,
            capacity=config.capacity,
        ),
        labeled=False,
        notes=statistics_notes(context),
    )
