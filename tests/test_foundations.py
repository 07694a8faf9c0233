"""Errors, registry, configuration, seeds, folders: what everything else stands on."""

from __future__ import annotations

import errno
import importlib
import os
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch

from dfkd_meta.config import Config, load_config
from dfkd_meta.errors import DfkdMetaError, MissingExtraError, UsageError
from dfkd_meta.folders import new_folder, require_free
from dfkd_meta.registry import Registry
from dfkd_meta.seeding import derive_seed, generator_for


class Inner(Config):
    rate: float = 0.1


class Outer(Config):
    name: str = "a"
    steps: int = 3
    inner: Inner = Inner()


def test_a_missing_extra_says_what_to_install() -> None:
    error = MissingExtraError("sklearn", "data")
    assert error.exit_code == 3
    assert error.hint == "pip install 'dfkd-meta[data]'"


def test_registry_refuses_a_name_taken_twice_and_suggests_near_ones() -> None:
    registry: Registry[int] = Registry("thing", "dfkd_meta.report")
    registry.register("recorded")(1)
    with pytest.raises(ValueError, match="registered twice"):
        registry.register("recorded")(2)
    with pytest.raises(UsageError) as caught:
        registry.get("recordet")
    assert caught.value.hint == "did you mean recorded?"
    assert registry.get("recorded") == 1


