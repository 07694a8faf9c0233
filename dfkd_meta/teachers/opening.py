"""Opening a teacher: a folder, a built-in architecture, the caller's own code, or a sidecar."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import JsonValue

from dfkd_meta.errors import TeacherError, UsageError
from dfkd_meta.sidecar import CONFIG_FILE, WEIGHTS_FILE, Sidecar, read_sidecar, sha256_file
from dfkd_meta.sidecar.manifest import MANIFEST_FILE, InputSpec, OutputSpec, WeightFile
from dfkd_meta.teachers.architectures import architectures
from dfkd_meta.teachers.foreign import describe_foreign
from dfkd_meta.teachers.inputs import check_inputs, inputs_needed
from dfkd_meta.teachers.own_code import is_own_code, parameters_of
from dfkd_meta.teachers.sources import SourceRequest, sources
from dfkd_meta.teachers.store import parse_config, read_config
from dfkd_meta.teachers.teacher import Teacher, freeze, probe, suited_layout

OWN_CODE = ("local", "hub_mixin")  # sources that call the factory; others refuse one


def open_teacher(
    where: str | Path,
    *,
    weights: Path | None = None,
    inputs: InputSpec | None = None,
    num_classes: int | None = None,
    arguments: Mapping[str, JsonValue] | None = None,
    factory: str | None = None,
) -> Teacher:
    """Open a teacher from one of

    * a folder with ``config.json`` and ``model.safetensors`` as ``save_model`` writes them, a
      folder with a sidecar, or a folder of transformers, timm or PyTorchModelHubMixin;
    * the name of a built-in architecture, with ``weights``, ``inputs`` and ``num_classes``;
    * ``module:factory``, the caller's own code, with ``inputs`` and usually ``weights``.

    ``arguments`` go to the architecture or factory, ``num_classes`` too if it takes it; ``factory``
    builds folders that say ``local`` or come from PyTorchModelHubMixin; ``inputs`` serve folders
    that do not state theirs. Raises TeacherError, UsageError or MissingExtraError.
    """
    name = str(where)
    if os.path.isdir(where):
        if num_classes is not None or arguments:
            what = "num_classes" if num_classes is not None else "arguments"
            raise UsageError(f"a model folder says its {what} itself", where=name)
        return _open_folder(Path(where), inputs, factory)
    check_name(name)
    own = is_own_code(name)
    if inputs is None:
        raise inputs_needed(name, "the weights do not say it")
    given = dict(arguments or {})
    if not own:
        given.setdefault("shape", list(inputs.shape))
    if num_classes is not None and (not own or "num_classes" in parameters_of(name)):
        given.setdefault("num_classes", num_classes)
    files = () if weights is None else (weights,)
    request = SourceRequest(name, given, files, name if own else factory)
    return _open("local" if own else "builtin", request, inputs, num_classes)


def check_name(name: str) -> None:
    """Raises UsageError when a name can be no teacher: no folder, architecture or own code."""
    if not os.path.isdir(name) and not is_own_code(name) and name not in architectures.names():
        raise UsageError(
            f"{name!r} is neither a model folder, a built-in architecture nor module:factory",
            hint="built in: " + ", ".join(architectures.names()),
        )


def teacher_from_sidecar(folder: Path, sidecar: Sidecar, *, factory: str | None = None) -> Teacher:
    """Open the teacher a sidecar describes, from files in ``folder`` whose digests agree.

    ``factory`` (``module:factory``, the caller's own code) is required for the sources ``local``
    and ``hub_mixin``; it is called with the arguments of the manifest. Raises TeacherError when a
    file is missing or is not the one the manifest binds, and what the source raises.
    """
    reference = sidecar.manifest.teacher
    files = tuple(_verified(folder, entry) for entry in reference.files)
    arguments, outputs = dict(reference.arguments), sidecar.manifest.outputs
    if reference.source in OWN_CODE and factory and "num_classes" in parameters_of(factory):
        arguments.setdefault("num_classes", outputs.num_classes)
    request = SourceRequest(reference.architecture, arguments, files, factory)
    return _open(reference.source, request, sidecar.manifest.inputs, sidecar.manifest.outputs)


def _open_folder(folder: Path, inputs: InputSpec | None, factory: str | None) -> Teacher:
    has_sidecar = (folder / MANIFEST_FILE).is_file()
    raw = {} if has_sidecar and not (folder / CONFIG_FILE).is_file() else read_config(folder)
    weights = (folder / WEIGHTS_FILE,)
    if inputs is not None and ("source" in raw or has_sidecar):
        raise UsageError("the folder says itself how inputs are prepared", where=str(folder))
    if "source" in raw:
        config = parse_config(raw, where=str(folder / CONFIG_FILE))
        request = SourceRequest(config.architecture, config.arguments, weights, factory)
        return _open(config.source, request, config.inputs, config.outputs)
    if has_sidecar:
        return teacher_from_sidecar(folder, read_sidecar(folder), factory=factory)
    foreign = describe_foreign(folder, raw)
    if foreign is None and factory is None:
        raise TeacherError(
            "config.json is not from dfkd-meta, transformers or timm",
            where=str(folder),
            hint="for a class of your own, name it: module:Class",
        )
    spec = inputs or (foreign.inputs if foreign else None)
    if spec is None:
        raise inputs_needed(
            str(folder), foreign.lacking if foreign else "config.json does not say it"
        )
    if foreign is None:
        return _open("hub_mixin", SourceRequest(str(factory), raw, weights, factory), spec, None)
    request = SourceRequest(foreign.architecture, foreign.arguments, tuple(foreign.files), factory)
    return _open(foreign.source, request, spec, None)


def _open(
    source: str, request: SourceRequest, inputs: InputSpec, outputs: OutputSpec | int | None
) -> Teacher:
    if request.factory is not None and source not in OWN_CODE:
        raise UsageError(
            f"the teacher is one of {source}, and a factory builds code of one's own",
            where=request.where,
            hint="leave --factory out",
        )
    check_inputs(inputs, request.where)
    module = freeze(sources.get(source)(request))
    classes = probe(module, inputs, where=request.where)
    suited_layout(module, inputs.shape)
    if not isinstance(outputs, OutputSpec):
        outputs = OutputSpec(num_classes=classes if outputs is None else outputs)
    if outputs.num_classes != classes:
        raise TeacherError(
            f"the model returns {classes} logits, but {outputs.num_classes} classes are stated",
            where=request.where,
        )
    return Teacher(
        module=module,
        source=source,
        architecture=request.architecture,
        arguments=request.arguments,
        inputs=inputs,
        outputs=outputs,
        weights=request.weights,
        files=request.files,
        factory=request.factory,
    )


def _verified(folder: Path, entry: WeightFile) -> Path:
    path = folder / entry.path
    if not path.is_file():
        raise TeacherError(
            f"the teacher file {entry.path} is missing",
            where=str(folder),
            hint="put it beside the sidecar, or pull the repository again",
        )
    if sha256_file(path) != entry.sha256:
        raise TeacherError(
            f"{entry.path} is not the file that the sidecar was computed from (digest differs)",
            where=str(path),
            hint="the weights changed after the export: export again, or get the old weights",
        )
    return path
