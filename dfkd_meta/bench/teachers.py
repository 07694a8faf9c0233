"""The teachers of a grid with their sidecars: found, or made once and kept beside the results."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from dfkd_meta.bench.cells import digest_of
from dfkd_meta.bench.grid import Grid, TeacherEntry, Variant, train_config, variant_of
from dfkd_meta.bench.journal import write_text
from dfkd_meta.bench.places import Places
from dfkd_meta.data import open_data
from dfkd_meta.folders import new_folder
from dfkd_meta.hub import resolve_source
from dfkd_meta.machine import versions
from dfkd_meta.producer.config import Profile
from dfkd_meta.producer.export import export
from dfkd_meta.producer.opening import open_for_export
from dfkd_meta.producer.train import train_network
from dfkd_meta.progress import Progress
from dfkd_meta.sidecar import MANIFEST_FILE, TENSOR_FILE, redact_sidecar, sha256_file
from dfkd_meta.teachers import save_teacher


@dataclass(frozen=True)
class ReadyTeacher:
    """A folder with teacher and sidecar, relative to that of the bench if it lies in it.

    ``digest`` is that of what both hold (not of when they were made); ``size`` the bytes of the
    sidecar; ``made_from`` the digest of the entry it was made from.
    """

    folder: str
    digest: str
    size: int
    made_from: str
    repo_id: str | None = None
    commit: str | None = None


class Teachers:
    """The teachers of ``grid`` as they lie in ``out``, each with a stamp that says what it is."""

    def __init__(self, grid: Grid, out: Path, places: Places) -> None:
        self.grid = grid
        self.out = out
        self.places = places

    def find(self, name: str, profile: str) -> ReadyTeacher | None:
        """The teacher as an earlier run left it; None when it has to be made (again).

        A Hub id is resolved once per folder: a bench keeps the commit that it began with.
        """
        try:
            text = self._stamp(name, profile).read_text(encoding="utf-8")
            found = ReadyTeacher(**json.loads(text))
            current = found.made_from == self._made_from(name, profile)
            unchanged = current and found.digest == sidecar_digest(self.out / found.folder)
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return found if unchanged else None

    def make(
        self, name: str, profile: str, *, device: torch.device, progress: Progress
    ) -> ReadyTeacher:
        """Pull or make one teacher with its sidecar. Raises what pulling, training, export do."""
        entry = self.grid.teachers[name]
        repo_id = commit = None
        if entry.published is not None:
            one = entry.published if isinstance(entry.published, str) else entry.published[profile]
            pulled = resolve_source(self.places.expand(one, "published"), progress=progress)
            folder, repo_id, commit = pulled.folder.resolve(), pulled.repo_id, pulled.commit
        else:
            folder = self._place(name) / profile
            variant = variant_of(self.grid, profile)
            if variant.leave_out or variant.only:
                self._redact(name, variant, folder, device, progress)
            else:
                self._export(name, variant.profile, folder, device, progress)
        ready = ReadyTeacher(
            folder=str(folder.relative_to(self.out) if entry.published is None else folder),
            digest=sidecar_digest(folder),
            size=sum((folder / file).stat().st_size for file in (MANIFEST_FILE, TENSOR_FILE)),
            made_from=self._made_from(name, profile),
            repo_id=repo_id,
            commit=commit,
        )
        stamp = self._stamp(name, profile)
        stamp.parent.mkdir(parents=True, exist_ok=True)
        write_text(stamp, json.dumps(asdict(ready), indent=2))
        return ready

    def _redact(
        self, name: str, variant: Variant, folder: Path, device: torch.device, progress: Progress
    ) -> None:
        """Some records of a profile: the same as if they alone had been exported."""
        whole = self.find(name, variant.profile) or self.make(
            name, variant.profile, device=device, progress=progress
        )
        redact_sidecar(
            self.out / whole.folder,
            folder,
            leave_out=variant.leave_out,
            only=variant.only,
            overwrite=True,
        )

    def _export(
        self, name: str, profile: Profile, folder: Path, device: torch.device, progress: Progress
    ) -> None:
        entry = self.grid.teachers[name]
        settings = entry.export.model_copy(update={"profile": profile})
        model = str(self.places.expand(entry.model, "model"))
        weights = self.places.expand(entry.weights, "weights")
        if entry.train is not None:
            model = str(self._trained(name, entry, device, progress))
        teacher = open_for_export(model, weights and Path(weights), settings).to(device)
        data = open_data(self.places.expand(entry.data, "data"), split="train")
        test = open_data(self.places.expand(entry.test or entry.data, "test"), split="test")
        progress.step(f"exporting {name}, profile {profile}")
        export(teacher, data, settings, folder, evaluation=test, overwrite=True, progress=progress)

    def _trained(
        self, name: str, entry: TeacherEntry, device: torch.device, progress: Progress
    ) -> Path:
        """The folder of a teacher trained here, once for all profiles."""
        decisive = {"model": entry.model, "train": entry.train, "data": entry.data}
        folder = self._place(name) / f".{digest_of({**decisive, 'by': _package()})}"
        if folder.is_dir():
            return folder
        data = open_data(self.places.expand(entry.data, "data"), split="train")
        progress.step(f"training {name} ({entry.model}) on {len(data):,} samples of {data.name}")
        config = train_config(name, entry)
        net = train_network(str(entry.model), data, config, device=device, progress=progress)
        with new_folder(folder) as scratch:
            save_teacher(scratch, net)
        return folder

    def _made_from(self, name: str, profile: str) -> str:
        """The digest of what decides a teacher and its sidecar: the entry, the weights it names."""
        entry = self.grid.teachers[name]
        decisive: dict[str, Any] = entry.model_dump(
            mode="json", exclude={"students", "profiles", "benchmark"}
        )
        if entry.weights is not None:
            weights = Path(self.places.expand(entry.weights, "weights"))
            decisive["weights"] = sha256_file(weights) if weights.is_file() else str(weights)
        which = profile if entry.published else variant_of(self.grid, profile).model_dump()
        return digest_of({"entry": decisive, "profile": which, "by": _package()})

    def _stamp(self, name: str, profile: str) -> Path:
        return self._place(name) / f"{profile}.json"

    def _place(self, name: str) -> Path:
        """Where the sidecars of one teacher lie, each with its stamp, and the teacher if trained.

        Names may hold any of the characters that could part two of them.
        """
        return self.out / "teachers" / name


def sidecar_digest(folder: Path) -> str:
    """The digest of a sidecar's content, and through the digests in it of all weights and tensors.

    The time of its making does not count, so that making it again gives the same digest.
    """
    manifest = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
    manifest["provenance"].pop("created", None)
    return digest_of(manifest)


def _package() -> str:
    return versions()["dfkd_meta"]
