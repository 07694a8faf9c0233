"""What an export costs, as a ratio to a plain forward pass over the same batches.

    python examples/export_cost.py TEACHER DATA [--profile full] [--limit 10000]

TEACHER is a model folder (``dfkd-meta train`` or ``export`` make one), DATA as for ``export``. Both
passes read, resize and normalize the same samples; the ratio is taken within one run, the passes
alternating, each at its fastest of three.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from time import perf_counter

import torch
from torch import Tensor

from dfkd_meta.data import Dataset, batches, open_data
from dfkd_meta.producer.config import ExportConfig
from dfkd_meta.producer.profiles import plan
from dfkd_meta.statistics import collect
from dfkd_meta.teachers import Teacher, default_taps, open_teacher


@dataclass(frozen=True)
class Samples:
    """The batches of one pass, as often as they are asked for (a mixture takes two passes)."""

    teacher: Teacher
    dataset: Dataset
    config: ExportConfig

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        size, limit = self.config.batch_size, self.config.limit
        return batches(self.dataset, self.teacher.inputs, batch_size=size, limit=limit)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("teacher")
    parser.add_argument("data")
    parser.add_argument("--profile", action="append", choices=["minimal", "standard", "full"])
    parser.add_argument("--limit", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    teacher = open_teacher(options.teacher)
    dataset = open_data(options.data)
    for profile in options.profile or ["minimal", "standard", "full"]:
        config = ExportConfig(profile=profile, limit=options.limit)
        taps = default_taps(teacher)
        requests = plan(config, teacher, taps, labeled=dataset.labels is not None)
        forward, whole = [], []
        for _ in range(3):
            start = perf_counter()
            with torch.no_grad():
                for images, _labels in Samples(teacher, dataset, config):
                    teacher(images)
            forward.append(perf_counter() - start)
            start = perf_counter()
            collect(teacher, Samples(teacher, dataset, config), requests, taps)
            whole.append(perf_counter() - start)
        print(
            f"{profile:9} {len(requests):3} records  forward {min(forward):6.2f} s  "
            f"export {min(whole):6.2f} s  ratio {min(whole) / min(forward):5.2f}"
        )


if __name__ == "__main__":
    main()
