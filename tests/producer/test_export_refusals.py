"""What an export refuses, and that it then leaves everything as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from dfkd_meta.errors import DataError, StatisticsError, UsageError
from dfkd_meta.producer import blocks
from dfkd_meta.producer.export import export
from dfkd_meta.sidecar import SidecarError
from dfkd_meta.teachers import open_teacher
from tests.producer.toys import builtin, config, data


def test_small_class_is_refused_before_the_pass(tmp_path: Path) -> None:
    settings = config("minimal", min_count=31)
    with pytest.raises(StatisticsError, match=r"4 class\(es\) have fewer than 31 samples"):
        export(builtin(), data(), settings, tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("existing", [False, True])
def test_a_failing_export_leaves_the_folder_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, existing: bool
) -> None:
    out = tmp_path / "out"
    if existing:
        export(builtin(), data(), config("minimal"), out)
    before = {path.name: path.read_bytes() for path in out.iterdir()} if existing else {}
    monkeypatch.setattr(blocks, "tracing_strength", lambda features, count: 1e9)  # DM404
    if existing:
        with pytest.raises(UsageError, match="not empty"):
            export(builtin(), data(), config("standard"), out)
    with pytest.raises(SidecarError, match="DM404") as caught:
        export(builtin(), data(), config("standard"), out, overwrite=True)
    assert str(out) in (caught.value.where or "")
    assert caught.value.hint is None
    teacher = open_teacher(out) if existing else builtin()
    with pytest.raises(SidecarError):
        export(teacher, data(), config("standard"), out)
    assert ({path.name: path.read_bytes() for path in out.iterdir()} if existing else {}) == before
    assert [path.name for path in tmp_path.iterdir()] == (["out"] if existing else [])


def test_labels_that_no_record_counts_are_not_looked_at(tmp_path: Path) -> None:
    export(builtin(), data(classes=5), config(only=["power_spectrum/*"]), tmp_path / "out")


def test_wrong_data(tmp_path: Path) -> None:
    with pytest.raises(StatisticsError, match="label 4"):
        export(builtin(), data(classes=5), config("minimal", min_count=1), tmp_path / "out")
    with pytest.raises(DataError, match="labels"):
        export(
            builtin(),
            data(),
            config("minimal"),
            tmp_path / "out",
            evaluation=data(labeled=False, split="test"),
        )
    teacher = builtin()
    next(teacher.module.parameters()).fill_(float("nan"))
    with pytest.raises(StatisticsError, match="NaN"):
        export(teacher, data(), config("minimal"), tmp_path / "out")
    assert not list(tmp_path.iterdir())
