"""Data-Free Learning of student networks (Chen et al. 2019)."""

from __future__ import annotations

from pydantic import Field

from dfkd_meta.config import Config
from dfkd_meta.errors import TeacherError
from dfkd_meta.sidecar import Tap
from dfkd_meta.synthesis.recipe import MethodContext, Recipe, Weighted, method
from dfkd_meta.synthesis.rounds import Rounds
from dfkd_meta.synthesis.sources.generator import GeneratorSource
from dfkd_meta.synthesis.sources.networks import make_generator
from dfkd_meta.synthesis.targets import TargetSampler
from dfkd_meta.synthesis.terms.labels import ArgmaxCrossEntropy
from dfkd_meta.synthesis.terms.outputs import ActivationNorm, Balance
from dfkd_meta.teachers import default_taps, last_hidden_tap


class OnlineConfig(Config):
    """What DAFL, DFQ and ZSKT share: one generator that learns over the whole run.

    After each of its steps, on a batch of ``batch_size``, the student takes ``student_steps``, on
    the outputs so far (the latest ``capacity``), or with ``fresh`` on new outputs at each step as
    in the DataFree port (DAFL's and ZSKT's authors show it the batch that the generator made).
    ``width`` and ``latent`` size the generator; ``standardized`` gives its outputs mean 0 and
    variance 1 over a batch, as DAFL's has, instead of a sigmoid onto the range.
    """

    batch_size: int = Field(256, ge=2)
    student_steps: int = Field(5, ge=1)
    fresh: bool = False
    capacity: int = Field(60_000, ge=2)
    latent: int = Field(100, ge=1)
    width: int = Field(8, ge=1)
    learning_rate: float = Field(3e-3, gt=0)
    standardized: bool = True


class DaflConfig(OnlineConfig):
    """The published weights, but the balance weighs more: 5 in nats.

    The published code's 5 is in log10, which makes 2.17 in nats.
    """

    oh_weight: float = Field(1.0, ge=0)
    balance_weight: float = Field(5.0, ge=0)
    act_weight: float = Field(0.1, ge=0)


def online_generator(context: MethodContext, config: OnlineConfig) -> GeneratorSource:
    """The generator of an online method, with fresh weights."""
    inputs = context.teacher.inputs
    module = make_generator(
        config.latent,
        inputs,
        config.width,
        context.generator,
        context.device,
        standardized=config.standardized,
    )
    return GeneratorSource(module, config.latent, learning_rate=config.learning_rate)


def activation_terms(context: MethodContext, weight: float) -> dict[str, Weighted]:
    """The activation term at the last hidden layer; nothing for a teacher without one."""
    try:
        tap: Tap = last_hidden_tap(default_taps(context.teacher))
    except TeacherError:
        return {}
    return {"act": Weighted(ActivationNorm(tap), weight)}


@method("dafl", source="Chen et al. 2019, eq. 3-7", config=DaflConfig, in_rounds=True)
def dafl(context: MethodContext, config: DaflConfig) -> Recipe:
    """One-hot + information entropy + activation, by a generator that learns over the whole run.

    Where the published code differs from the paper or from usual practice: the entropy is in log10
    there (here nats); BatchNorm in its generator has an eps of 0.8 by a slip (here 1e-5); its
    outputs are normalized but not bounded (here they stay within the range of real inputs); the
    generator's learning rate on MNIST is 0.2, at which it dies for small batches (its issue 6).
    """
    return Recipe(
        targets=TargetSampler(context.classes, context.device),
        source=online_generator(context, config),
        images=config.batch_size,
        batch_size=config.batch_size,
        terms={
            "oh": Weighted(ArgmaxCrossEntropy(), config.oh_weight),
            "balance": Weighted(Balance(), config.balance_weight),
            **activation_terms(context, config.act_weight),
        },
        steps=1,
        keep_best=True,  # of one step: the inputs that the loss was taken on, not rendered again
        rounds=Rounds(config.student_steps, fresh=config.fresh, capacity=config.capacity),
        labeled=False,
    )
