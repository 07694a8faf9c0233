"""``dfkd-meta schema``: the JSON Schema that was released with this version."""

from __future__ import annotations

import sys
from importlib.resources import files


def command() -> None:
    """Print the JSON Schema (2020-12) of dfkd_meta.json, as it was released.

    Example: dfkd-meta schema > dfkd_meta.schema.json
    """
    # Read straight from the package data: nothing of the library is needed.
    released = files("dfkd_meta._schema") / "v1.0/dfkd_meta.schema.json"
    sys.stdout.write(released.read_text(encoding="utf-8"))
