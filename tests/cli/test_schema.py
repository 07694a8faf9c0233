from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from dfkd_meta_cli.main import app

RELEASED = Path(__file__).parents[2] / "schema" / "v1.0" / "dfkd_meta.schema.json"


def test_it_prints_the_released_schema() -> None:
    result = CliRunner().invoke(app, ["schema"])
    assert result.exit_code == 0
    assert result.stdout.encode() == RELEASED.read_bytes()
