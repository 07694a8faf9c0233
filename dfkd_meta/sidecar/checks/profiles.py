"""What each profile promises. A promise is kept by records of a known kind that pass the checks.

``minimal``: (a) a ``batchnorm`` record, or global channel-wise ``moments``; (b) ``soft_targets``;
(c) ``class_similarity``.
``standard``: minimal, and (d) channel-wise ``moments`` for every described class at each tap that
is not linear in the input, unless nothing but ``batchnorm`` and logit statistics is taken there;
(e) unit-wise ``covariance`` for every described class at some tap that is not linear in the input
(the last hidden layer).
``full``: standard, and (f) unit-wise ``covariance``, ``spectrum`` or ``mixture`` at a tap that is
linear in the input.
``custom`` promises nothing.

Channel-wise means reduction ``channel`` or ``pooled``, or ``unit`` where the tap has one axis only.
At such a tap a per-class ``covariance`` counts as ``moments`` too: it holds mean and variance.
"""

from __future__ import annotations

from collections.abc import Sequence

from dfkd_meta.sidecar.checks.evidence import Evidence, known_kind
from dfkd_meta.sidecar.issues import short
from dfkd_meta.sidecar.manifest import StatisticRecord, Tap

DETAILED = {"covariance", "spectrum", "mixture"}
EXEMPT = {"batchnorm", "soft_targets", "class_similarity"}


def check_profile(evidence: Evidence) -> None:
    """DM360."""
    manifest = evidence.manifest
    classes = len(manifest.described_classes)
    for text in broken_promises(manifest.profile, manifest.taps, manifest.statistics, classes):
        evidence.add("DM360", "/profile", f"{manifest.profile} promises {text}")


def honest_profile(
    profile: str, taps: Sequence[Tap], records: Sequence[StatisticRecord], classes: int
) -> str:
    """The profile asked for if the records keep its promise, else ``custom``.

    ``classes`` is how many are described. The rule is the one that validation applies. Without
    labels, for a teacher without a hidden layer, or with records of one's own at further taps, some
    promises cannot be kept.
    """
    return "custom" if broken_promises(profile, taps, records, classes) else profile


def broken_promises(
    profile: str, taps: Sequence[Tap], records: Sequence[StatisticRecord], classes: int
) -> list[str]:
    """What the profile promises and the records leave open, in words; empty when it is kept."""
    promises = _Promises(taps, records, classes)
    missing: list[str] = []
    if profile != "custom":
        missing += promises.minimal()
    if profile in ("standard", "full"):
        missing += promises.standard()
    if profile == "full":
        missing += promises.full()
    return missing


class _Promises:
    """The records that count, and what of each profile they leave open."""

    def __init__(
        self, taps: Sequence[Tap], records: Sequence[StatisticRecord], classes: int
    ) -> None:
        self.taps = {tap.id: tap for tap in taps}
        self.classes = classes
        self.records = [record for record in records if known_kind(record) is not None]
        self.at: dict[str, list[StatisticRecord]] = {}
        for record in self.records:
            for name in record.taps:
                self.at.setdefault(name, []).append(record)

    def minimal(self) -> list[str]:
        held = {record.kind for record in self.records}
        moments = any(
            r.kind == "moments" and r.scope == "global" and self._by_channel(r)
            for r in self.records
        )
        wanted = {
            "a batchnorm record or global channel-wise moments": "batchnorm" in held or moments,
            "soft_targets": "soft_targets" in held,
            "class_similarity": "class_similarity" in held,
        }
        return [text for text, there in wanted.items() if not there]

    def standard(self) -> list[str]:
        missing = []
        for tap in self.taps.values():
            here = self.at.get(tap.id, [])
            if tap.linear_in_input or {record.kind for record in here} <= EXEMPT:
                continue
            if not any(self._every_class(r) and self._by_channel(r) for r in here):
                missing.append(f"per-class channel-wise moments at tap {short(tap.id)}")
        if not any(self._hidden_covariance(record) for record in self.records):
            missing.append("per-class unit-wise covariance at the last hidden layer")
        return missing

    def full(self) -> list[str]:
        if any(self._describes_input(record) for record in self.records):
            return []
        return ["unit-wise covariance, spectrum or mixture at a tap linear in the input"]

    def _taps(self, record: StatisticRecord) -> list[Tap]:
        return [self.taps[name] for name in record.taps if name in self.taps]

    def _every_class(self, record: StatisticRecord) -> bool:
        # Which classes they are is checked elsewhere (DM314, and by their counts DM316).
        return record.scope == "per_class" and len(record.classes or ()) >= self.classes

    def _by_channel(self, record: StatisticRecord) -> bool:
        # Both kinds name one tap; a record of many must not be searched once for each of them.
        if record.kind not in ("moments", "covariance") or len(record.taps) != 1:
            return False
        flat = all(len(tap.shape) == 1 for tap in self._taps(record))
        return flat or (record.kind == "moments" and record.reduction in ("channel", "pooled"))

    def _hidden_covariance(self, record: StatisticRecord) -> bool:
        if record.kind != "covariance" or record.reduction != "unit":
            return False
        hidden = any(not tap.linear_in_input for tap in self._taps(record))
        return hidden and self._every_class(record)

    def _describes_input(self, record: StatisticRecord) -> bool:
        if record.kind not in DETAILED or record.reduction != "unit":
            return False
        return any(tap.linear_in_input for tap in self._taps(record))
