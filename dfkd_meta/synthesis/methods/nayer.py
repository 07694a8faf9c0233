"""NAYER without its language model (Tran et al. 2024)."""

from __future__ import annotations

from pydantic import Field

from dfkd_meta.synthesis.methods.cmi import PoolConfig, shift_and_flip
from dfkd_meta.synthesis.methods.deep_inversion import (
    STATISTICS,
    statistic_norms,
    statistics_notes,
)
from dfkd_meta.synthesis.recipe import MethodContext, Recipe, Weighted, method
from dfkd_meta.synthesis.rounds import Rounds
from dfkd_meta.synthesis.sources.label_embedding import LabelEmbeddingSource, spread_embeddings
from dfkd_meta.synthesis.sources.networks import make_generator
from dfkd_meta.synthesis.targets import TargetSampler
from dfkd_meta.synthesis.terms.adversarial import AgreementDivergence
from dfkd_meta.synthesis.terms.labels import CrossEntropy


class NAYERConfig(PoolConfig):
    """Near FastDFKD's weights (one-hot 0.4, adversarial 1.1), but a lighter BatchNorm term.

    With the tenfold BatchNorm weight of FastDFKD inputs are hardly of the class aimed at.

    ``life`` is the number of batches a generator lives. Sizes are for a CPU; published: 40 steps
    per batch of 400, learning rate 4e-3, two batches per epoch and a new generator every 10 epochs,
    latents of 1,000, embeddings of 512.
    """

    steps: int = Field(20, ge=0)
    learning_rate: float = Field(4e-3, gt=0)
    life: int = Field(10, ge=1)
    embedding: int = Field(64, ge=1)
    bn_weight: float = Field(1.0, ge=0)
    oh_weight: float = Field(0.5, ge=0)
    adv_weight: float = Field(1.3, ge=0)


@method(
    "nayer",
    source="Tran et al. 2024 (NAYER), with fixed embeddings in place of CLIP's",
    config=NAYERConfig,
    needs=(STATISTICS,),
    in_rounds=True,
)
def nayer(context: MethodContext, config: NAYERConfig) -> Recipe:
    """BatchNorm + one-hot + adversarial, by a generator of label embeddings behind a noisy layer.

    The published embeddings are CLIP's of "a image of <class>", normalized over the batch; here
    each class has a seeded random direction, orthogonal to the others where there is room, which
    needs neither a language model nor names of classes and no normalization.
    """
    classes = context.teacher.outputs.num_classes
    embeddings = spread_embeddings(classes, config.embedding, context.generator)
    module = make_generator(
        config.latent, context.teacher.inputs, config.width, context.generator, context.device
    )
    source = LabelEmbeddingSource(
        module,
        embeddings.to(context.device),
        config.latent,
        learning_rate=config.learning_rate,
        life=config.life,
    )
    return Recipe(
        targets=TargetSampler(context.classes, context.device),
        source=source,
        images=config.batch_size,
        batch_size=config.batch_size,
        terms={
            "bn": Weighted(statistic_norms(context), config.bn_weight),
            "oh": Weighted(CrossEntropy(), config.oh_weight),
            "adv": Weighted(AgreementDivergence(), config.adv_weight),
        },
        steps=config.steps,
        augment=shift_and_flip(context, config),
        mirrored=config.flip,
        rounds=Rounds(config.student_steps, warm_up=config.warm_up, capacity=config.capacity),
        keep_best=True,
        notes=statistics_notes(context),
    )
