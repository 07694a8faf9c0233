"""How a network is trained: everything that a user may say about it."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from dfkd_meta.config import Config

OptimizerName = Literal["adamw", "sgd"]
Weight = Annotated[float, Field(ge=0)]


class TrainingConfig(Config):
    """How a network is trained.

    ``losses`` maps registered losses to weights (default: what the method asks for, else
    ``{kd = 1}``), ``loss_options`` their names to their options. ``pairs`` names the (teacher,
    student) layers that losses on features compare; by default they are matched by resolution.

    ``shift`` moves each image by up to that fraction of its size (at least one pixel, 0 for none);
    ``jitter``, a number of pixels, takes its place when given. ``flip`` mirrors each image half of
    the time; None does so if the method is told that inputs may be mirrored, or if a teacher gives
    at least 70 % of the first batch the same class mirrored (85 % on CIFAR-10, 40 % on digits;
    ``run.json`` says what came of it). ``mixup`` blends that share of a batch pairwise and
    ``cutmix`` puts a rectangle of another image into that share of it, counted from the other end,
    labels too; both need a loss with a teacher, who answers for what comes of it.

    ``optimizer`` is ``adamw`` or ``sgd``; None is SGD for weights before a BatchNorm, which have no
    scale, and with them for biases and BatchNorm's own weights, and AdamW for others. With an
    optimizer go a ``learning_rate`` and a ``weight_decay``; None are its own in
    ``optimization.py``, and ``run.json`` says what was taken. The rate follows one cycle (Smith &
    Topin 2018). ``max_norm`` bounds the norm of each hidden unit's incoming weights; ``ema`` makes
    the student the moving average of its weights with that decay. ``dropout`` says whether the
    network's dropout layers are at work; None leaves them out where a teacher answers, whose soft
    labels are regularization enough (Hinton et al. 2015, section 3).
    """

    losses: dict[str, Weight] | None = None
    loss_options: dict[str, dict[str, Any]] = Field(default_factory=dict)
    pairs: list[tuple[str, str]] | None = None
    steps: int = Field(4_000, ge=1)
    batch_size: int = Field(256, ge=2, le=2**20)
    optimizer: OptimizerName | None = None
    learning_rate: float | None = Field(None, gt=0)
    weight_decay: float | None = Field(None, ge=0)
    temperature: float = Field(4.0, gt=0)
    shift: float = Field(1 / 16, ge=0, lt=0.5)
    jitter: int | None = Field(None, ge=0, le=2**10)
    flip: bool | None = None
    mixup: float = Field(0.5, ge=0, le=1)
    cutmix: float = Field(0.5, ge=0, le=1)
    dropout: bool | None = None
    max_norm: float | None = Field(None, gt=0)
    ema: float | None = Field(None, gt=0, lt=1)

    @model_validator(mode="after")
    def _rate_of_what(self) -> Self:
        if self.optimizer is None and (self.learning_rate, self.weight_decay) != (None, None):
            raise ValueError(
                "learning_rate and weight_decay are those of an optimizer: set that too, to adamw "
                "or sgd"
            )
        return self
