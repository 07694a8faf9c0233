"""What a publisher may say about an export."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field, field_validator

from dfkd_meta.config import Config
from dfkd_meta.sidecar.manifest import CREATED, Text
from dfkd_meta.statistics import MIN_COUNT, RecordRequest
from dfkd_meta.statistics.kinds.mixture import MODES, RANK
from dfkd_meta.statistics.kinds.soft_targets import DEFAULT_TEMPERATURE, LEAST_TEMPERATURE
from dfkd_meta.statistics.kinds.spectrum import DEFAULT_KEPT

Profile = Literal["minimal", "standard", "full"]


class ExportConfig(Config):
    """What is computed and published; every size that bounds it has a name here.

    ``per_class=false`` releases global statistics only. Classes of fewer than ``min_count`` samples
    are refused, or with ``rare_classes="leave_out"`` neither they nor their samples are in any
    record. ``records`` are taken besides those of the profile, or in the place of one with the same
    id; ``leave_out`` and ``only`` are patterns of record ids, such as ``quantiles/*``: what matches
    the first, or none of the second, is not taken.

    Caps are features per sample: above ``standard_unit_cap`` no moments of the single units of a
    hidden map are taken, above ``full_unit_cap`` none of a layer that is linear in the input, above
    ``input_cap`` nothing unit-wise of the input. In ``full`` the covariance of a hidden layer but
    the last is of rank ``hidden_rank`` above ``cholesky_cap``, and there is none above
    ``hidden_covariance_cap``; that of the last one is whole up to 1,024 features. ``value_cap``
    bounds the numbers in one tensor: a larger Cholesky factor becomes a factor of rank
    ``input_rank`` or of as high a rank as fits; unit-wise moments that do not fit are left out.
    Soft targets have covariances where these are no more than ``logits_cap`` numbers: of up to 101
    classes, by class.

    A spectrum keeps ``kept_fraction`` of its coefficients, but no more than leave ``spectrum_cap``
    numbers in all bases together (none, if that is too few for one); a graph of more than
    ``spectrum_unit_cap`` units has a node per channel instead.

    A mixture of the input has ``modes`` modes per class of rank ``mode_rank``, if that leaves no
    more than ``mixture_cap`` numbers in all factors together; with 10 classes it does up to 32 x 32
    gray pixels. A joint one has one mode: of hidden layers it is of rank ``mode_rank``, in ``full``
    of the input with them and of rank ``joint_rank``, or else of the highest rank from
    ``least_rank`` that leaves ``joint_cap`` numbers.
    """

    profile: Profile = "standard"
    per_class: bool = True
    temperature: float = Field(DEFAULT_TEMPERATURE, ge=LEAST_TEMPERATURE)
    min_count: int = Field(MIN_COUNT, ge=1)
    rare_classes: Literal["refuse", "leave_out"] = "refuse"
    records: tuple[RecordRequest, ...] = ()
    leave_out: tuple[str, ...] = ()
    only: tuple[str, ...] = ()

    input_rank: int = Field(40, ge=1)
    hidden_rank: int = Field(20, ge=1)
    standard_unit_cap: int = 4_096
    full_unit_cap: int = 8_192
    input_cap: int = 65_536
    hidden_covariance_cap: int = 2_048
    cholesky_cap: int = 256
    value_cap: int = 2**24
    logits_cap: int = 2**20
    kept_fraction: float = Field(DEFAULT_KEPT, gt=0, le=1)
    spectrum_unit_cap: int = 4_096
    spectrum_cap: int = 2**19
    modes: int = Field(MODES, ge=1)
    mode_rank: int = Field(RANK, ge=1)
    mixture_cap: int = 2**21
    joint_rank: int = Field(80, ge=1)
    joint_cap: int = 2**23
    least_rank: int = Field(5, ge=1)

    batch_size: int = Field(256, ge=1)
    limit: int | None = Field(None, ge=1)
    seed: int = 0

    dataset_name: Text | None = None
    dataset_license: Text | None = None
    teacher_license: Text | None = None
    created: str | None = Field(None, pattern=CREATED)

    @field_validator("created")
    @classmethod
    def _exists(cls, created: str | None) -> str | None:
        if created is not None:
            datetime.fromisoformat(created)
        return created
