"""The manifest: pydantic models of ``dfkd_meta.json``, format 1.0.

The models state types and ranges only. What needs two fields at once (shapes against taps, counts
against the minimum group size, digests) is in ``checks``. Unknown fields are kept, so that a reader
of 1.0 hands a 1.1 file on unharmed; ``checks`` warns about each.

Axis names are einops words: ``c`` channels, ``f`` features, ``h`` height, ``w`` width, ``d`` depth,
``t`` tokens or time. The channel axis is ``c``, or ``f`` where there is no ``c``; every other axis
counts positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field, JsonValue, StringConstraints

FORMAT = "dfkd-meta"
FORMAT_VERSION = "1.0"
MANIFEST_FILE = "dfkd_meta.json"
TENSOR_FILE = "dfkd_meta.safetensors"
CHANNEL_AXES = ("c", "f")

# Upper bounds of 1.0: far above any real sidecar, low enough that a hostile one costs nothing.
MAX_TAPS = 10_000
MAX_RECORDS = 10_000
MAX_ROLES = 32
MAX_TEACHER_FILES = 1_000
MAX_ENTRIES = 10_000

Name = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[\x20-\x7e]+$")]
# Free text of people: any script, but no control characters.
Text = Annotated[
    str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")
]
ModulePath = Annotated[str, StringConstraints(max_length=200, pattern=r"^[\x20-\x7e]*$")]
FileName = Annotated[
    str, StringConstraints(max_length=200, pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$")
]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Commit = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]
Size = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class First(FailFast):
    """Stop a list of scalars at its first bad element: one finding per list is enough."""

    def __hash__(self) -> int:  # so that ``Counts | None`` can be formed
        return hash(First)


Counts = Annotated[list[Count], First()]
Numbers = Annotated[list[Number], First()]
Names = Annotated[list[Name], First()]
Texts = Annotated[list[Text], First()]
Shape = Annotated[list[Size], Field(min_length=1, max_length=4), First()]
Axes = Annotated[list[Name], Field(min_length=1, max_length=4), First()]


CREATED = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?Z$"
VERSION = r"^1\.(0|[1-9][0-9]{0,5})$"


class Block(BaseModel):
    """Base of every block: frozen, strict about types, open to fields of later minor versions."""

    # Deferred: a command that never validates a block does not pay for building its validator.
    model_config = ConfigDict(extra="allow", frozen=True, strict=True, defer_build=True)


class WeightFile(Block):
    """A file of the teacher, beside the sidecar, bound by its digest."""

    path: FileName
    size: Count
    sha256: Digest


class TeacherRef(Block):
    """How to get the teacher without running remote code.

    ``local`` means: the reader passes a factory of their own; ``architecture`` is only a label.
    ``repo_id`` and ``revision`` say where the weights were published if not beside the sidecar.
    """

    source: Literal["builtin", "transformers", "timm", "hub_mixin", "local"]
    architecture: Name
    arguments: dict[str, JsonValue] = Field(default_factory=dict)
    repo_id: Name | None = None
    revision: Commit | None = None
    files: Annotated[list[WeightFile], Field(min_length=1, max_length=MAX_TEACHER_FILES)]
    parameters: Count
    license: Text | None = None
    library_version: Name | None = None


class InputSpec(Block):
    """What the teacher eats: one sample without the batch axis, and how raw values become it.

    Raw values lie in ``value_range``; the module sees ``(raw - mean) / std`` per channel (per
    sample when there is no channel axis). ``interpolation``, ``crop_pct`` and ``crop_mode`` carry
    the meaning of timm's pretrained configuration. There is no default normalization.
    """

    shape: Shape
    axes: Axes
    dtype: Literal["float32"] = "float32"
    value_range: Annotated[Numbers, Field(min_length=2, max_length=2)]
    mean: Annotated[Numbers, Field(min_length=1)]
    std: Annotated[list[Positive], Field(min_length=1), First()]
    color_order: Literal["gray", "rgb", "bgr"] | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic"] | None = None
    crop_pct: Annotated[float, Field(gt=0, le=1)] | None = None
    crop_mode: Literal["center", "squash", "border"] | None = None


class OutputSpec(Block):
    """What the teacher returns: logits over ``num_classes`` classes."""

    task: Literal["classification"] = "classification"
    num_classes: Annotated[int, Field(ge=2)]
    label_names: Texts | None = None
    returns: Literal["logits"] = "logits"


class Tap(Block):
    """A place in the teacher: the input or output of one module, at one of its calls.

    ``module`` is the dotted module path ("" is the whole model); ``axes`` and ``shape`` describe
    the tensor without the batch axis; ``linear_in_input`` says that the tensor is an affine
    function of the model's input, so that statistics there describe the data themselves.
    """

    id: Name
    module: ModulePath
    side: Literal["input", "output"]
    call: Count = 0
    axes: Annotated[list[Name], Field(min_length=1, max_length=4)]
    shape: Annotated[list[Size], Field(min_length=1, max_length=4)]
    linear_in_input: bool

    @property
    def is_model_input(self) -> bool:
        """Whether it is the input of the whole model."""
        return not self.module and self.side == "input"


class TensorRef(Block):
    """A tensor of the sidecar, or (with ``file``) a tensor that already is in a teacher file."""

    key: Name
    dtype: Literal["F16", "F32", "F64", "I64"]
    shape: Shape
    axes: Annotated[str, StringConstraints(pattern=r"^[a-z]( [a-z]){0,3}$")]
    file: FileName | None = None


class StatisticRecord(Block):
    """One statistic: of one kind, at one tap (or over several), global or per class.

    ``reduction`` turns the tapped tensor into features: ``unit`` (every element is a feature),
    ``channel`` (channels are features, every position an observation, as BatchNorm counts) or
    ``pooled`` (channels are features, averaged over positions first). ``count`` is the number of
    *samples* per group.
    """

    id: Name
    kind: Name
    kind_version: Annotated[int, Field(ge=1)] = 1
    taps: Annotated[Names, Field(max_length=MAX_TAPS)] = Field(default_factory=list)
    reduction: Literal["unit", "channel", "pooled"] | None = None
    scope: Literal["global", "per_class"] = "global"
    classes: Counts | None = None
    count: Counts | None = None
    params: dict[str, JsonValue] = Field(default_factory=dict)
    tensors: Annotated[dict[str, TensorRef], Field(max_length=MAX_ROLES)] = Field(
        default_factory=dict
    )


class TensorFile(Block):
    """The tensor file of the sidecar."""

    file: Literal["dfkd_meta.safetensors"] = "dfkd_meta.safetensors"
    size: Count
    sha256: Digest


class DatasetRef(Block):
    """The training data as the publisher states them; nothing here is verified."""

    name: Text
    license: Text | None = None
    split: Text | None = None


class Provenance(Block):
    """Who computed the sidecar, when (RFC 3339, UTC) and from how many samples."""

    tool: Name
    tool_version: Name
    torch_version: Name | None = None
    created: Annotated[str, StringConstraints(pattern=CREATED)]
    seed: int | None = None
    samples: Count
    class_counts: Counts | None = None
    preprocessing_sha256: Digest
    dataset: DatasetRef | None = None


class Privacy(Block):
    """What was done to protect the people behind the data, and how exposed they remain.

    ``tracing_strength`` maps a record id to sqrt(features / smallest count of a group): how well a
    membership test on that record's means can work (Sankararaman et al. 2009).
    """

    min_group_size: Size
    clip_bound: Positive | None = None
    mechanism: Literal["none", "gaussian"] = "none"
    epsilon: Positive | None = None
    delta: Fraction | None = None
    covers: Names = Field(default_factory=list)
    tracing_strength: Annotated[
        dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]],
        Field(max_length=MAX_RECORDS),
    ] = Field(default_factory=dict)


class Evaluation(Block):
    """The teacher's own top-1 accuracy (a fraction) as the exporter measured it."""

    accuracy: Fraction
    samples: Size
    split: Text


