"""Zero-shot knowledge transfer via adversarial belief matching (Micaelli & Storkey 2019)."""

from __future__ import annotations

from pydantic import Field

from dfkd_meta.synthesis.methods.dafl import OnlineConfig, online_generator
from dfkd_meta.synthesis.recipe import MethodContext, Recipe, Weighted, method
from dfkd_meta.synthesis.rounds import Rounds
from dfkd_meta.synthesis.targets import TargetSampler
from dfkd_meta.synthesis.terms.adversarial import AdversarialDivergence
from dfkd_meta.teachers import default_taps


class ZsktConfig(OnlineConfig):
    """The student takes 10 steps on each batch, as published; ``attention_weight`` is its beta.

    ``capacity``, where it is not given, is one batch.
    """

    student_steps: int = Field(10, ge=1)
    capacity: int = Field(256, ge=2)
    adv_weight: float = Field(1.0, ge=0)
    attention_weight: float = Field(250.0, ge=0)


def has_maps(context: MethodContext) -> bool:
    """Whether some layer of the teacher makes maps of more than one position."""
    inside = [tap for tap in default_taps(context.teacher) if tap.module]
    return any(tap.axes == ["c", "h", "w"] and tap.shape[1] * tap.shape[2] > 1 for tap in inside)


@method(
    "zskt",
    source="Micaelli & Storkey 2019, eq. 1-2, algorithm 1",
    config=ZsktConfig,
    in_rounds=True,
)
def zskt(context: MethodContext, config: ZsktConfig) -> Recipe:
    """One game: the generator looks for inputs on which the student errs, the student learns them.

    The student learns from one batch at a time, by KD and attention transfer. The published code
    averages the KL over classes too, which makes the attention weigh more by their number, and
    clips gradients; its generator's last operation is a BatchNorm, so that pixels are not bounded.
    Here they stay within the range of real inputs. The student's KL is that of all methods, at
    ``training.temperature`` T = 4 and times T^2, where the paper has T = 1; and the generator's
    step sees the student in evaluation mode, where the published code keeps it in training mode.
    """
    attentive = config.attention_weight > 0 and has_maps(context)
    losses = {"kd": 1.0, "attention": config.attention_weight} if attentive else {"kd": 1.0}
    kept = config.capacity if "capacity" in config.model_fields_set else config.batch_size
    flat = "the teacher has no maps `c h w`: the student learns without attention transfer"
    return Recipe(
        targets=TargetSampler(context.classes, context.device),
        source=online_generator(context, config),
        images=config.batch_size,
        batch_size=config.batch_size,
        terms={"adv": Weighted(AdversarialDivergence(), config.adv_weight)},
        steps=1,
        rounds=Rounds(config.student_steps, fresh=config.fresh, capacity=kept),
        labeled=False,
        student_losses=losses,
        notes=() if attentive or not config.attention_weight else (flat,),
    )
