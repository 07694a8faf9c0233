"""dfkd-meta: a metadata standard for data-free knowledge distillation, and its tools.

What a program needs is here, and imported when it is first named::

    run = dfkd_meta.distill("user/teacher", dfkd_meta.DistillConfig(student="half"))
    dfkd_meta.save_run(run, "student")
    student = dfkd_meta.open_model("student")
    logits = student(dfkd_meta.preprocess(images, student.inputs))
"""

from __future__ import annotations

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dfkd_meta.consumer.distill import distill as distill
    from dfkd_meta.consumer.pipeline import DistillConfig as DistillConfig
    from dfkd_meta.consumer.results import save_run as save_run
    from dfkd_meta.data import open_data as open_data
    from dfkd_meta.distillation.evaluation import accuracy as accuracy
    from dfkd_meta.errors import DfkdMetaError as DfkdMetaError
    from dfkd_meta.hub import pull as pull
    from dfkd_meta.producer.config import ExportConfig as ExportConfig
    from dfkd_meta.producer.export import export as export
    from dfkd_meta.producer.publish import publish as publish
    from dfkd_meta.sidecar import read_sidecar as read_sidecar
    from dfkd_meta.teachers import open_teacher
    from dfkd_meta.teachers.preprocess import preprocess as preprocess

    open_model = open_teacher

    __version__: str

PLACES = {
    "DfkdMetaError": "dfkd_meta.errors",
    "DistillConfig": "dfkd_meta.consumer.pipeline",
    "ExportConfig": "dfkd_meta.producer.config",
    "accuracy": "dfkd_meta.distillation.evaluation",
    "distill": "dfkd_meta.consumer.distill",
    "export": "dfkd_meta.producer.export",
    "open_data": "dfkd_meta.data",
    "open_model": "dfkd_meta.teachers:open_teacher",
    "preprocess": "dfkd_meta.teachers",
    "publish": "dfkd_meta.producer.publish",
    "pull": "dfkd_meta.hub",
    "read_sidecar": "dfkd_meta.sidecar",
    "save_run": "dfkd_meta.consumer.results",
}

__all__ = [*PLACES]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("dfkd-meta")
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    place, _, other = PLACES[name].partition(":")
    return getattr(importlib.import_module(place), other or name)


def __dir__() -> list[str]:
    return sorted([*globals(), *PLACES, "__version__"])
