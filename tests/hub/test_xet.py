"""The client's default mode: Xet storage, here in hf_xet's own ``local://`` store."""

from __future__ import annotations

from pathlib import Path

import pytest

from dfkd_meta.errors import NetworkError
from dfkd_meta.hub import pull
from dfkd_meta.producer.publish import publish
from dfkd_meta.sidecar import sha256_file
from tests.support.hub_fixture import REPO
from tests.support.loopback_hub import LoopbackHub

pytest.importorskip("hf_xet", reason="hf_xet has no wheel for this machine")


@pytest.fixture(autouse=True)
def xet(loopback_hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_DISABLE_XET")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", False)


def test_round_trip(folder: Path, loopback_hub: LoopbackHub, tmp_path: Path) -> None:
    loopback_hub.xet_folder = tmp_path / "store"
    loopback_hub.xet_folder.mkdir()
    publish(folder, REPO)
    stored = loopback_hub.repos[REPO].tree("main")["model.safetensors"]
    assert stored.xet
    assert stored.data is None  # the bytes went into the store, not to the server
    assert publish(folder, REPO).commit is None
    pulled = pull(REPO).folder
    for path in pulled.iterdir():
        assert sha256_file(path) == sha256_file(folder / path.name)


def test_hub_without_xet_gives_the_way_out(folder: Path, loopback_hub: LoopbackHub) -> None:
    with pytest.raises(NetworkError) as caught:
        publish(folder, REPO)
    assert "HF_HUB_DISABLE_XET=1" in (caught.value.hint or "")
    assert len(loopback_hub.repos[REPO].history) == 1
