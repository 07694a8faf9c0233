"""A run that may be cut off: one file from which it goes on, to the same student bit for bit."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from dfkd_meta.checkpoint import State, load_state, save_state
from dfkd_meta.consumer.pipeline import DistillConfig
from dfkd_meta.errors import UsageError
from dfkd_meta.sidecar import MANIFEST_FILE, Sidecar, sha256_file

SAVE_EVERY = 30.0  # seconds between checkpoints; what is lost by a kill is made again, identically


class Checkpoint:
    """The file of one run: its state, and of which settings and sidecar it is."""

    def __init__(self, path: Path, sidecar: Sidecar, config: DistillConfig) -> None:
        self.path = path
        self.of = {
            "config": config.model_dump(mode="json"),
            "sidecar": sha256_file(sidecar.folder / MANIFEST_FILE),
        }
        self.saved_at = time.monotonic()

    def keep(self, state: Callable[[], State]) -> None:
        """Save the state, if it is time."""
        if time.monotonic() - self.saved_at >= SAVE_EVERY:
            self.write(state())

    def write(self, state: State) -> None:
        """Save the state now."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        save_state(self.path, {"run": state, "of": self.of})
        self.saved_at = time.monotonic()

    def restore(self, load: Callable[[State], None]) -> bool:
        """Hand over the saved state; whether there was one.

        Raises UsageError when the file is damaged, or of other settings or another sidecar.
        """
        if not self.path.exists():
            return False
        saved = load_state(self.path)
        if saved.get("of") != self.of:
            raise UsageError(
                "the interrupted run had other settings or another sidecar",
                where=str(self.path),
                hint="repeat its settings, or delete the file to start afresh",
            )
        load(saved["run"])
        return True


def interrupted_config(path: Path) -> DistillConfig:
    """The settings of an interrupted run. Raises UsageError when the file is damaged."""
    saved = load_state(path)
    try:
        return DistillConfig.model_validate(saved["of"]["config"])
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(
            "this is no interrupted run", where=str(path), hint="delete it to start afresh"
        ) from error
