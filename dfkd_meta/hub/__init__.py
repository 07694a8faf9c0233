"""The Hub: the only importer of huggingface_hub. Resolve once, pull verified, describe, commit."""

from dfkd_meta.hub.card import update_card
from dfkd_meta.hub.client import Hub, hide_bars
from dfkd_meta.hub.ids import HubId, parse_id, parse_source
from dfkd_meta.hub.pull import PulledSidecar, pull, resolve_source
from dfkd_meta.hub.student_card import RUN_FILE, StudentFacts, student_card

__all__ = [
    "RUN_FILE",
    "Hub",
    "HubId",
    "PulledSidecar",
    "StudentFacts",
    "hide_bars",
    "parse_id",
    "parse_source",
    "pull",
    "resolve_source",
    "student_card",
    "update_card",
]
