"""The catalogue of findings: one stable code per rule, what it means and how to mend it.

A code never changes its meaning and is never used again once it is retired. The table in
``schema/README.md`` is this catalogue (a test keeps the two equal).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Code:
    """One rule: its severity, what a finding means, and how to mend the file."""

    severity: Severity
    title: str
    mend: str


def _error(title: str, mend: str) -> Code:
    return Code("error", title, mend)


def _warning(title: str, mend: str) -> Code:
    return Code("warning", title, mend)


def _note(title: str, mend: str) -> Code:
    return Code("note", title, mend)


DOCUMENT = {
    "DM101": _error("the manifest is missing or unreadable", "put dfkd_meta.json into the folder"),
    "DM102": _error("the manifest is larger than 4 MiB", "move bulk data into the tensor file"),
    "DM103": _error(
        "the manifest is not JSON in UTF-8", "write plain JSON, UTF-8, no byte order mark"
    ),
    "DM104": _error("a key occurs twice in one object", "keep one of the two"),
    "DM105": _error(
        "a number is not finite, or an integer does not fit 64 bits",
        "write finite numbers; leave unknown values out",
    ),
    "DM106": _error("the manifest is nested deeper than 32 levels", "flatten it"),
    "DM107": _error(
        "a list or object holds more entries than the format allows", "split or shorten it"
    ),
    "DM108": _error("this is not a dfkd-meta manifest", 'start it with "format": "dfkd-meta"'),
    "DM109": _error(
        "format_version is missing or malformed", 'write MAJOR.MINOR as text, such as "1.0"'
    ),
    "DM110": _error(
        "the format is of a newer major version than this reader knows",
        "pip install --upgrade dfkd-meta",
    ),
    "DM111": _warning(
        "the format is of a newer minor version: what is new in it is kept, but not checked",
        "pip install --upgrade dfkd-meta",
    ),
    "DM112": _note(
        "the manifest is of an older version and was migrated in memory",
        "run 'dfkd-meta migrate' to write the current version",
    ),
    "DM113": _error(
        "the manifest is of a version that no migration leads away from",
        "export it again with a current dfkd-meta",
    ),
    "DM120": _error("a required field is missing", "add it"),
    "DM121": _error("a value is of the wrong type", "write the type that the schema names"),
    "DM122": _error("a value is not one of those allowed", "choose one of the values listed"),
    "DM123": _error("a number is out of range", "keep to the range that the schema gives"),
    "DM124": _error("a text is malformed, empty or too long", "keep to the pattern of the schema"),
    "DM125": _error("a list is too short or too long", "keep to the length that the schema gives"),
    "DM130": _warning(
        "a field is unknown to this version: it is kept, but not checked",
        "correct its spelling, or move it to extensions under an x- name",
    ),
    "DM131": _note(
        "the keys of an object (the first such is named) are not sorted",
        "write canonical JSON (sorted keys)",
    ),
    "DM140": _note("more was found than is listed", "mend what is listed and validate again"),
}

TENSOR_FILE = {
    "DM201": _error("the tensor file is missing or unreadable", "put it beside the manifest"),
    "DM202": _error("the tensor file is larger than 1 GiB", "record fewer or low-rank statistics"),
    "DM203": _error(
        "the header is truncated, longer than the file or longer than 4 MiB",
        "write the file again; it was cut or damaged",
    ),
    "DM204": _error(
        "the header is not a JSON object in UTF-8", "write the file again with safetensors"
    ),
    "DM205": _error(
        "a tensor name, or any other key, occurs twice in the header", "keep one of the two"
    ),
    "DM206": _error(
        "a header entry is not {dtype, shape, data_offsets}",
        "write the file again with safetensors",
    ),
    "DM207": _error("a dtype is not F16, F32, F64 or I64", "convert the tensor, best to F32"),
    "DM208": _error(
        "a tensor name is empty, longer than 200 or not printable ASCII", "rename the tensor"
    ),
    "DM209": _error("byte range and shape of a tensor disagree", "write the file again"),
    "DM210": _error(
        "tensors overlap or leave a hole", "lay them one behind the other without gaps"
    ),
    "DM211": _error(
        "bytes are missing at the end, or left over", "the file was cut or appended to"
    ),
    "DM212": _error("__metadata__ is not an object of texts", "leave __metadata__ out"),
    "DM213": _warning(
        "a tensor is in the file that no record names", "name it in a record or drop it"
    ),
    "DM214": _error("the file holds more than 40000 tensors", "record fewer statistics"),
}

RECORDS = {
    "DM301": _error("an id occurs twice", "give every tap and every record its own id"),
    "DM302": _error("shape and axes disagree", "name every axis of the shape, each name once"),
    "DM303": _error(
        "mean and std do not match the channel axis of the input",
        "give one value per channel (one if there is no channel axis, or for all of a flat input)",
    ),
    "DM304": _error(
        "color_order does not match the channels",
        "gray has 1 channel, rgb and bgr have 3; a flat input counts as one",
    ),
    "DM305": _error("value_range is not ascending", "write [lowest, highest]"),
    "DM306": _error("label_names does not name every class", "give num_classes names, or none"),
    "DM307": _error(
        "a tap at the whole model disagrees with inputs or outputs",
        "its shape is inputs.shape at the input (linear in itself), [num_classes] at the output",
    ),
    "DM308": _error(
        "class_counts disagrees with num_classes or samples",
        "give one count per class that sum to samples, or leave it out",
    ),
    "DM309": _error("there is no such date and time", "write the UTC time of the export"),
    "DM310": _error("a record names a tap that does not exist", "add the tap or correct the id"),
    "DM311": _error("the number of taps does not fit the kind", "see the table of kinds"),
    "DM312": _error(
        "the reduction is missing or not allowed for the kind", "see the table of kinds"
    ),
    "DM313": _error(
        "channel-wise statistics at a tap without a channel axis",
        'name one axis "c" or "f", or reduce by unit',
    ),
    "DM314": _error(
        "classes disagree with the scope or with num_classes",
        "per_class: every class index once, ascending, below num_classes; global: none",
    ),
    "DM315": _error("count is missing or not one per group", "give the samples of each group"),
    "DM316": _error(
        "a count exceeds the samples of the provenance", "count samples, not positions"
    ),
    "DM317": _error("the scope is not allowed for the kind", "see the table of kinds"),
    "DM318": _error(
        "statistics of the logits are taken elsewhere than at the model's output",
        'name the tap with module "" and side "output"',
    ),
    "DM319": _error(
        "a std is not between 1e-18 and 1e18, the magnitude of a mean or of an end of value_range "
        "is above 1e18, or crop_pct asks for images of more than 65,536 pixels a side",
        "state the inputs on a usual scale, such as 0 to 1 or 0 to 255",
    ),
    "DM320": _error("a tensor role that the kind requires is missing", "see the table of kinds"),
    "DM321": _warning(
        "a tensor role is unknown to the kind: it is kept, not checked", "see the kinds"
    ),
    "DM322": _error("a parameter of the kind is missing or wrong", "see the table of kinds"),
    "DM330": _error("a tensor that a record names is not in the file", "add it or correct the key"),
    "DM331": _error(
        "dtype or shape in manifest and tensor file differ", "write both from one array"
    ),
    "DM332": _error(
        "the axis words of a tensor are not those of the kind", "see the table of kinds"
    ),
    "DM333": _error(
        "the size of an axis disagrees with tap, groups, classes or its other tensors",
        "compute the statistic again for this tap and these groups",
    ),
    "DM334": _error("a factor keeps more components than there are features", "keep at most f"),
    "DM335": _error(
        "a pointer names a file that the teacher does not list", "list it in teacher.files"
    ),
    "DM336": _error(
        "a pointer does not fit the teacher file: no such tensor, other dtype or shape, too large",
        "correct key, dtype and shape, or copy the tensor into the sidecar",
    ),
    "DM340": _error(
        "a tensor holds NaN or infinity", "find the layer that overflowed; export again"
    ),
    "DM341": _error("a value that must not be negative is", "compute variances in float64"),
    "DM342": _error("a probability is outside [0, 1]", "clip rounding errors before writing"),
    "DM343": _error("probabilities of a row do not sum to 1", "divide each row by its sum"),
    "DM344": _error(
        "a Cholesky factor is not lower triangular with a diagonal >= 0", "store L with S = L L^T"
    ),
    "DM345": _error(
        "quantile levels are not ascending within (0, 1), or their values descend",
        "give ascending levels without 0 and 1; sort the values",
    ),
    "DM346": _error(
        "mode counts are not whole numbers that sum to the count of their group, or an unused mode "
        "has a weight",
        "recount; unused modes have count 0 and weight 0",
    ),
    "DM347": _error("a basis vector is not of length 1", "normalize every row of the basis"),
    "DM348": _error("a cosine is outside [-1, 1]", "divide by the lengths of both vectors"),
    "DM349": _error(
        "a matrix that must be a covariance is not symmetric, has a negative eigenvalue or more "
        "than 4,096 rows",
        "accumulate in float64, and store both halves",
    ),
    "DM350": _warning(
        "the kind is unknown to this version: kept, not checked", "upgrade dfkd-meta"
    ),
    "DM351": _warning(
        "the version of the kind is unknown to this reader: kept, not checked", "upgrade dfkd-meta"
    ),
    "DM360": _error(
        "the sidecar does not hold what its profile promises", 'add the records, or say "custom"'
    ),
}

PRIVACY = {
    "DM401": _error(
        "a group is smaller than privacy.min_group_size",
        "merge or drop the group, and export again",
    ),
    "DM402": _error(
        "clip_bound, epsilon, delta and covers do not fit the mechanism",
        "gaussian needs all four; none must not claim epsilon, delta or covers",
    ),
    "DM403": _error("covers or tracing_strength names an unknown record", "correct the id"),
    "DM404": _error(
        "tracing_strength is not sqrt(features / smallest count)",
        "compute it again or leave it out",
    ),
    "DM405": _warning("tracing_strength is missing for a record with counts", "add it"),
    "DM406": _note(
        "tracing strength above 1: single training samples may be recognizable in this record",
        "use larger groups or fewer features, or leave the record out",
    ),
    "DM407": _note(
        "a statistic at a tap that is linear in the input describes the data themselves",
        "leave the record out if the data may not be described",
    ),
    "DM408": _warning(
        "unit-wise or per-class statistics at the input do not belong into this profile",
        "drop the record, or publish as full or custom",
    ),
    "DM409": _error(
        "a quantile leaves fewer than min_group_size samples beyond it", "keep away from 0 and 1"
    ),
    "DM410": _note(
        "privacy.min_group_size is below 11", "11 is the usual floor for released tables"
    ),
    "DM411": _warning(
        "a factor, a Cholesky factor or a basis has more than one row for every five samples of a "
        "group or mode",
        "keep fewer components, as a factor: as many rows as samples hold the samples",
    ),
}

BINDING = {
    "DM501": _error(
        "a name is not a plain file inside the folder (a link that leads out, a device, a folder)",
        "put the file itself into the folder",
    ),
    "DM502": _error(
        "the size of the tensor file is not the one stated", "fetch or write both files anew"
    ),
    "DM503": _error(
        "the digest of the tensor file is not the one stated", "fetch or write both anew"
    ),
    "DM504": _error("a teacher file is missing and no repo_id says where it is", "add it beside"),
    "DM505": _warning("a teacher file is not here but in teacher.repo_id: not checked", "fetch it"),
    "DM506": _error("the size of a teacher file is not the one stated", "fetch the right revision"),
    "DM507": _error(
        "the digest of a teacher file is not the one stated", "fetch the right revision"
    ),
    "DM508": _error("a teacher file is listed twice", "list it once"),
    "DM509": _error(
        "a teacher file is neither .safetensors nor .json, or is a file of the sidecar",
        "convert the weights to safetensors; list only what is the teacher's",
    ),
    "DM510": _error(
        "a teacher file that records point into is not a sound safetensors file", "write it again"
    ),
}

CODES: dict[str, Code] = {**DOCUMENT, **TENSOR_FILE, **RECORDS, **PRIVACY, **BINDING}