def test_a_module_that_fails_after_registering_fails_the_same_way_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "own_things"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from dfkd_meta.registry import Registry\nthings = Registry('thing', 'own_things')\n"
    )
    (package / "late.py").write_text(
        "from own_things import things\nthings.register('late')(1)\nraise OSError('no room')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    things = importlib.import_module("own_things").things
    for look in (things.names, lambda: things.get("late"), things.names):
        with pytest.raises(OSError, match="no room"):
            look()


def test_configuration_layers_file_then_assignments_then_override(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('name = "file"\nsteps = 5\n[inner]\nrate = 0.5\n')
    loaded = load_config(
        Outer, file=file, assignments=["steps=7", "inner.rate=0.25"], override={"name": "flag"}
    )
    assert loaded == Outer(name="flag", steps=7, inner=Inner(rate=0.25))


def test_a_text_that_looks_like_a_date_is_a_text() -> None:
    for text in ("2026-01-02T03:04:05Z", "2026-01-02", "03:04:05"):
        assert load_config(Outer, assignments=[f"name={text}"]).name == text


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("stepz=1", "there is no option 'stepz'"),
        ("inner.rat=1", "there is no option 'inner.rat'"),
        ("steps=many", "option 'steps'"),
        ("steps", "is not key=value"),
        ("=3", "is not key=value"),
        ("inner=3", "option 'inner'"),
    ],
)
def test_wrong_assignments_name_the_key(assignment: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_config(Outer, assignments=[assignment])


def test_configuration_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        load_config(Outer, file=tmp_path / "absent.toml")
    (tmp_path / "bad.toml").write_text("steps = ")
    with pytest.raises(UsageError, match="not TOML"):
        load_config(Outer, file=tmp_path / "bad.toml")


def test_streams_of_one_seed_differ_and_repeat() -> None:
    assert derive_seed(0, "synthesis") != derive_seed(0, "training")
    draws = [torch.rand(3, generator=generator_for(5, "synthesis")) for _ in range(2)]
    assert torch.equal(*draws)


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with new_folder(out) as folder:
        (folder / "a").write_text("1")
    assert [p.name for p in out.iterdir()] == ["a"]
    with pytest.raises(RuntimeError), new_folder(out) as folder:
        (folder / "b").write_text("2")
        raise RuntimeError
    assert [p.name for p in out.iterdir()] == ["a"]
    assert [p.name for p in out.parent.iterdir()] == ["out"]


def test_an_output_that_holds_something_is_refused_before_work(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    require_free(tmp_path / "new")
    with pytest.raises(UsageError, match="is a file"):
        require_free(tmp_path / "f")
    with pytest.raises(UsageError, match="not empty"):
        require_free(tmp_path)
    with pytest.raises(UsageError, match="neither a model nor a sidecar"):
        require_free(tmp_path, overwrite=True)
    (tmp_path / "config.json").write_text("{}")
    require_free(tmp_path, overwrite=True)


def test_an_output_that_cannot_become_a_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "loop").symlink_to("loop")
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    own = tmp_path / "own"
    monkeypatch.setenv("HOME", str(own))
    bad = [tmp_path / "loop", tmp_path / ("x" * 300), tmp_path / "\udcff", Path("/"), here, own]
    for out in [*bad, tmp_path]:
        with pytest.raises(UsageError):
            require_free(out, overwrite=True)


def test_an_output_below_a_file_or_with_too_long_a_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    for bad in (tmp_path / "f" / "x", tmp_path / "f" / "x" / "y"):
        with pytest.raises(UsageError, match="cannot write there"):
            require_free(bad)
    require_free(tmp_path / "x" / "y")
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
    require_free(tmp_path / ("x" * 250))
    with pytest.raises(UsageError, match="cannot write there"):
        require_free(tmp_path / ("x" * 250), beside=".unfinished")


def test_an_output_that_holds_what_is_needed_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "project" / "data.npz"
    data.parent.mkdir()
    data.write_bytes(b"")
    for folder in (data.parent, tmp_path):
        (folder / "config.json").write_text("{}")
    (tmp_path / "link").symlink_to(data.parent)
    for out in (data.parent, tmp_path / "link", tmp_path):
        with pytest.raises(UsageError, match=r"would replace what is needed: .*data\.npz"):
            require_free(out, overwrite=True, needed=(None, "digits", str(data)))
        with pytest.raises(UsageError) as caught:
            require_free(out, needed=(data,))
        assert caught.value.hint == "choose another --out"  # not one that is refused, too
    require_free(data.parent, overwrite=True, needed=(None, "digits", tmp_path / "elsewhere"))
    require_free(data.parent / "out", needed=(data,))


def test_a_failed_folder_leaves_no_parents_and_a_link_is_followed(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), new_folder(tmp_path / "a" / "b"):
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to("target")
    with new_folder(tmp_path / "link") as folder:
        (folder / "f").write_text("1")
    assert (tmp_path / "target" / "f").is_file()
    assert (tmp_path / "link").is_symlink()


def test_a_plug_in_that_cannot_be_loaded_breaks_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken = EntryPoint("wonderful", "no_such_module_here", "dfkd_meta.report")
    monkeypatch.setattr("dfkd_meta.registry.entry_points", lambda group: [broken])
    registry: Registry[int] = Registry("thing", "dfkd_meta.report")
    registry.register("recorded")(1)
    assert registry.get("recorded") == 1
    with pytest.raises(UsageError) as caught:
        registry.get("wonderful")
    assert "wonderful: ModuleNotFoundError" in (caught.value.hint or "")


def test_an_error_in_a_log_says_where_and_what_next() -> None:
    assert str(UsageError("no such file", where="a.toml", hint="look")) == (
        "no such file (a.toml); look"
    )
    assert str(UsageError("no such file")) == "no such file"


def test_a_mount_point_is_refused_before_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.path.ismount", lambda path: Path(path) == tmp_path / "disk")
    (tmp_path / "disk").mkdir()
    with pytest.raises(UsageError, match="a mount point") as caught:
        require_free(tmp_path / "disk")
    assert caught.value.hint == "name a folder inside it"
    require_free(tmp_path / "disk" / "student")


@pytest.mark.parametrize("error", [OSError(errno.EBUSY, "busy"), KeyboardInterrupt()])
@pytest.mark.parametrize("moves", [0, 1, 2])
def test_an_exchange_that_fails_halfway_is_undone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, moves: int
) -> None:
    """After ``moves`` of the two steps of the exchange."""
    out = tmp_path / "out"
    with new_folder(out) as folder:
        (folder / "old").touch()
    replace, done = os.replace, []

    def failing(source: Path, target: Path) -> None:
        done.append(source)
        if len(done) == moves + 1:
            raise error
        replace(source, target)
        if len(done) == moves == 2:
            raise error

    with (
        monkeypatch.context() as patched,
        pytest.raises((DfkdMetaError, KeyboardInterrupt)),
        new_folder(out) as folder,
    ):
        (folder / "new").touch()
        patched.setattr("os.replace", failing)
    assert [path.name for path in out.iterdir()] == ["new" if moves == 2 else "old"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
