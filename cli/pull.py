"""``dfkd-meta pull``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from dfkd_meta_cli.options import AsJson, Quiet, Token
from dfkd_meta_cli.output import TerminalProgress, errors_as_text, print_json, print_line


def command(
    source: Annotated[str, typer.Argument(metavar="ID", help="user/repo or user/repo@revision.")],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit.")] = None,
    local_dir: Annotated[Path | None, typer.Option(help="Put the files here.")] = None,
    cache_dir: Annotated[Path | None, typer.Option(help="Use another download cache.")] = None,
    token: Token = None,
    json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Download a teacher and its sidecar from the Hub and check every digest.

    Only the sidecar, the weights it names and config.json are fetched, all from one commit.

    Example: dfkd-meta pull user/lenet5-mnist --local-dir teacher
    """
    with errors_as_text():
        from dfkd_meta.hub import hide_bars, pull

        if quiet or json or not sys.stderr.isatty():
            hide_bars()

        pulled = pull(
            source,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_dir=local_dir,
            progress=TerminalProgress(quiet=quiet or json),
        )
        files = {path.name: path.stat().st_size for path in pulled.files()}
        if json:
            facts = {"repo_id": pulled.repo_id, "commit": pulled.commit, "files": files}
            print_json(facts | {"folder": str(pulled.folder)})
            return
        print_line(f"{pulled.repo_id}@{pulled.commit}")
        print_line(str(pulled.folder))
