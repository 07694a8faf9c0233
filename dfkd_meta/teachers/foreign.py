"""Folders that other libraries wrote: which source opens them, and what they say about inputs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import JsonValue, ValidationError

from dfkd_meta.sidecar.manifest import TENSOR_FILE, InputSpec
from dfkd_meta.teachers.axes import COLOR_ORDERS
from dfkd_meta.teachers.store import CONFIG_FILE, WEIGHTS_FILE

PREPROCESSOR_FILE = "preprocessor_config.json"
UNSUPPORTED = ("do_center_crop", "do_flip_channel_order", "do_pad")
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
        tensors, index = [folder / WEIGHTS_FILE], folder / f"{WEIGHTS_FILE}.index.json"
        if index.is_file():  # weights in several files
            tensors = [index, *sorted(set(folder.glob("*.safetensors")) - {folder / TENSOR_FILE})]
        files = [folder / CONFIG_FILE, *tensors]
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
        if any(settings.get(step) for step in UNSUPPORTED) or not _to_one(settings):
            return None
        size, plain = settings["size"], not settings.get("do_normalize", True)
        return _spec(
            shape=[3, size["height"], size["width"]],
            mean=[0.0] * 3 if plain else settings["image_mean"],
            std=[1.0] * 3 if plain else settings["image_std"],
            interpolation=RESAMPLE[settings["resample"]],
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _to_one(settings: Mapping[str, Any]) -> bool:
    """Whether bytes become values from 0 to 1, as an input block with that range says."""
    factor = settings.get("rescale_factor", 1 / 255)
    return bool(settings.get("do_rescale", True)) and math.isclose(factor, 1 / 255, rel_tol=1e-4)


def _spec(shape: Any, **fields: Any) -> InputSpec | None:
    known = {name: value for name, value in fields.items() if value is not None}
    try:
        color = COLOR_ORDERS.get(shape[0])
        return InputSpec(
            shape=shape, axes=["c", "h", "w"], value_range=[0.0, 1.0], color_order=color, **known
        )
    except (ValidationError, TypeError, IndexError, KeyError):
        return None
