"""A run that may be cut off: one file from which it goes on, to the same student."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import nn

from dfkd_meta.batches import SyntheticBatch
from dfkd_meta.checkpoint import State, load_plain, load_state, save_state
from dfkd_meta.config import flatten
from dfkd_meta.consumer.pipeline import DistillConfig
from dfkd_meta.errors import UsageError
from dfkd_meta.machine import versions
from dfkd_meta.sidecar import MANIFEST_FILE, Sidecar, sha256_file

WHAT = {
    "version": "another version of dfkd-meta",
    "sidecar": "another sidecar",
    "student": "a student of another shape",
    "given": "other data",
    "config": "other settings",
}
SAVING = 0.05  # of the time at most
SAVE_EVERY = 30.0  # seconds between checkpoints; what is lost by a kill is made again, identically


class Checkpoint:
    """The file of one run: its state, and what it is a run of.

    That are settings, sidecar, the student's shape, inputs that were given, and the version.
    """

    def __init__(
        self,
        path: Path,
        sidecar: Sidecar,
        config: DistillConfig,
        student: nn.Module,
        given: SyntheticBatch | None,
    ) -> None:
        self.path = path
        self.of = {
            "config": config.model_dump(mode="json"),
            "sidecar": sha256_file(sidecar.folder / MANIFEST_FILE),
            "student": {name: list(t.shape) for name, t in student.state_dict().items()},
            "given": None if given is None else _digest(given),
            "version": versions()["dfkd_meta"],
        }
        self.saved_at = time.monotonic()
        self.took = 0.0

    def keep(self, state: Callable[[], State]) -> None:
        """Save the state, if it is time: a large one more rarely, so that it costs little."""
        now = time.monotonic()
        if now - self.saved_at >= max(SAVE_EVERY, self.took / SAVING):
            self.write(state())
            self.took = self.saved_at - now

    def write(self, state: State) -> None:
        """Save the state now."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        save_state(self.path, {"run": state, "of": self.of})
        self.saved_at = time.monotonic()

    def restore(self, load: Callable[[State], None]) -> bool:
        """Hand over the saved state; whether there was one.

        Raises UsageError when the file is damaged, or of another run.
        """
        if not self.path.exists():
            return False
        saved = load_state(self.path)
        of = saved.get("of")
        before = of if isinstance(of, dict) else {}
        others = [WHAT[name] for name in WHAT if before.get(name) != self.of[name]]
        if others:
            settings = _different(before.get("config"), self.of["config"])
            listed = f": {', '.join(settings)}" if settings else ""
            raise UsageError(
                f"the interrupted run had {' and '.join(others)}{listed}",
                where=str(self.path),
                hint="repeat its settings, or delete the file to start afresh",
            )
        load(saved["run"])
        return True


def _different(before: object, now: object) -> list[str]:
    """The settings in which two configurations differ, as ``key=value`` of the earlier one."""
    if not isinstance(before, Mapping) or not isinstance(now, Mapping):
        return []
    old, new = flatten(before), flatten(now)
    return [f"{key}={old.get(key)}" for key in {**old, **new} if old.get(key) != new.get(key)]


def _digest(batch: SyntheticBatch) -> str:
    tensors = [batch.images] if batch.labels is None else [batch.images, batch.labels]
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.cpu().contiguous().numpy().ravel().data)
    return digest.hexdigest()


def interrupted_config(path: Path) -> DistillConfig:
    """The settings of an interrupted run. Raises UsageError when the file is damaged."""
    saved = load_plain(path)
    try:
        return DistillConfig.model_validate(saved["of"]["config"])
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(
            "this is no interrupted run", where=str(path), hint="delete it to start afresh"
        ) from error
