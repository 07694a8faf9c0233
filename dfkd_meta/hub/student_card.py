"""The model card of a distilled student: where it comes from, and how to make it again."""

from __future__ import annotations

from dataclasses import dataclass

from dfkd_meta.hub import front_matter
from dfkd_meta.hub.card import TAGS, code, license_keys, table


@dataclass(frozen=True)
class StudentFacts:
    """What the card of a student states. Accuracies are fractions in [0, 1].

    ``teacher`` is the repository id, or the folder's name for a teacher that is not on the Hub;
    ``commit`` is then None. ``sidecar_sha256`` is the digest of ``dfkd_meta.json``.
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


def student_card(facts: StudentFacts) -> str:
    """The whole README.md of a student."""
    values: dict[str, object] = {"tags": list(TAGS), "library_name": "dfkd-meta"}
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
    return "\n\n".join(
        [
            f"# {facts.name}",
            "This model was distilled from its teacher and a sidecar of activation statistics. "
            "None of the teacher's training data were used.",
            table(("", ""), rows),
            "Made with:",
            f"```sh\n{facts.command}\n```\n",
        ]
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
