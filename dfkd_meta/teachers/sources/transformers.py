"""Image classifiers of the transformers library, from verified local files only."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dfkd_meta.errors import MissingExtraError, TeacherError
from dfkd_meta.sidecar.files import CONFIG_FILE
from dfkd_meta.teachers.sources import SourceRequest, sources
from dfkd_meta.teachers.store import read_config

# What makes the library fetch kernels, backbones or quantizers. Code of the model's own is not
# among it (auto_map): that is not run without trust_remote_code.
FORBIDDEN = (
    "attn_implementation",
    "_attn_implementation",
    "experts_implementation",
    "_experts_implementation",
    "quantization_config",
    "backbone",
    "backbone_kwargs",
    "use_pretrained_backbone",
    "use_timm_backbone",
)
HARMLESS = ("eager", "sdpa")
LABELS = ("id2label", "label2id")  # a class may be called anything


@sources.register("transformers")
def open_transformers(request: SourceRequest) -> nn.Module:
    """Load ``AutoModelForImageClassification`` and make it return plain logits.

    The library sees a folder that holds the request's files and nothing else, so that no adapter,
    pickle or code beside them is picked up. Weights become float32, as inputs are, whatever the
    file holds. Module paths stay the library's own.
    """
    for path in request.files:
        if path.name == CONFIG_FILE:
            refuse_other_code(read_config(path.parent), str(path))
    try:
        from transformers import AutoModelForImageClassification
    except ImportError as error:
        raise MissingExtraError("transformers", "transformers") from error
    with tempfile.TemporaryDirectory() as folder:
        for path in request.files:
            (Path(folder) / path.name).symlink_to(path.resolve())
        try:
            module, found = AutoModelForImageClassification.from_pretrained(
                folder,
                dtype=torch.float32,
                trust_remote_code=False,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
            )
        except (OSError, ValueError, KeyError, RuntimeError, ImportError, TypeError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise TeacherError(
                f"transformers cannot load {request.architecture}: {reason}", where=request.where
            ) from error
    if unfilled := sorted({str(key) for key in (*found["missing_keys"], *_names(found))}):
        raise TeacherError(
            f"the file does not hold {unfilled[0]} and {len(unfilled) - 1} more weights of the "
            "classifier, which would be random",
            where=request.where,
            hint="fine-tune the model as an image classifier, and save that",
        )
    loaded: nn.Module = module
    loaded.register_forward_hook(_logits)
    return loaded


def refuse_other_code(config: Mapping[str, Any], where: str) -> None:
    """Raises TeacherError when a ``config.json``, or a part of it, can bring in other code."""
    for key, value in _settings(config):
        timm = key == "model_type" and str(value).startswith("timm_")  # passes arguments on
        if timm or (key in FORBIDDEN and value and value not in HARMLESS):
            raise TeacherError(
                f"config.json sets {key}, which can bring in other code",
                where=where,
                hint="save the model as one of timm, with its own config.json"
                if timm
                else f"take {key} out of config.json; a sidecar has then to be exported again",
            )


def _settings(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key and its value, of the parts within a configuration too."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield key, part
            if key not in LABELS:
                yield from _settings(part)
    elif isinstance(value, list):
        for part in value:
            yield from _settings(part)


def _names(found: dict[str, Any]) -> list[str]:
    """The weights whose shape in the file is another: names, or names with both shapes."""
    return [key if isinstance(key, str) else key[0] for key in found["mismatched_keys"]]


def _logits(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
    return getattr(output, "logits", output)
