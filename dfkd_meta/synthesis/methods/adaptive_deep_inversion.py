"""Adaptive DeepInversion (Yin et al. 2020)."""

from __future__ import annotations

import dataclasses

from pydantic import Field

from dfkd_meta.synthesis.methods.deep_inversion import (
    STATISTICS,
    DeepInversionConfig,
    deep_inversion,
)
from dfkd_meta.synthesis.recipe import MethodContext, Recipe, Weighted, method
from dfkd_meta.synthesis.rounds import Rounds
from dfkd_meta.synthesis.terms.adversarial import JensenShannon


class AdaptiveDeepInversionConfig(DeepInversionConfig):
    """DeepInversion's, and the turns that synthesis and student take.

    After ``warm_up`` batches, one batch is made per ``student_steps`` student steps (``images`` is
    not used); ``adv_weight`` is that of the competition term, which is off in the warm-up. The
    first batch after it meets a student that has taken no step yet.
    """

    adv_weight: float = Field(1.0, ge=0)
    student_steps: int = Field(200, ge=1)
    warm_up: int = Field(4, ge=1)


@method(
    "adaptive_deep_inversion",
    source="Yin et al. 2020, eq. 2-4, 7-8",
    config=AdaptiveDeepInversionConfig,
    needs=(STATISTICS,),
    in_rounds=True,
)
def adaptive_deep_inversion(context: MethodContext, config: AdaptiveDeepInversionConfig) -> Recipe:
    """DeepInversion + Jensen-Shannon competition: images that the student does not know yet.

    The paper makes one more data set per round and trains the student on all of them; the released
    code has no student training, and its demonstration competes with a pretrained network. Here
    each batch after the warm-up is made against the student as it is by then, and joins the pool.
    """
    recipe = deep_inversion(context, config)
    return dataclasses.replace(
        recipe,
        terms={**recipe.terms, "adv": Weighted(JensenShannon(), config.adv_weight)},
        rounds=Rounds(config.student_steps, warm_up=config.warm_up),
    )
