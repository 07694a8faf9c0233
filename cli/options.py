"""Options that several verbs share, spelled once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="TOML file with values for this command.")
]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Set one value; repeat for more."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the same facts as JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a non-empty output folder.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, or auto (cuda when there is one).")]
Factory = Annotated[
    str | None,
    typer.Option(help="Your own module:function for a teacher that is not built in."),
]
Token = Annotated[str | None, typer.Option(help="Access token for the Hub.")]


def given(**flags: Any) -> dict[str, Any]:
    """The flags that were given, to override what a configuration says."""
    return {name: value for name, value in flags.items() if value is not None}


def pick_device(name: str) -> Any:
    """The torch device called ``name``. Raises UsageError."""
    import torch

    from dfkd_meta.errors import UsageError

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(
            f"there is no device {name!r}", hint="cpu, cuda, cuda:0 or auto"
        ) from error
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"device {name!r} is not supported", hint="cpu, cuda, cuda:0 or auto")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError("this machine offers torch no CUDA device", hint="use --device cpu")
    if device.type == "cuda" and (device.index or 0) >= (count := torch.cuda.device_count()):
        raise UsageError(f"there is no device {name!r}", hint=f"cuda:0 to cuda:{count - 1}")
    return device
