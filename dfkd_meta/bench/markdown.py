"""The table as Markdown that reads well as plain text, too: padded columns, short cells."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Sequence
from operator import attrgetter
from statistics import mean

from dfkd_meta.bench.grid import Budget
from dfkd_meta.bench.journal import ON_CPU, ON_GPU, Costs
from dfkd_meta.bench.published import Fact
from dfkd_meta.bench.references import Machines, Sources
from dfkd_meta.bench.table import Line, Section
from dfkd_meta.sidecar import bytes_text

BATCH = re.compile(r"^batch \d+: ")

LEGEND = (
    "Accuracy is top-1 on the test split, in percent, of the student after its last training step "
    "(or of its moving average, where asked for): mean (lowest to highest) over `n` seeds. No step "
    "was chosen by looking at test data. The other numbers are means over the seeds: `images` are "
    "the inputs made for the student (of controls: given to it), `steps` its training steps."
)

HINTS = {
    "CPU s": "`CPU s` is the process CPU time of synthesis and training together.",
    "GPU s": "`GPU s` is the wall time of synthesis and training on the GPU.",
    "peak MiB": "`peak MiB` is the peak resident memory of the run's own process with all "
    "libraries in it, before evaluation.",
    "peak GPU MiB": "`peak GPU MiB` is the most memory that the run's tensors took on the GPU.",
    "published %": "`published` is what the literature reports, with its source below; its "
    "teachers, schedules and numbers of inputs are its own.",
    "authors' code %": "`authors' code` is the final accuracy of one run of the published code on "
    "the same teacher in 480 CPU seconds of one core, with its source below.",
}


def as_markdown(title: str, sections: Sequence[Section]) -> str:
    """The whole document; sections of which nothing has run yet are left out."""
    sources, machines = Sources(), Machines(sections)
    begun = [s for s in sections if any(line.records or line.reasons for line in s.lines)]
    parts = [_section(section, sources, machines) for section in begun]
    pairs = {section.pair: [s for s in begun if s.pair == section.pair] for section in begun}
    parts += [text for alike in pairs.values() if (text := _by_sidecar(alike))]
    pending = sum(line.pending for section in sections for line in section.lines)
    used = "\n".join(parts)
    legend = [LEGEND, *(hint for name, hint in HINTS.items() if f" {name} " in used)]
    head = [f"# {title}", "", textwrap.fill(" ".join(legend), 100, break_on_hyphens=False)]
    head += machines.listed()
    if pending:
        head += ["", f"**{pending} runs are still to be made.**"]
    return "\n".join([*head, "", *parts, *sources.listed()]).rstrip() + "\n"


def _section(section: Section, sources: Sources, machines: Machines) -> str:
    lines = [line for line in section.lines if line.records or line.reasons]
    pending = [f"`{line.label}`" for line in section.lines if line not in lines]
    costs = ON_GPU if any(line.costs is ON_GPU for line in lines) else ON_CPU
    facts = {line.label: (section.published(line), section.code(line)) for line in lines}
    columns = ["method", "accuracy %", "n", f"{costs.device} s", "images", "steps"]
    columns.append(costs.memory_column)
    shown = [
        any(published for published, _ in facts.values()),
        any(code for _, code in facts.values()),
    ]
    if machines.several:
        columns.append("on")
    columns += [
        name for name, some in zip(("published %", "authors' code %"), shown, strict=True) if some
    ]
    rows: list[list[str]] = []
    for index, line in enumerate(lines):
        if line.control and (index == 0 or not lines[index - 1].control):
            rows.append(["**controls**"] + [""] * (len(columns) - 1))
        cited = [
            ", ".join(_cited(fact, section, sources) for fact in found)
            for found, some in zip(facts[line.label], shown, strict=True)
            if some
        ]
        numbers = _numbers(line, costs)
        rows.append([*numbers, *([machines.letters(line)] if machines.several else []), *cited])
    text = [f"## {section.teacher} -> {section.student}", "", _circumstances(section, costs), ""]
    text += [*_table(columns, rows), "", *_remarks(lines)]
    text += _curves(lines)
    if pending:
        text += [textwrap.fill("Not run: " + ", ".join(pending) + ".", 100), ""]
    return "\n".join(text)


def _by_sidecar(sections: Sequence[Section]) -> str:
    """One pair and budget with different sidecars, side by side; empty if nothing compares."""
    shown = [section for section in sections if section.record is not None]
    lines = [line for section in shown for line in section.lines if line.records]
    labels = list(dict.fromkeys(line.label for line in lines))
    found = {label: [_score_of(section, label) for section in shown] for label in labels}
    compared = [label for label in labels if sum(bool(score) for score in found[label]) > 1]
    if len(shown) < 2 or not compared:
        return ""
    rows = []
    for index, section in enumerate(shown):
        record = section.record or {}
        strength, by_class = (
            record["teacher"].get(name) for name in ("tracing_strength", "input_by_class")
        )
        rows.append(
            [
                f"`{section.profile}`",
                _sizes(section),
                "" if strength is None else f"{strength:.2f}",
                {True: "yes", False: "no"}.get(by_class, ""),
                *(found[label][index] for label in compared),
            ]
        )
    teacher, student, budget = shown[0].pair
    columns = ["sidecar", "size", "tracing", "input by class", *(f"`{c}` %" for c in compared)]
    once = [label for label in labels if label not in compared]
    beside = ", ".join(f"`{label}` {next(filter(None, found[label]))}" for label in once)
    text = [f"## What a sidecar buys: {teacher} -> {student}, {budget}", "", *_table(columns, rows)]
    if beside:
        text += ["", textwrap.fill(f"With one of them only: {beside}.", 100)]
    hint = (
        "`tracing` is the largest tracing strength of a record (above about 1 a membership test "
        "on its means can work), `input by class` whether the input itself is described by class "
        "or place."
    )
    return "\n".join([*text, "", textwrap.fill(hint, 100), ""])


def _score_of(section: Section, label: str) -> str:
    """What a method reached there, or why it did not; empty while it has not run."""
    line = next((line for line in section.lines if line.label == label), None)
    return (_score(line) or _status(line)) if line else ""


def _status(line: Line) -> str:
    """E.g. refused, left out."""
    return line.reasons[0].partition(":")[0] if line.reasons else ""


def _score(line: Line) -> str:
    """Mean accuracy in percent with its range over the seeds; empty without a result."""
    scores = [100 * value for value in line.values("result", "accuracy")]
    if not scores:
        return ""
    spread = f" ({min(scores):.2f} to {max(scores):.2f})" if len(scores) > 1 else ""
    return f"{mean(scores):.2f}{spread}"


def _numbers(line: Line, costs: Costs) -> list[str]:
    score = _score(line)
    if not score:
        return [f"`{line.label}`", _status(line), "0", "", "", "", ""]
    held = line.values("result", costs.memory)
    return [
        f"`{line.label}`",
        score,
        str(len(line.records)),
        f"{mean(line.total(costs.seconds)):,.0f}",
        f"{mean(line.values('result', 'images')):,.0f}",
        f"{mean(line.values('result', 'student_steps')):,.0f}",
        f"{mean(held):,.0f}" if held else "",
    ]


def _cited(fact: Fact, section: Section, sources: Sources) -> str:
    elsewhere = "" if section.own(fact) else f" ({fact.pair})"
    return f"{fact.accuracy:.2f}{elsewhere} {sources.cite(fact)}"


def _circumstances(section: Section, costs: Costs) -> str:
    record = section.record
    words = []
    if record is not None:
        teacher, score = record["teacher"], record["teacher"]["accuracy"]
        known = "" if score is None else f", {100 * score:.2f} %"
        words.append(f"Teacher `{teacher['architecture']}`{known}")
        words.append(f"sidecar `{section.profile}`, {_sizes(section)}")
    else:
        words.append(f"Sidecar `{section.profile}`")
    return "; ".join([*words, _budget(section.budget, section.spending, costs)]) + "."


def _sizes(section: Section) -> str:
    """Sidecars of one name may have been several, made by several versions."""
    records = [record for line in section.lines for record in line.records]
    return " or ".join(dict.fromkeys(bytes_text(one["sidecar"]["bytes"]) for one in records))


def _budget(name: str, budget: Budget, costs: Costs) -> str:
    if budget.cpu_seconds is None:
        return f"budget `{name}`"
    share = f"{100 * budget.share:.0f} % of it for images made beforehand"
    return f"budget `{name}`, {budget.cpu_seconds:g} {costs.device} s, {share}"


def _remarks(lines: Sequence[Line]) -> list[str]:
    """Why lines are empty, and what their runs had to say; what several say, once."""
    said: dict[str, list[str]] = {}
    for texts in (attrgetter("reasons"), _notes):
        for line in lines:
            for text in texts(line):
                said.setdefault(text, []).append(f"`{line.label}`")
    remarks = [f"* {', '.join(labels)}: {text}" for text, labels in said.items()]
    return [*remarks, ""] if remarks else []


def _curves(lines: Sequence[Line]) -> list[str]:
    """Accuracy over time; nothing where nobody looked on the way."""
    curves = {line.label: line.curve for line in lines if line.curve}
    if not curves:
        return []
    text = ["Accuracy % on the way (after so many seconds):", ""]
    for label, points in curves.items():
        seen = ", ".join(f"{100 * value:.1f} ({seconds:,.0f} s)" for seconds, value in points)
        text.append(textwrap.fill(f"* `{label}`: {seen}.", 100, subsequent_indent="  "))
    return [*text, ""]


def _notes(line: Line) -> list[str]:
    """Each note once; of what was noted about single batches, in how many it was."""
    counted = Counter(
        BATCH.sub("batches ({}): ", note, count=1)
        for record in line.records
        for note in record["notes"]
    )
    return [note.replace("{}", str(count), 1) for note, count in counted.items()]


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table whose columns are as wide as their widest cell; numbers on the right."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (columns, *rows)]
    widths = [max(3, *(len(row[index]) for row in cells)) for index in range(len(columns))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    aligned = [
        [row[0].ljust(widths[0])]
        + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        for row in cells
    ]
    return ["| " + " | ".join(row) + " |" for row in (aligned[0], rule, *aligned[1:])]
