"""A model as a folder: ``model.safetensors`` and ``config.json``, enough to open it again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from safetensors.torch import save
from torch import nn

from dfkd_meta.errors import TeacherError
from dfkd_meta.folders import write_whole
from dfkd_meta.sidecar.files import CONFIG_FILE, MAX_CONFIG_BYTES, WEIGHTS_FILE
from dfkd_meta.sidecar.manifest import InputSpec, OutputSpec
from dfkd_meta.teachers.teacher import Teacher


class ModelConfig(BaseModel):
    """The part of ``config.json`` that builds the model; other keys are kept and not read."""

    model_config = ConfigDict(extra="allow", frozen=True)

    source: str
    architecture: str
    arguments: dict[str, JsonValue] = Field(default_factory=dict)
    inputs: InputSpec
    outputs: OutputSpec


def save_model(
    folder: Path,
    module: nn.Module,
    *,
    source: str,
    architecture: str,
    arguments: Mapping[str, JsonValue],
    inputs: InputSpec,
    outputs: OutputSpec,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write the two files; each appears complete or not at all, the weights first.

    ``extra`` adds keys to ``config.json`` (lineage, training settings). Raises TeacherError when
    the folder cannot be written, ValueError when ``extra`` would shadow a key of the model.
    """
    config: dict[str, Any] = {
        "source": source,
        "architecture": architecture,
        "arguments": dict(arguments),
        "inputs": inputs.model_dump(mode="json", exclude_none=True),
        "outputs": outputs.model_dump(mode="json", exclude_none=True),
    }
    clash = sorted(set(config) & set(extra or {}))
    if clash:
        raise ValueError(f"extra would shadow {clash}")
    tensors = {
        key: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for key, value in module.state_dict().items()
    }
    text = json.dumps({**config, **(extra or {})}, indent=2, sort_keys=True, allow_nan=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        weights = save(tensors, metadata={"format": "pt"})
        write_whole(folder, {WEIGHTS_FILE: weights, CONFIG_FILE: (text + "\n").encode()})
    except OSError as error:
        raise TeacherError(
            f"cannot write the model: {error.strerror}", where=str(folder)
        ) from error


def save_teacher(folder: Path, teacher: Teacher) -> None:
    """``save_model`` with all that a teacher knows of itself."""
    save_model(
        folder,
        teacher.module,
        source=teacher.source,
        architecture=teacher.architecture,
        arguments=teacher.arguments,
        inputs=teacher.inputs,
        outputs=teacher.outputs,
    )


def read_config(folder: Path) -> dict[str, Any]:
    """``config.json`` of a folder as data. Raises TeacherError."""
    try:
        return read_json(folder / CONFIG_FILE)
    except OSError as error:
        raise TeacherError(
            f"not a model folder: config.json: {error.strerror}",
            where=str(folder),
            hint="a model folder holds config.json and model.safetensors",
        ) from error
    except ValueError as error:
        raise TeacherError(str(error), where=str(folder)) from error


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a plain file of at most 4 MiB. Raises OSError, ValueError."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{path.name} is not a plain file")
    with path.open("rb") as file:
        text = file.read(MAX_CONFIG_BYTES + 1)
    if len(text) > MAX_CONFIG_BYTES:
        raise ValueError(f"{path.name} is larger than 4 MiB")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} is not a JSON object")
    return found


def parse_config(config: Mapping[str, Any], *, where: str) -> ModelConfig:
    """Check a ``config.json`` of this package. Raises TeacherError that names the key."""
    try:
        found = ModelConfig.model_validate(dict(config))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise TeacherError(f"config.json: {key}: {first['msg']}", where=where) from error
    names, classes = found.outputs.label_names, found.outputs.num_classes
    if names is not None and len(names) != classes:
        text = f"config.json: outputs.label_names: {len(names)} names for {classes} classes"
        raise TeacherError(text, where=where)
    return found
