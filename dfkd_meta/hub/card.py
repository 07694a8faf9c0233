"""Our section of a teacher's model card: what the sidecar holds, what it reveals, how to distill.

A pure function of the manifest. The section stands between two markers; everything outside them,
and every metadata key that is not ours, belongs to the publisher and is kept byte for byte.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from dfkd_meta.errors import HubError
from dfkd_meta.hub import front_matter
from dfkd_meta.sidecar import (
    MANIFEST_FILE,
    TENSOR_FILE,
    Manifest,
    Privacy,
    StatisticRecord,
)
from dfkd_meta.sidecar.checks.privacy import describes_input
from dfkd_meta.sidecar.summary import bytes_text, record_bytes

BEGIN = "<!-- dfkd-meta:begin -->"
END = "<!-- dfkd-meta:end -->"
DATA_FREE = "data-free-knowledge-distillation"
TAGS = ("dfkd-meta", DATA_FREE)
# The licenses in wide use that the Hub knows by name; any other is stated as `other`.
LICENSES = (
    "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "isc", "mpl-2.0", "unlicense", "openrail",
    "gpl-2.0", "gpl-3.0", "lgpl-2.1", "lgpl-3.0", "agpl-3.0", "cc0-1.0", "cc-by-4.0",
    "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-nc-nd-4.0",
)  # fmt: skip
_SECTION = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)


def update_card(card: str, manifest: Manifest, repo_id: str) -> str:
    """The card with our section and metadata brought up to date. ``card`` may be empty.

    Raises HubError when a marker is missing or doubled, or the metadata cannot be edited.
    """
    begins, ends = card.count(BEGIN), card.count(END)
    if (begins, ends) not in ((0, 0), (1, 1)) or card.find(BEGIN) > card.find(END):
        raise HubError(
            f"README.md must hold {BEGIN} and {END} once each, in this order, or neither",
            hint="remove both markers and what is between them",
        )
    newline = "\r\n" if "\r\n" in card else "\n"
    section = teacher_section(manifest, repo_id).replace("\n", newline)
    if begins:
        card = _SECTION.sub(lambda _: section, card)
    else:
        title = "" if card.strip() else f"# {repo_id.partition('/')[2]}{newline}"
        card = (card + title).rstrip("\r\n") + 2 * newline + section + newline
    return front_matter.update(card, metadata(manifest, front_matter.parse(card)))


def metadata(manifest: Manifest, present: dict[str, object]) -> dict[str, object]:
    """The metadata keys to set, given those present: ours always, others only where absent."""
    tags = present.get("tags")
    old = list(tags) if isinstance(tags, list) else [tags] if isinstance(tags, str) else []
    values: dict[str, object] = {
        "tags": old + [tag for tag in TAGS if tag not in old],
        "dfkd_meta": {"format_version": manifest.format_version, "profile": manifest.profile},
    }
    if "library_name" not in present:
        values["library_name"] = "dfkd-meta"
    if "license" not in present:
        values |= license_keys(manifest.teacher.license)
    return values


def license_keys(license_name: str | None) -> dict[str, object]:
    """``license`` as the Hub's metadata accept it (it refuses a card with an unknown one)."""
    if license_name is None:
        return {}
    if license_name.lower() in LICENSES:
        return {"license": license_name.lower()}
    return {"license": "other", "license_name": license_name}


def teacher_section(manifest: Manifest, repo_id: str) -> str:
    """The section with its markers, ending without a newline."""
    teacher, inputs = manifest.teacher, manifest.inputs
    size = " x ".join(
        f"{length} {axis}" for axis, length in zip(inputs.axes, inputs.shape, strict=False)
    )
    left_out = manifest.outputs.num_classes - len(manifest.described_classes)
    described = f", {left_out} of them not described" if left_out else ""
    facts = [
        ("architecture", f"{code(teacher.architecture)}, {teacher.parameters:,} parameters"),
        ("input", f"{size}, raw values {inputs.value_range[0]:g} to {inputs.value_range[-1]:g}"),
        ("output", f"logits of {manifest.outputs.num_classes} classes{described}"),
        ("accuracy", accuracy(manifest)),
        ("samples behind the statistics", f"{manifest.provenance.samples:,}"),
    ]
    if teacher.repo_id is not None:
        pinned = f"{teacher.repo_id}@{teacher.revision}" if teacher.revision else teacher.repo_id
        facts.insert(1, ("weights", code(pinned)))
    parts = [
        BEGIN,
        "## Distill this model without its training data",
        f"`{MANIFEST_FILE}` and `{TENSOR_FILE}` are a dfkd-meta {manifest.format_version} sidecar "
        f"(profile `{manifest.profile}`, {bytes_text(manifest.tensors.size)}): statistics of this "
        "model's activations on its training data. With them and the weights a student can be "
        "trained without the data:",
        f"```sh\n{distill_command(manifest, repo_id)}\n```",
        table(("teacher", ""), facts),
        "### What the sidecar holds",
        table(("statistic", "scope", "records", "at", "bytes"), statistics_rows(manifest)),
        "### What it reveals",
        "\n".join(f"- {line}" for line in privacy_lines(manifest)),
        END,
    ]
    return "\n\n".join(parts)


