"""The journal as one table: a section for each pair, sidecar and budget, a line for each method."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from dfkd_meta.bench.cells import CONTROLS, Run
from dfkd_meta.bench.grid import Budget, Grid
from dfkd_meta.bench.journal import ON_CPU, Costs, Record, costs_of, unfinished
from dfkd_meta.bench.published import Fact, code_of_authors, other_pairs, published_for

AXES = ("teacher", "student", "profile", "budget")


@dataclass(frozen=True)
class Line:
    """One method under one set of circumstances: its runs over the seeds.

    ``records`` are the finished runs; ``reasons`` say, once each, why others have no result;
    ``pending`` are still to be made, or again after a failure.
    """

    label: str
    method: str
    records: list[Record]
    reasons: list[str]
    runs: int
    pending: int

    @property
    def control(self) -> bool:
        return self.method in CONTROLS

    def values(self, *path: str) -> list[float]:
        """One number of every finished run that has it, e.g. ``values("result", "accuracy")``."""
        return [value for record in self.records if (value := _at(record, path)) is not None]

    @property
    def curve(self) -> list[tuple[float, float]]:
        """Mean seconds (CPU time, or GPU wall time) and mean accuracy at each look on the way."""
        curves = [found for r in self.records if (found := _at(r, ("result", "curve")))]
        clock = self.costs.seconds
        return [
            (mean(point[clock] for point in points), mean(point["accuracy"] for point in points))
            for points in zip(*curves, strict=False)
        ]

    @property
    def device(self) -> str | None:
        """Where the runs took place: cpu or cuda; None while none is finished."""
        return self.records[0]["machine"]["device"] if self.records else None

    @property
    def costs(self) -> Costs:
        """How its costs are told; as on a CPU while no run is finished."""
        return costs_of(self.records[0]) if self.records else ON_CPU

    def total(self, name: str) -> list[float]:
        """Synthesis and training together of every finished run; ``name`` is a kind of seconds."""
        return [sum(record["result"][name].values()) for record in self.records]


@dataclass(frozen=True)
class Section:
    """Lines that can be compared: one teacher, student, sidecar and budget."""

    teacher: str
    student: str
    profile: str
    budget: str
    benchmark: str | None
    spending: Budget
    lines: list[Line]

    @property
    def record(self) -> Record | None:
        """Any finished run."""
        return next((record for line in self.lines for record in line.records), None)

    @property
    def pair(self) -> tuple[str, str, str]:
        """What sections for different sidecars have in common."""
        return self.teacher, self.student, self.budget

    @property
    def architecture(self) -> str:
        """That of the teacher; its name in the grid while nothing has run."""
        return self.record["teacher"]["architecture"] if self.record else self.teacher

    def published(self, line: Line) -> list[Fact]:
        """What is published for the method of ``line`` on this pair, else on another (``own``)."""
        known = (self.benchmark, self.architecture, self.student, line.method)
        return published_for(*known) or other_pairs(self.benchmark, line.method)

    def code(self, line: Line) -> list[Fact]:
        """What the authors' own code reached on this pair."""
        return code_of_authors(self.benchmark, self.architecture, self.student, line.method)

    def own(self, fact: Fact) -> bool:
        """Whether the fact is about this very pair of networks."""
        return fact.pair.is_of(self.benchmark, self.architecture, self.student)


def sections_of(grid: Grid, results: Iterable[tuple[Run, Record | None]]) -> list[Section]:
    """The runs of a grid in the order of its file; controls last in each section."""
    grouped: dict[tuple[str, ...], dict[str, list[tuple[Run, Record | None]]]] = {}
    for run, record in results:
        key = tuple(getattr(run.cell, axis) for axis in AXES)
        grouped.setdefault(key, {}).setdefault(run.cell.method, []).append((run, record))
    sections = []
    for (teacher, student, profile, budget), rows in grouped.items():
        lines = [_line(label, found) for label, found in rows.items()]
        sections.append(
            Section(
                teacher=teacher,
                student=student,
                profile=profile,
                budget=budget,
                benchmark=grid.teachers[teacher].benchmark,
                spending=grid.budgets[budget],
                lines=sorted(lines, key=lambda line: line.control),
            )
        )
    order = {name: index for index, name in enumerate(grid.teachers)}
    return sorted(sections, key=lambda section: order[section.teacher])


