from __future__ import annotations

from typer.testing import CliRunner

from dfkd_meta.sidecar.json_schema import generate_schema
from dfkd_meta_cli.main import app


def test_it_prints_the_released_schema() -> None:
    result = CliRunner().invoke(app, ["schema"])
    assert result.exit_code == 0
    assert result.stdout.encode() == generate_schema()
