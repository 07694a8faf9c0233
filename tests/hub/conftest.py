"""A tiny teacher with its sidecar, on disk and published by alice."""

from __future__ import annotations

from pathlib import Path

import pytest

from dfkd_meta.producer.publish import publish
from tests.support.hub_fixture import REPO
from tests.support.loopback_hub import LoopbackHub
from tests.support.tiny_sidecar import make_tiny_sidecar


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_tiny_sidecar(tmp_path / "export")


@pytest.fixture
def published(folder: Path, loopback_hub: LoopbackHub) -> LoopbackHub:
    """The Hub after ``publish(folder, REPO)``."""
    publish(folder, REPO)
    loopback_hub.requests.clear()
    return loopback_hub


@pytest.fixture
def no_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client waits seconds between its retries; the test does not."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)
