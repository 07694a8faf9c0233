"""``list options``: what can be set, for verbs and methods alike."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dfkd_meta_cli.main import app


@pytest.mark.parametrize(
    ("of", "option", "default"),
    [
        ("distill", "training.steps", "4000"),
        ("export", "profile", '"standard"'),
        ("train", "seed", "0"),
        ("demo", "student_training.steps", "1000"),
        ("recorded", "options.steps", "60"),
        ("real_data", "options.data", ""),
    ],
)
def test_options_with_types_and_defaults(of: str, option: str, default: str) -> None:
    result = CliRunner().invoke(app, ["list", "options", of, "--json"])
    rows = {row["option"]: row for row in json.loads(result.stdout)}
    assert rows[option]["default"] == default
    assert not any("." in row["type"].replace("...", "") for row in rows.values())
    assert option in CliRunner().invoke(app, ["list", "options", of]).stdout


def test_what_would_be_ignored_is_refused() -> None:
    for extra in (["methods", "recorded"], ["losses", "kd"], ["losses", "--factory", "a:b"]):
        assert CliRunner().invoke(app, ["list", *extra]).exit_code == 2


def test_options_of_nothing() -> None:
    result = CliRunner().invoke(app, ["list", "options", "recordd"])
    assert result.exit_code == 2
    assert "did you mean recorded" in result.stderr


def test_methods_for_a_folder_with_the_weights_of_their_terms(
    published: Callable[[str, str], Path],
) -> None:
    folder = published("digits_cnn", "minimal")
    listed = ["list", "methods", "--for", str(folder), "--json"]
    rows = {row["method"]: row for row in json.loads(CliRunner().invoke(app, listed).stdout)}
    assert {name for name, row in rows.items() if float(row["bn"] or 0)} >= {"recorded", "cmi"}
    assert rows["noise"]["bn"] == rows["noise"]["note"] == ""
    assert rows["lopes_all_layers_dropout"]["note"].startswith("cannot run")
    refused = CliRunner().invoke(app, ["list", "losses", "--for", str(folder)])
    assert refused.exit_code == 2


def test_defaults_of_options_are_those_of_the_verb() -> None:
    """``train`` has another batch size and loss than ``distill``."""
    rows = json.loads(CliRunner().invoke(app, ["list", "options", "train", "--json"]).stdout)
    found = {row["option"]: row["default"] for row in rows}
    assert found["training.batch_size"] == "128"
    assert found["training.losses"] == '{"hard": 1.0}'
