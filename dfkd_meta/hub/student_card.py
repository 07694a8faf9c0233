"""The model card of a distilled student: where it comes from, and how to make it again."""

from __future__ import annotations

import json
from dataclasses import dataclass

from dfkd_meta.hub import front_matter
from dfkd_meta.hub.card import DATA_FREE, TAGS, code, license_keys, table

WORTH_SAYING = 0.005
RUN_FILE = "run.json"  # what distill leaves beside a student, and nothing else does
INPUTS = (
    " `synthetic.safetensors` holds inputs that it was trained on, raw as `images` are: they serve "
    "to calibrate an int8 version."
)


@dataclass(frozen=True)
class StudentFacts:
    """What the card of a student states. Accuracies are fractions in [0, 1].

    ``teacher`` is the repository id, or the folder's name for a teacher that is not on the Hub;
    ``commit`` is then None. ``sidecar_sha256`` is the digest of ``dfkd_meta.json``. ``agreement``
    says how often student and teacher agreed on inputs it has not learned from; ``beyond_range`` is
    the share of values in its inputs that data cannot have; ``factory`` the code of its maker's own
    that builds it, if it is no built-in architecture; ``data`` the data it was trained on, if it
    was given some.
    """

    name: str
    architecture: str
    parameters: int
    teacher: str
    commit: str | None
    teacher_architecture: str
    teacher_parameters: int
    sidecar_sha256: str
    profile: str
    method: str
    seed: int
    command: str
    license: str | None = None
    teacher_accuracy: float | None = None
    accuracy: float | None = None
    evaluated_on: str | None = None
    agreement: str | None = None
    beyond_range: float = 0.0
    factory: str | None = None
    data: str | None = None


def student_card(facts: StudentFacts) -> str:
    """The whole README.md of a student."""
    tags = [tag for tag in TAGS if facts.data is None or tag != DATA_FREE]
    values: dict[str, object] = {"tags": tags, "library_name": "dfkd-meta"}
    if facts.commit is not None:
        values["base_model"] = facts.teacher
    values |= license_keys(facts.license)
    values["dfkd_meta"] = {
        "teacher": facts.teacher, "teacher_commit": facts.commit,
        "sidecar_sha256": facts.sidecar_sha256, "method": facts.method,
    }  # fmt: skip
    return front_matter.update(_body(facts), values)


def _body(facts: StudentFacts) -> str:
    teacher = code(facts.teacher + (f"@{facts.commit}" if facts.commit else ""))
    rows = [
        ("student", f"{code(facts.architecture)}, {facts.parameters:,} parameters"),
        ("teacher", teacher),
        ("teacher architecture", _architecture(facts)),
        ("sidecar", f"profile {code(facts.profile)}, sha256 {code(facts.sidecar_sha256)}"),
        ("method", f"{code(facts.method)}, seed {facts.seed}"),
        ("accuracy", _accuracy(facts)),
    ]
    if facts.agreement is not None:
        rows.append(("agreement with the teacher", facts.agreement))
    made = (
        "from its teacher and a sidecar of activation statistics. None of the teacher's training "
        "data were used."
        if facts.data is None
        else f"from its teacher on data: {code(facts.data)}."
    )
    return "\n\n".join(
        [
            f"# {facts.name}",
            f"This model was distilled {made}",
            table(("", ""), rows),
            "Made with:",
            f"```sh\n{facts.command}\n```",
            "To be used with:",
            _use(facts) + "\n",
        ]
    )


def _use(facts: StudentFacts) -> str:
    words = json.dumps(facts.name) + (f', factory="{facts.factory}"' if facts.factory else "")
    inputs = "" if facts.data is not None else INPUTS
    if inputs and facts.beyond_range >= WORTH_SAYING:
        inputs += f" {facts.beyond_range:.0%} of their values, which data cannot have, are cut off."
    return (
        f"```python\nimport dfkd_meta\n\nstudent = dfkd_meta.open_model({words})\n"
        "logits = student(dfkd_meta.preprocess(images, student.inputs))\n```\n\n"
        "`student.module` is a plain `torch.nn.Module`; `config.json` says what `images` must be "
        f"like, and how they are normalized.{inputs}"
    )


def _architecture(facts: StudentFacts) -> str:
    text = f"{code(facts.teacher_architecture)}, {facts.teacher_parameters:,} parameters"
    if facts.teacher_accuracy is None:
        return text
    return f"{text}, accuracy {facts.teacher_accuracy:.2%} by its exporter"


def _accuracy(facts: StudentFacts) -> str:
    if facts.accuracy is None:
        return "not measured"
    return f"{facts.accuracy:.2%}" + (
        f" on {code(facts.evaluated_on)}" if facts.evaluated_on else ""
    )
