"""Folders that other libraries wrote: which source opens them, and what they say about inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import JsonValue, ValidationError

from dfkd_meta.errors import TeacherError
from dfkd_meta.sidecar.files import CONFIG_FILE, WEIGHTS_FILE
from dfkd_meta.sidecar.issues import short
from dfkd_meta.sidecar.manifest import TENSOR_FILE, InputSpec
from dfkd_meta.teachers.axes import COLOR_ORDERS
from dfkd_meta.teachers.store import read_json

PREPROCESSOR_FILE = "preprocessor_config.json"
MOST_CHANNELS = 1024
UNSUPPORTED = (
    "do_center_crop",
    "do_flip_channel_order",
    "do_pad",
    "include_top",
    "rescale_offset",
)
TWICE = "EfficientNet"  # its processor divides by the deviation twice, if include_top is not false
RESAMPLE = {0: "nearest", 2: "bilinear", 3: "bicubic"}  # the codes of Pillow


@dataclass(frozen=True)
class Foreign:
    """What a folder of another library says.

    ``inputs`` is None when it does not say enough of them; then ``lacking`` tells what.
    """

    source: str
    architecture: str
    arguments: dict[str, JsonValue]
    files: list[Path]
    inputs: InputSpec | None
    lacking: str = ""


class _LackingError(Exception):
    """Why a folder does not say how inputs are prepared."""


def describe_foreign(folder: Path, config: Mapping[str, Any]) -> Foreign | None:
    """Recognize a transformers or timm folder by its ``config.json``; None for anything else.

    Raises TeacherError for arguments that are none.
    """
    names = config.get("architectures")
    settings = config.get("pretrained_cfg")
    if isinstance(config.get("model_type"), str) and isinstance(names, list) and names:
        files = [folder / CONFIG_FILE, *_transformers_tensors(folder)]
        found = Foreign("transformers", str(names[0]), {}, files, None)
        read = partial(_transformers_inputs, folder, config.get("num_channels", 3))
    elif isinstance(config.get("architecture"), str) and isinstance(settings, dict):
        given = config.get("model_args") or {}
        if not isinstance(given, dict):
            raise TeacherError("config.json: model_args is not an object", where=str(folder))
        arguments = dict(given)
        if "num_classes" in config:
            arguments["num_classes"] = config["num_classes"]
        found = Foreign("timm", config["architecture"], arguments, [folder / WEIGHTS_FILE], None)
        read = partial(_timm_inputs, settings)
    else:
        return None
    try:
        return replace(found, inputs=read())
    except _LackingError as error:
        return replace(found, lacking=str(error))


def _transformers_tensors(folder: Path) -> list[Path]:
    index = folder / f"{WEIGHTS_FILE}.index.json"
    if not index.is_file():
        return [folder / WEIGHTS_FILE]
    return [index, *sorted(set(folder.glob("*.safetensors")) - {folder / TENSOR_FILE})]


def _timm_inputs(settings: Mapping[str, Any]) -> InputSpec:
    names = ("mean", "std", "interpolation", "crop_pct", "crop_mode")
    fields = {name: settings.get(name) for name in names}
    return _spec("pretrained_cfg in config.json", shape=settings.get("input_size"), **fields)


def _transformers_inputs(folder: Path, channels: Any) -> InputSpec:
    try:
        settings = read_json(folder / PREPROCESSOR_FILE)
    except FileNotFoundError:
        raise _LackingError(f"there is no {PREPROCESSOR_FILE}") from None
    except (OSError, ValueError) as error:
        raise _LackingError(f"{PREPROCESSOR_FILE} cannot be read: {error}") from error
    if not isinstance(channels, int) or not 0 < channels <= MOST_CHANNELS:
        raise _LackingError(f"config.json: num_channels: {short(channels)}")
    try:
        if asked := [step for step in UNSUPPORTED if settings.get(step)]:
            raise _LackingError(
                f"{PREPROCESSOR_FILE} asks for {asked[0]}, for which there is no name"
            )
        kind = str(settings.get("image_processor_type"))
        if kind.startswith(TWICE) and "include_top" not in settings:
            raise _LackingError(f"{PREPROCESSOR_FILE}: {kind} normalizes twice")
        if not _to_one(settings):
            raise _LackingError(f"{PREPROCESSOR_FILE} does not make bytes values from 0 to 1")
        size, plain = settings["size"], not settings.get("do_normalize", True)
        return _spec(
            PREPROCESSOR_FILE,
            shape=[channels, size["height"], size["width"]],
            mean=[0.0] * channels if plain else settings["image_mean"],
            std=[1.0] * channels if plain else settings["image_std"],
            interpolation=_interpolation(settings["resample"]),
        )
    except KeyError as error:
        raise _LackingError(f"{PREPROCESSOR_FILE} does not say {error}") from error
    except (TypeError, OverflowError) as error:
        raise _LackingError(f"{PREPROCESSOR_FILE} is not what it should be: {error}") from error


def _to_one(settings: Mapping[str, Any]) -> bool:
    """Whether bytes become values from 0 to 1, as an input block with that range says."""
    factor = settings.get("rescale_factor", 1 / 255)
    return bool(settings.get("do_rescale", True)) and math.isclose(factor, 1 / 255, rel_tol=1e-4)


def _interpolation(code: Any) -> str:
    if code not in RESAMPLE:
        raise _LackingError(f"the standard does not know resample {code} of {PREPROCESSOR_FILE}")
    return RESAMPLE[code]


def _spec(place: str, shape: Any, **fields: Any) -> InputSpec:
    known = {name: value for name, value in fields.items() if value is not None}
    try:
        return InputSpec(
            shape=shape,
            axes=["c", "h", "w"],
            value_range=[0.0, 1.0],
            color_order=COLOR_ORDERS.get(shape[0]),
            **known,
        )
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise _LackingError(f"{place}: {field}: {first['msg']}") from error
    except (TypeError, IndexError, KeyError) as error:
        raise _LackingError(f"{place}: no shape of an input: {shape!r}") from error
