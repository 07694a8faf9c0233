"""The ``loopback_hub`` fixture: a fresh Hub, an empty cache and alice's token for one test.

huggingface_hub reads its environment once, at import, so the fixture sets its constants and, for
processes that a test starts, the environment variables of the same meaning.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.loopback_hub import LoopbackHub

REPO = "alice/teacher"

# huggingface_hub 2.4 uploads LFS files by a keyword that its own HTTP client deprecates.
UPLOAD_WARNING = "ignore:Use 'content=:DeprecationWarning"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Excuse the client's warning where there is a Hub; a mark outranks ``-W error``."""
    for item in items:
        if "loopback_hub" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.filterwarnings(UPLOAD_WARNING))


@pytest.fixture
def loopback_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """A running Hub that this process and its children talk to as alice."""
    from huggingface_hub import close_session

    with LoopbackHub() as hub:
        point_client_at(hub.url, tmp_path / "hf_home", monkeypatch)
        yield hub
        close_session()


def point_client_at(url: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Aim the Hub client at a server, with its own home, in this process and its children."""
    from huggingface_hub import constants

    for name in [name for name in os.environ if name.startswith(("HF_", "HUGGING"))]:
        monkeypatch.delenv(name)
    environment = {
        "HF_ENDPOINT": url,
        "HF_HOME": str(home),
        "HF_TOKEN": "hf_alice",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",  # the one that counts where a machine has both
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HOME", str(home))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_ASSETS_CACHE", str(home / "assets"))
    monkeypatch.setattr(constants, "HF_XET_CACHE", str(home / "xet"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
