"""Hinton, Vinyals & Dean 2015, section 3, on MNIST: what a small net learns from a large one.

    python examples/hinton_mnist.py --data mnist/

The teacher (1200-1200) is trained with dropout, max-norm and images moved by up to two pixels. One
student (800-800) is trained on the labels alone, the other with ``0.7 T^2 KL + 0.3 CE`` at T = 20,
both without any regularization. Prints test errors of the last step; nothing is chosen on the test
set. 8,000 steps each (17 passes, 12 minutes of one core) count 121, 145 and 131 errors at seed 0;
the paper, after longer training, 67, 146 and 74. Shorter, the teacher has nothing to give: 157, 152
and 172 errors with ``--steps 3000 --student-steps 2000``.

``--student-jitter 2`` moves the students' images too. (Code that uses ``nn.KLDivLoss()`` as it
stands averages over the classes as well, so its alpha of 0.7 is ``kd = 0.07`` here.)
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping

import torch
from torch import nn

from dfkd_meta.batches import SyntheticBatch, shuffled
from dfkd_meta.data import Dataset, open_data, real_pool
from dfkd_meta.distillation.config import TrainingConfig
from dfkd_meta.distillation.evaluation import accuracy
from dfkd_meta.distillation.training import fit
from dfkd_meta.producer.train import TrainConfig, train_network
from dfkd_meta.seeding import derive_seed, generator_for
from dfkd_meta.teachers import Teacher, build_model

LABELS = {"hard": 1.0}
DISTILLED = {"kd": 0.7, "hard": 0.3}
TEMPERATURE = 20.0
JITTER = 2  # pixels
MAX_NORM = 1.0  # an untrained unit has a norm of 0.58


def main() -> None:
    """Train a teacher and two students and print their test errors."""
    given = arguments().parse_args()
    torch.set_num_threads(given.threads)
    train, test = open_data(given.data, split="train"), open_data(given.data, split="test")
    teacher = train_teacher(train, given)
    report("teacher, 1200-1200, regularized", teacher.module, teacher, test)
    pool = real_pool(train, teacher.inputs)
    for name, losses in (("labels", LABELS), ("labels and teacher", DISTILLED)):
        student = train_student(teacher, pool, losses, given)
        report(f"student, 800-800, {name}", student, teacher, test)


def train_teacher(train: Dataset, given: argparse.Namespace) -> Teacher:
    """The large net on labels, strongly regularized."""
    training = TrainingConfig(
        losses=LABELS,
        steps=given.steps,
        batch_size=128,
        optimizer="adamw",
        learning_rate=1e-3,
        jitter=JITTER,
        max_norm=MAX_NORM,
        mixup=0.0,
        cutmix=0.0,
    )
    config = TrainConfig(seed=given.seed, width=given.width, training=training)
    return train_network("hinton1200", train, config)


def train_student(
    teacher: Teacher, pool: SyntheticBatch, losses: Mapping[str, float], given: argparse.Namespace
) -> nn.Module:
    """The small net on the inputs of ``pool``, without dropout or any other regularization."""
    student = build_model("hinton800", teacher.arguments, seed=derive_seed(given.seed, "student"))
    training = TrainingConfig(
        losses=dict(losses),
        steps=given.student_steps or given.steps,
        batch_size=128,
        optimizer="adamw",
        learning_rate=1e-3,
        temperature=TEMPERATURE,
        jitter=given.student_jitter,
        mixup=0.0,
        cutmix=0.0,
        dropout=False,
    )
    generator = generator_for(given.seed, "training")
    stream = shuffled(pool, batch_size=training.batch_size, generator=generator)
    return fit(student, stream, training, generator, teacher=teacher)


def report(name: str, module: nn.Module, teacher: Teacher, test: Dataset) -> None:
    """One line: test errors and accuracy."""
    right = accuracy(module, test, teacher.inputs)
    wrong = round(len(test) * (1 - right))
    print(f"{name:40} {wrong:5} errors of {len(test):,} ({100 * right:.2f} %)", flush=True)


def arguments() -> argparse.ArgumentParser:
    """The command line, which examples/omitted_digit.py extends."""
    parser = argparse.ArgumentParser(description="Distillation on MNIST as in Hinton et al. 2015")
    parser.add_argument("--data", default="mnist", help="a folder of MNIST's files, or an .npz")
    parser.add_argument("--steps", type=int, default=8000, help="of the teacher")
    parser.add_argument("--student-steps", type=int, help="of each student (default: as many)")
    parser.add_argument("--student-jitter", type=int, default=0, help="pixels")
    parser.add_argument("--width", type=float, default=1.0, help="1: 1200 and 800 hidden units")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    return parser


if __name__ == "__main__":
    main()
