"""Write schema/v1.0/dfkd_meta.schema.json and its digest, and the error table of the README.

    python -m tests.schema.publish_schema

Run by hand, from the repository root, only before the format is released: a released schema is
frozen, and what changes goes into a new folder.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from dfkd_meta.sidecar.codes import CODES
from dfkd_meta.sidecar.json_schema import generate_schema

SCHEMA = Path(__file__).parents[2] / "schema"
README = SCHEMA / "README.md"
BEGIN, END = "<!-- codes: generated -->\n", "<!-- codes: end -->\n"


def error_table() -> str:
    """The catalogue as a Markdown table."""
    rows = ["| code | severity | meaning | how to mend |", "|---|---|---|---|"]
    for name, code in CODES.items():
        rows.append(f"| `{name}` | {code.severity} | {code.title} | {code.mend} |")
    return "\n".join(rows) + "\n"


def with_table(text: str) -> str:
    """The README with the table between its marks renewed."""
    before, rest = text.split(BEGIN)
    return before + BEGIN + error_table() + END + rest.split(END)[1]


def main() -> int:
    """Write the three files."""
    schema = generate_schema()
    (SCHEMA / "v1.0" / "dfkd_meta.schema.json").write_bytes(schema)
    (SCHEMA / "v1.0" / "SHA256").write_text(
        f"{hashlib.sha256(schema).hexdigest()}  dfkd_meta.schema.json\n", encoding="utf-8"
    )
    README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