def _line(label: str, found: Sequence[tuple[Run, Record | None]]) -> Line:
    records = [record for _, record in found if record is not None]
    reasons = [f"left out: {run.skip}" for run, _ in found if run.skip]
    reasons += [f"{r['status']}: {r['reason']}" for r in records if r["status"] != "done"]
    return Line(
        label=label,
        method=found[0][0].config.method,
        records=[record for record in records if record["status"] == "done"],
        reasons=list(dict.fromkeys(reasons)),
        runs=len(found),
        pending=sum(not run.skip and unfinished(record) for run, record in found),
    )


def _at(record: Record, path: Sequence[str]) -> Any:
    value: Any = record
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


COLUMNS = (
    "benchmark", "teacher", "teacher_accuracy", "student", "profile", "sidecar_bytes",
    "tracing_strength", "input_by_class", "budget",
    "method", "control", "runs", "finished", "accuracy_mean", "accuracy_lowest",
    "accuracy_highest", "accuracy_std", "cpu_seconds", "cpu_seconds_synthesis",
    "cpu_seconds_training", "seconds", "device", "images", "student_steps", "agreement_on_inputs",
    "peak_memory_mb", "peak_gpu_memory_mb", "published", "published_source", "reason",
)  # fmt: skip


def as_csv(sections: Sequence[Section]) -> str:
    """Every line with every number; accuracies are fractions, ``std`` that of a sample."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for section in sections:
        for line in section.lines:
            writer.writerow(_csv_row(section, line))
    return text.getvalue()


CURVE_COLUMNS = (*AXES, "method", "seed", "steps", "cpu_seconds", "seconds", "accuracy")


def curves_as_csv(sections: Sequence[Section]) -> str:
    """Every look at a student on its way; empty without any."""
    text = io.StringIO()
    writer = csv.DictWriter(text, CURVE_COLUMNS, lineterminator="\n")
    for section in sections:
        for line in section.lines:
            for record in line.records:
                seed = record["cell"]["seed"]
                names = {axis: getattr(section, axis) for axis in AXES}
                for point in _at(record, ("result", "curve")) or ():
                    if not text.tell():
                        writer.writeheader()
                    writer.writerow({**names, "method": line.label, "seed": seed, **point})
    return text.getvalue()


def _csv_row(section: Section, line: Line) -> dict[str, Any]:
    scores = line.values("result", "accuracy")
    published = [fact for fact in section.published(line) if section.own(fact)]
    record = next(iter(line.records), section.record)
    means = {
        "cpu_seconds": line.total("cpu_seconds"),
        "cpu_seconds_synthesis": line.values("result", "cpu_seconds", "synthesis"),
        "cpu_seconds_training": line.values("result", "cpu_seconds", "training"),
        "seconds": line.total("seconds"),
        "images": line.values("result", "images"),
        "student_steps": line.values("result", "student_steps"),
        "agreement_on_inputs": line.values("result", "agreement_on_inputs"),
        "peak_memory_mb": line.values("result", "peak_memory_mb"),
        "peak_gpu_memory_mb": line.values("result", "peak_gpu_memory_mb"),
    }
    return {
        **{axis: getattr(section, axis) for axis in ("benchmark", *AXES)},
        "teacher_accuracy": record and record["teacher"]["accuracy"],
        "sidecar_bytes": record and record["sidecar"]["bytes"],
        "tracing_strength": record and _at(record, ("teacher", "tracing_strength")),
        "input_by_class": record and _at(record, ("teacher", "input_by_class")),
        "method": line.label,
        "control": line.control,
        "runs": line.runs,
        "finished": len(line.records),
        "accuracy_mean": mean(scores) if scores else None,
        "accuracy_lowest": min(scores, default=None),
        "accuracy_highest": max(scores, default=None),
        "accuracy_std": stdev(scores) if len(scores) > 1 else None,
        **{name: round(mean(found), 4) if found else None for name, found in means.items()},
        "device": line.device,
        "published": "; ".join(f"{fact.accuracy:.2f}" for fact in published),
        "published_source": "; ".join(fact.citation for fact in published),
        "reason": "; ".join(line.reasons),
    }
