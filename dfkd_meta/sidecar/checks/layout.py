"""Inputs, outputs, taps and provenance: fields that must agree with one another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from dfkd_meta.sidecar.checks.evidence import Evidence
from dfkd_meta.sidecar.issues import pointer, short
from dfkd_meta.sidecar.manifest import InputSpec, Tap, channel_axis

LARGEST = 1e18  # the quotient of two such numbers is one of float32
WIDEST = 2**16
CHANNELS = {"gray": 1, "rgb": 3, "bgr": 3}


def check_layout(evidence: Evidence) -> None:
    """DM301 to DM309, DM319."""
    _check_inputs(evidence, evidence.manifest.inputs)
    outputs = evidence.manifest.outputs
    names = outputs.label_names
    if names is not None and len(names) != outputs.num_classes:
        text = f"{len(names)} names for {outputs.num_classes} classes"
        evidence.add("DM306", "/outputs/label_names", text)
    seen: set[str] = set()
    for number, tap in enumerate(evidence.manifest.taps):
        if evidence.report.full:
            return
        path = pointer("taps", number)
        if tap.id in seen:
            evidence.add("DM301", path + "/id", f"the tap id {short(tap.id)} occurs twice")
        seen.add(tap.id)
        if _axes_agree(evidence, path, tap.shape, tap.axes) and tap.module == "":
            _check_outer_tap(evidence, path, tap)
    _check_provenance(evidence)


def _axes_agree(evidence: Evidence, path: str, shape: Sequence[int], axes: Sequence[str]) -> bool:
    good = len(shape) == len(axes) == len(set(axes))
    if not good:
        text = f"shape {list(shape)} against axes {', '.join(axes)[:80]}"
        evidence.add("DM302", path + "/axes", text)
    return good


def _check_inputs(evidence: Evidence, inputs: InputSpec) -> None:
    if _axes_agree(evidence, "/inputs", inputs.shape, inputs.axes):
        for code, name, text in disagreements(inputs):
            evidence.add(code, pointer("inputs", name), text)


def disagreements(inputs: InputSpec) -> Iterator[tuple[str, str, str]]:
    """What does not agree within an input block whose axes do: code, field, text."""
    if inputs.value_range[0] >= inputs.value_range[1]:
        yield "DM305", "value_range", f"{inputs.value_range} is not ascending"
    axis = channel_axis(inputs.axes)
    channels = 1 if axis is None else inputs.shape[axis]
    flat = axis is not None and len(inputs.axes) == 1  # normalized one by one, or as a whole
    for name, values in (("mean", inputs.mean), ("std", inputs.std)):
        if len(values) != channels and not (flat and len(values) == 1):
            what = "features, where one may stand for all" if flat else "channels"
            yield "DM303", name, f"{len(values)} values for {channels} {what}"
    yield from _beyond_numbers(inputs)
    colors = 1 if flat else channels
    if inputs.color_order is not None and colors != (wanted := CHANNELS[inputs.color_order]):
        text = f"{inputs.color_order} means {wanted} color channels; the input has {colors}"
        yield "DM304", "color_order", text


def _beyond_numbers(inputs: InputSpec) -> Iterator[tuple[str, str, str]]:
    """What a float32 cannot hold, or no image is large enough for."""
    for name in ("value_range", "mean", "std"):
        if any(abs(value) > LARGEST for value in getattr(inputs, name)):
            yield "DM319", name, f"a number beyond {LARGEST:.0e}"
    if any(deviation < 1 / LARGEST for deviation in inputs.std):
        yield "DM319", "std", f"a number below {1 / LARGEST:.0e}"
    axis = channel_axis(inputs.axes)
    widest = max((size for place, size in enumerate(inputs.shape) if place != axis), default=0)
    if inputs.crop_pct is not None and widest > inputs.crop_pct * WIDEST:
        text = f"{inputs.crop_pct:g}: images would have to be more than {WIDEST:,} pixels wide"
        yield "DM319", "crop_pct", text


def _check_outer_tap(evidence: Evidence, path: str, tap: Tap) -> None:
    """The whole model's own input and output are already described by inputs and outputs."""
    manifest = evidence.manifest
    at_input = tap.side == "input"
    wanted = manifest.inputs.shape if at_input else [manifest.outputs.num_classes]
    if tap.shape != wanted:
        evidence.add("DM307", path + "/shape", f"shape {tap.shape} where {wanted} is given")
    if at_input and not tap.linear_in_input:
        evidence.add("DM307", path + "/linear_in_input", "the input is linear in itself")


def _check_provenance(evidence: Evidence) -> None:
    provenance = evidence.manifest.provenance
    try:
        datetime.fromisoformat(provenance.created)
    except ValueError:
        text = f"there is no such date and time as {short(provenance.created)}"
        evidence.add("DM309", "/provenance/created", text)
    counts, classes = provenance.class_counts, evidence.manifest.outputs.num_classes
    if counts is None:
        return
    if len(counts) != classes or sum(counts) != provenance.samples:
        text = f"{len(counts)} counts, sum {sum(counts):,}, for {classes} classes and "
        text += f"{provenance.samples:,} samples"
        evidence.add("DM308", "/provenance/class_counts", text)