def distill_command(manifest: Manifest, repo_id: str) -> str:
    """A command line that works for this teacher; what only its reader can name is in capitals."""
    options = {
        "builtin": "--student half",
        "local": "--factory MODULE:FUNCTION --student half",
        "hub_mixin": "--factory MODULE:CLASS --student half",
    }
    student = options.get(manifest.teacher.source, "--student MODULE:FUNCTION")
    return f"dfkd-meta distill {repo_id} {student} --out student"


def accuracy(manifest: Manifest) -> str:
    """The teacher's accuracy as its exporter measured it."""
    measured = manifest.evaluation
    if measured is None:
        return "not measured"
    split = code(measured.split)
    return f"{measured.accuracy:.2%} on {measured.samples:,} samples ({split}), by the exporter"


def statistics_rows(manifest: Manifest) -> list[tuple[str, ...]]:
    """One row per kind and scope, in order of first appearance."""
    groups: dict[tuple[str, str], list[StatisticRecord]] = {}
    for record in manifest.statistics:
        groups.setdefault((record.kind, record.scope), []).append(record)
    return [
        (
            code(kind),
            scope.replace("_", " "),
            str(len(records)),
            names_text([tap for record in records for tap in record.taps]),
            f"{sum(record_bytes(record) for record in records):,}",
        )
        for (kind, scope), records in groups.items()
    ]


def names_text(names: list[str]) -> str:
    """The first names and how many more there are: a deep model has dozens of taps."""
    unique = list(dict.fromkeys(names))
    more = f" and {len(unique) - 4} more" if len(unique) > 4 else ""
    return ", ".join(code(name) for name in unique[:4]) + more


def privacy_lines(manifest: Manifest) -> list[str]:
    """What a publisher and a reader should know about exposure, one sentence a line."""
    privacy = manifest.privacy
    lines = [
        f"Every group of samples behind a statistic has at least {privacy.min_group_size} samples.",
        mechanism(privacy, len(manifest.statistics)),
    ]
    if privacy.tracing_strength:
        record, strength = max(privacy.tracing_strength.items(), key=lambda item: item[1])
        lines.append(
            f"Tracing strength sqrt(features / samples): at most {strength:.3g} ({code(record)}); "
            "the larger it is, the better one can test whether a known sample was in the data."
        )
    taps = {tap.id: tap for tap in manifest.taps}
    direct = sum(describes_input(r, map(taps.get, r.taps)) for r in manifest.statistics)
    if direct:
        lines.append(
            f"{direct} of {len(manifest.statistics)} records are statistics of the inputs "
            "themselves (taken at the input, or at a layer that is linear in it)."
        )
    return lines


def mechanism(privacy: Privacy, records: int) -> str:
    """What is claimed, and of how many of the records: the rest have no guarantee."""
    if privacy.mechanism == "none" or privacy.epsilon is None:
        return "No noise was added: there is no differential-privacy guarantee."
    delta = f", delta {privacy.delta:g}" if privacy.delta is not None else ""
    covered = set(privacy.covers or ())
    noise = f"Gaussian noise was added to {len(covered)} of {records} records"
    claim = f"{noise}: epsilon {privacy.epsilon:g}{delta}."
    if len(covered) >= records:
        return claim
    return f"{claim} The others have no guarantee; covered: {names_text(sorted(covered))}."


def table(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [columns, tuple("---" for _ in columns), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def code(text: str) -> str:
    """Text as a code span that cannot break out of a table cell or of our section."""
    safe = text.replace("`", "'").replace("|", "\\|").replace("<!--", "<! --")
    return f"`{safe}`"
