"""A method of one's own in one file: inputs between two classes, where a teacher says most.

    python examples/add_a_method.py published --eval-data digits --out student

``published`` is a folder with teacher and sidecar, or an id on the Hub. Nothing else of the package
is touched: the term and the method below are all there is to it. In the folder of this file,
``dfkd-meta distill --method add_a_method:between_classes`` does the same; from an installed package
of your own, name the module under the entry-point group ``dfkd_meta.synthesis.methods`` and it is
called ``between_classes`` everywhere.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from dfkd_meta import DfkdMetaError, DistillConfig, distill, open_data, save_run
from dfkd_meta.config import Config, load_config
from dfkd_meta.synthesis.recipe import MethodContext, Recipe, Weighted, method
from dfkd_meta.synthesis.sources.pixels import PixelSource, gaussian_start
from dfkd_meta.synthesis.targets import TargetSampler
from dfkd_meta.synthesis.terms.base import StepState, Term
from dfkd_meta.teachers import valid_bounds


@dataclass(frozen=True)
class TwoClasses(Term):
    """Cross-entropy with a share for the class aimed at, the rest for the next (nats)."""

    share: float

    def __call__(self, state: StepState) -> Tensor:
        first = state.targets.labels
        second = (first + 1) % state.logits.shape[1]
        log_p = F.log_softmax(state.logits, dim=1)
        picked = [log_p.gather(1, label[:, None]).mean() for label in (first, second)]
        return -self.share * picked[0] - (1 - self.share) * picked[1]


class BetweenClassesConfig(Config):
    """``share`` of the probability goes to the class an input is made for."""

    images: int = Field(1_000, ge=1)
    steps: int = Field(50, ge=0)
    learning_rate: float = Field(0.1, gt=0)
    share: float = Field(0.7, gt=0, le=1)


@method("between_classes", source="examples/add_a_method.py", config=BetweenClassesConfig)
def between_classes(context: MethodContext, config: BetweenClassesConfig) -> Recipe:
    """Free pixels within the range of real inputs, pulled towards two classes at once."""
    low, high = (bound.to(context.device) for bound in valid_bounds(context.teacher.inputs))
    start = gaussian_start(context.shape, context.device)
    return Recipe(
        targets=TargetSampler(context.classes, context.device),
        source=PixelSource(start, (low, high), config.learning_rate),
        images=config.images,
        batch_size=min(config.images, 250),
        terms={"classes": Weighted(TwoClasses(config.share), 1.0)},
        steps=config.steps,
    )


def main() -> None:
    """Distill with the method above and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("published")
    parser.add_argument("--factory", help="module:function, for a teacher of your own code")
    parser.add_argument("--eval-data")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", help="a folder for the student")
    given = parser.parse_args()
    config = load_config(
        DistillConfig, assignments=given.set, override={"method": "between_classes"}
    )
    evaluation = open_data(given.eval_data, split="test") if given.eval_data else None
    run = distill(given.published, config, factory=given.factory, evaluation=evaluation)
    print(f"{run.outcome.images} inputs, agreement with the teacher {100 * run.agreement:.1f} %")
    if run.accuracy is not None:
        print(f"accuracy on {run.evaluated_on}: {100 * run.accuracy:.2f} %")
    if given.out:
        save_run(run, given.out)


if __name__ == "__main__":
    try:
        main()
    except DfkdMetaError as error:
        raise SystemExit(f"error: {error}") from None
