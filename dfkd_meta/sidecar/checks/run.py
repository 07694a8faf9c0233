"""All checks in order; each module notes its findings in ``Evidence.report``."""

from __future__ import annotations

from dfkd_meta.sidecar.checks.evidence import Evidence
from dfkd_meta.sidecar.checks.layout import check_layout
from dfkd_meta.sidecar.checks.privacy import check_privacy
from dfkd_meta.sidecar.checks.profiles import check_profile
from dfkd_meta.sidecar.checks.records import check_records
from dfkd_meta.sidecar.checks.references import check_references
from dfkd_meta.sidecar.checks.values import check_values


def run_checks(evidence: Evidence) -> None:
    """Every rule, from the manifest alone to the values of the tensors."""
    check_layout(evidence)
    check_records(evidence)
    check_references(evidence)
    check_values(evidence)
    check_privacy(evidence)
    check_profile(evidence)
