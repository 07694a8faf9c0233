"""Saved states come back as they were, and nothing else can be read as one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dfkd_meta import checkpoint
from dfkd_meta.checkpoint import load_plain, load_state, save_state
from dfkd_meta.consumer.interruption import interrupted_config
from dfkd_meta.consumer.pipeline import DistillConfig
from dfkd_meta.errors import DfkdMetaError, UsageError

PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
TENSORS = st.sampled_from(
    [torch.zeros(0), torch.arange(6).view(2, 3), torch.ones(2, dtype=torch.bool), torch.tensor(1.5)]
)
STATES = st.dictionaries(
    st.text(max_size=5),
    st.recursive(
        PLAIN | TENSORS,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.text(max_size=5), inner, max_size=3)
            | st.dictionaries(st.integers(0, 9), inner, max_size=3)
        ),
        max_leaves=8,
    ),
)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and one.equal(other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and bool(one == other)


@given(state=STATES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_state_survives_the_file(state: dict[str, Any], tmp_path: Path) -> None:
    save_state(tmp_path / "s", state)
    assert same(state, load_state(tmp_path / "s"))


def test_optimizer_states_survive(tmp_path: Path) -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    adam = torch.optim.AdamW([weight], lr=0.1)
    weight.sum().backward()
    adam.step()
    save_state(tmp_path / "s", adam.state_dict())
    other = torch.optim.AdamW([torch.nn.Parameter(weight.detach().clone())], lr=0.3)
    other.load_state_dict(load_state(tmp_path / "s"))
    assert other.param_groups[0]["lr"] == 0.1
    assert same(adam.state_dict()["state"], other.state_dict()["state"])


def test_views_of_one_storage_and_live_tensors_are_copied(tmp_path: Path) -> None:
    base = torch.arange(4.0)
    save_state(tmp_path / "s", {"a": base[:2], "b": base, "c": base[::2]})
    base += 1
    assert load_state(tmp_path / "s")["b"].tolist() == [0, 1, 2, 3]


def test_settings_are_read_without_the_tensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pool takes up to gigabytes, and ``--budget --resume`` only wants to know the settings."""
    config, place = DistillConfig(seed=7), tmp_path / "s"
    save_state(
        place, {"run": {"pool": [torch.zeros(4)]}, "of": {"config": config.model_dump(mode="json")}}
    )
    real = checkpoint.safe_open

    @contextmanager
    def head(path: Path, framework: str) -> Iterator[SimpleNamespace]:
        with real(path, framework=framework) as file:
            yield SimpleNamespace(metadata=file.metadata, keys=file.keys)

    monkeypatch.setattr(checkpoint, "safe_open", head)
    assert interrupted_config(place) == config
    assert load_plain(place)["run"] == {"pool": [None]}


def test_what_is_no_state_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="cannot hold"):
        save_state(tmp_path / "s", {"a": object()})
    assert not (tmp_path / "s").exists()
    for content in (b"", b"\x80\x04K\x01.", b"{}"):
        (tmp_path / "bad").write_bytes(content)
        with pytest.raises(UsageError, match="cannot be read"):
            load_state(tmp_path / "bad")
    with pytest.raises(UsageError, match="cannot be read"):
        load_state(tmp_path / "none")


def test_a_disk_that_fails_late_is_said_and_leaves_the_earlier_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = {"weights": torch.arange(100)}
    save_state(tmp_path / "s", state)

    def failing(file: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(checkpoint.os, "fsync", failing)
    with pytest.raises(DfkdMetaError, match="cannot write"):
        save_state(tmp_path / "s", {"weights": torch.zeros(100)})
    assert same(state, load_state(tmp_path / "s"))
    assert list(tmp_path.iterdir()) == [tmp_path / "s"]


def test_a_full_disk_is_said_and_leaves_the_earlier_file(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")  # not on Windows
    state = {"weights": torch.arange(100)}
    save_state(tmp_path / "s", state)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # bytes: larger files are refused
    try:
        with pytest.raises(DfkdMetaError, match=r"cannot write.*File too large"):
            save_state(tmp_path / "s", {"weights": torch.zeros(10_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert same(state, load_state(tmp_path / "s"))
    assert list(tmp_path.iterdir()) == [tmp_path / "s"]
