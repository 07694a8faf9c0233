"""Folders that other libraries wrote: which source opens them, and what they say about inputs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import JsonValue, ValidationError

from dfkd_meta.sidecar.manifest import TENSOR_FILE, InputSpec
from dfkd_meta.teachers.store import CONFIG_FILE, WEIGHTS_FILE

PREPROCESSOR_FILE = "preprocessor_config.json"
RESAMPLE = {0: "nearest", 2: "bilinear", 3: "bicubic"}  # the codes of Pillow


@dataclass(frozen=True)
class Foreign:
    """What a folder of another library says; ``inputs`` is None when it does not say enough."""

    source: str
    architecture: str
    arguments: dict[str, JsonValue]
    files: list[Path]
    inputs: InputSpec | None


def describe_foreign(folder: Path, config: Mapping[str, Any]) -> Foreign | None:
    """Recognize a transformers or timm folder by its ``config.json``; None for anything else."""
    names = config.get("architectures")
    if isinstance(config.get("model_type"), str) and isinstance(names, list) and names:
        tensors = sorted(path for path in folder.glob("*.safetensors") if path.name != TENSOR_FILE)
        index = [folder / "model.safetensors.index.json"] if len(tensors) > 1 else []
        files = [folder / CONFIG_FILE, *index, *tensors]
        return Foreign("transformers", str(names[0]), {}, files, _transformers_inputs(folder))
    settings = config.get("pretrained_cfg")
    if isinstance(config.get("architecture"), str) and isinstance(settings, dict):
        arguments = dict(config.get("model_args") or {})
        if "num_classes" in config:
            arguments["num_classes"] = config["num_classes"]
        files = [folder / WEIGHTS_FILE]
        inputs = _timm_inputs(settings)
        return Foreign("timm", config["architecture"], arguments, files, inputs)
    return None


def _timm_inputs(settings: Mapping[str, Any]) -> InputSpec | None:
    return _spec(
        shape=settings.get("input_size"),
        mean=settings.get("mean"),
        std=settings.get("std"),
        interpolation=settings.get("interpolation"),
        crop_pct=settings.get("crop_pct"),
        crop_mode=settings.get("crop_mode"),
    )


def _transformers_inputs(folder: Path) -> InputSpec | None:
    try:
        settings = json.loads((folder / PREPROCESSOR_FILE).read_text(encoding="utf-8"))
        size = settings["size"]
        return _spec(
            shape=[3, size["height"], size["width"]],
            mean=settings["image_mean"],
            std=settings["image_std"],
            interpolation=RESAMPLE[settings["resample"]],
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _spec(**fields: Any) -> InputSpec | None:
    known = {name: value for name, value in fields.items() if value is not None}
    try:
        return InputSpec(axes=["c", "h", "w"], value_range=[0.0, 1.0], color_order="rgb", **known)
    except (ValidationError, TypeError):
        return None