class Manifest(Block):
    """The whole of ``dfkd_meta.json``."""

    format: Literal["dfkd-meta"] = "dfkd-meta"
    format_version: Annotated[str, StringConstraints(pattern=VERSION)] = FORMAT_VERSION
    profile: Literal["minimal", "standard", "full", "custom"]
    teacher: TeacherRef
    inputs: InputSpec
    outputs: OutputSpec
    taps: Annotated[list[Tap], Field(max_length=MAX_TAPS)] = Field(default_factory=list)
    statistics: Annotated[list[StatisticRecord], Field(max_length=MAX_RECORDS)] = Field(
        default_factory=list
    )
    tensors: TensorFile
    provenance: Provenance
    privacy: Privacy
    evaluation: Evaluation | None = None
    extensions: Annotated[
        dict[Annotated[str, StringConstraints(pattern=r"^x-")], Any], Field(max_length=MAX_ENTRIES)
    ] = Field(default_factory=dict)

    @property
    def described_classes(self) -> list[int]:
        """The classes that records by class are of: all but those stated to have no sample."""
        everyone, counts = range(self.outputs.num_classes), self.provenance.class_counts
        if counts is None or len(counts) != len(everyone):
            return list(everyone)
        return [number for number in everyone if counts[number]] or list(everyone)


def channel_axis(axes: Sequence[str]) -> int | None:
    """Index of the channel axis among axis names: ``c``, else ``f``, else None."""
    return next((list(axes).index(word) for word in CHANNEL_AXES if word in axes), None)
