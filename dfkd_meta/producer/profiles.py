"""What each profile records for a given teacher, as a list of requests."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, Literal

import torch

from dfkd_meta.errors import TeacherError, UsageError
from dfkd_meta.producer.config import ExportConfig
from dfkd_meta.sidecar import KINDS, Tap
from dfkd_meta.sidecar.checks.evidence import frequencies_at
from dfkd_meta.sidecar.redaction import chosen_records
from dfkd_meta.statistics import RecordRequest, feature_count, statistics
from dfkd_meta.statistics.base import Reduction, Scope
from dfkd_meta.statistics.kinds.batchnorm import batchnorm_paths
from dfkd_meta.statistics.kinds.class_similarity import LAYERS
from dfkd_meta.statistics.kinds.dropout import dropout_sites
from dfkd_meta.teachers import ActivationTap, Teacher, last_hidden_tap

INPUT_LEVELS = [0.001, *(percent / 100 for percent in range(1, 100)), 0.999]


def plan(
    config: ExportConfig,
    teacher: Teacher,
    taps: Sequence[Tap],
    *,
    labeled: bool,
    samples: int | None = None,
    classes: int | None = None,
) -> list[RecordRequest]:
    """The records of the profile and of ``config.records``, none twice.

    One of ``config.records`` takes the place of the profile's record of the same id. Without labels
    every record is global, and of too few ``samples`` (None: of enough) there are no quantiles;
    ``classes`` is how many of the teacher's are described (None: all).
    Raises UsageError when a pattern of ``leave_out`` or ``only`` matches none of them, nothing is
    left, a record by class is asked for without ``per_class``, or one of a kind that is not of the
    standard. Taps that hold the very same tensor (a convolution's output and the input of the
    BatchNorm after it) count once, except for ``batchnorm`` itself.
    """
    for request in config.records:
        statistics.get(request.kind)  # names the nearest to one that is misspelled
        if request.kind not in KINDS:
            raise UsageError(
                f"records asks for {request.kind!r}, which a sidecar cannot carry",
                hint="it can carry " + ", ".join(KINDS),
            )
        if request.scope == "per_class" and not config.per_class:
            raise UsageError(f"per_class is false, and records asks for {request.id}")
    classes = teacher.outputs.num_classes if classes is None else classes
    groups = classes if labeled and config.per_class else 1
    planner = _Planner(config, teacher, taps, groups=groups, samples=samples)
    requests = [*planner.minimal()]
    if config.profile in ("standard", "full"):
        requests += planner.standard()
    if config.profile == "full":
        requests += planner.full()
    planned = {request.id: request for request in [*requests, *config.records]}
    kept = chosen_records(planned, leave_out=config.leave_out, only=config.only)
    return [request for name, request in planned.items() if name in kept]


class _Planner:
    """The rules of the profiles for one teacher."""

    def __init__(
        self,
        config: ExportConfig,
        teacher: Teacher,
        taps: Sequence[Tap],
        *,
        groups: int,
        samples: int | None,
    ) -> None:
        self.config = config
        self.teacher = teacher
        self.taps = list(taps)
        self.groups = groups
        self.per_class: Scope = "global" if self.groups == 1 else "per_class"
        # A median has at least half of the samples on either side.
        self.quantiles = samples is None or samples >= 2 * config.min_count
        self.output = next(tap for tap in taps if not tap.module and tap.side == "output")
        try:
            self.last_hidden: Tap | None = last_hidden_tap(taps)
        except TeacherError:
            self.last_hidden = None
        self.places = distinct_taps(teacher, taps, self.last_hidden)

    def minimal(self) -> Iterator[RecordRequest]:
        """What the weights say, the logits, and what tells neither class nor place in the input."""
        module = self.teacher.module
        paths = set(batchnorm_paths(module))
        inputs = [t for t in self.taps if t.side == "input" and t.module in paths and not t.call]
        for tap in inputs:
            yield RecordRequest("batchnorm", (tap.id,), "channel")
        if not inputs:
            yield from (_moments(tap, "global") for tap in self._hidden())
        yield from (_pooled(tap, "global") for tap in self._hidden() if _positions(tap) > 1)
        classes, cap = self.teacher.outputs.num_classes, self.config.value_cap
        params: dict[str, Any] = {"temperature": self.config.temperature}
        scope = self.per_class if self.groups * classes <= cap else "global"
        groups = 1 if scope == "global" else self.groups
        if groups * classes**2 > min(cap, self.config.logits_cap):
            params["covariance"] = False
        yield RecordRequest("soft_targets", (self.output.id,), "unit", scope, params)
        head = self.last_hidden.module if self.last_hidden else ""
        layer = module.get_submodule(head) if head else None
        if isinstance(layer, LAYERS) and len(layer.weight) == classes and classes**2 <= cap:
            yield RecordRequest("class_similarity", params={"module": head})
        if sites := dropout_sites(module):
            yield RecordRequest("dropout", params={"sites": sites})
        for tap in self.places:
            if tap.is_model_input and _positions(tap) > 1:
                channels = feature_count([tap], "channel")
                if frequencies_at(tap) * channels**2 <= self.config.value_cap:
                    yield RecordRequest("power_spectrum", (tap.id,), "channel")
                if self.quantiles:
                    params = {"levels": INPUT_LEVELS}
                    yield RecordRequest("quantiles", (tap.id,), "channel", params=params)

    def standard(self) -> Iterator[RecordRequest]:
        """Moments behind the first nonlinearity, and the covariance of the last hidden layer."""
        for tap in self._hidden():
            yield _moments(tap, "global")
            yield _moments(tap, self.per_class)
            if _positions(tap) > 1:
                yield _pooled(tap, self.per_class)
                yield from self._unit_moments(tap, self.config.standard_unit_cap)
        if self.last_hidden and not self.last_hidden.linear_in_input:
            yield from self._covariance(self.last_hidden, None)
        if self.config.profile == "standard":  # full has another, of the input as well
            yield from self._joint()

    def full(self) -> Iterator[RecordRequest]:
        """The input itself, covariances and ranges everywhere, and the spectra of layers."""
        config = self.config
        for tap in (t for t in self.places if t.linear_in_input):
            features = math.prod(tap.shape)
            at_input = tap.is_model_input
            cap = config.input_cap if at_input else config.full_unit_cap
            yield from self._unit_moments(tap, cap)
            if at_input and features <= cap:
                yield RecordRequest("moments", (tap.id,), "unit", "global")
                yield from self._covariance(tap, config.input_rank)
                yield from self._mixture(tap)
                yield from self._joint(tap)
        for tap in self.places:
            features = math.prod(tap.shape)
            if not tap.module or tap == self.last_hidden or tap.linear_in_input:
                continue  # a layer that is linear in the input adds nothing to the input's own
            if features > config.hidden_covariance_cap:
                continue
            rank = None if features <= config.cholesky_cap else config.hidden_rank
            yield from self._covariance(tap, rank)
        yield from self._covariance(self.output, None)
        for tap in self._hidden() if self.quantiles else ():
            reduction: Reduction = "channel" if len(tap.shape) > 1 else "unit"
            yield RecordRequest("quantiles", (tap.id,), reduction)
        if self.per_class == "per_class":  # a spectrum of no class says too little to be read
            yield from self._spectra()

    def _mixture(self, tap: Tap) -> Iterator[RecordRequest]:
        """Modes of the input within each class, as the teacher's last hidden layer tells them."""
        config = self.config
        numbers = self.groups * config.modes * config.mode_rank * math.prod(tap.shape)
        if config.modes > 1 and numbers <= config.mixture_cap and self.last_hidden:
            params = {
                "modes": config.modes,
                "rank": config.mode_rank,
                "seed": config.seed,
                "cluster_tap": self.last_hidden.id,
            }
            yield RecordRequest("mixture", (tap.id,), "unit", self.per_class, params)

    def _joint(self, *first: Tap) -> Iterator[RecordRequest]:
        """What the teacher makes of an input, as one: a deep map and the last hidden layer.

        The map is the first of those with the fewest positions among the deeper half: what is
        where, in large. ``first`` comes before it, if there is room.
        """
        maps = [p for p in self._hidden() if _positions(p) > 1 and p != self.last_hidden]
        if not maps or not self.last_hidden or self.last_hidden.linear_in_input:
            return
        config = self.config
        hidden = [min(maps[len(maps) // 2 :], key=_positions), self.last_hidden]
        wanted = [(config.joint_rank, [*first, *hidden])] if first else []
        for rank, taps in [*wanted, (config.mode_rank, hidden)]:
            room = config.joint_cap // (self.groups * feature_count(taps, "unit"))
            if room >= min(rank, config.least_rank):
                params = {"modes": 1, "rank": min(rank, room), "seed": config.seed}
                ids = tuple(tap.id for tap in taps)
                yield RecordRequest("mixture", ids, "unit", self.per_class, params)
                return

    def _layers(self) -> list[Tap]:
        """The nodes of the network's graph: the input, and what each layer puts out.

        The input stands for the layers that are linear in it.
        """
        outputs = [tap for tap in self._hidden() if tap.side == "output"]
        return [tap for tap in self.places if tap.is_model_input] + outputs

    def _spectra(self) -> Iterator[RecordRequest]:
        """Spectra of the network's graph and of each pair of layers, all within the cap."""
        config, layers = self.config, self._layers()
        pairs = list(pairwise(layers))
        graphs = [tuple(layers), *pairs] if len(pairs) > 1 else pairs
        nodes: list[Reduction] = [
            "unit" if feature_count(taps, "unit") <= config.spectrum_unit_cap else "pooled"
            for taps in graphs
        ]
        sizes = [feature_count(*graph) for graph in zip(graphs, nodes, strict=True)]
        room = config.spectrum_cap // max(1, self.groups * sum(sizes))
        for taps, reduction, size in zip(graphs, nodes, sizes, strict=True):
            if kept := min(max(1, round(config.kept_fraction * size)), room):
                params = {"kept_fraction": kept / size, "seed": config.seed}
                ids = tuple(tap.id for tap in taps)
                yield RecordRequest("spectrum", ids, reduction, "per_class", params)

    def _hidden(self) -> list[Tap]:
        return [tap for tap in self.places if not tap.linear_in_input]

    def _unit_moments(self, tap: Tap, cap: int) -> Iterator[RecordRequest]:
        if math.prod(tap.shape) <= cap and self._room(tap):
            yield RecordRequest("moments", (tap.id,), "unit", self.per_class)

    def _covariance(self, tap: Tap, rank: int | None) -> Iterator[RecordRequest]:
        params, room = {} if rank is None else {"rank": rank}, self._room(tap)
        if not room:
            return
        if math.prod(tap.shape) > room:
            # 1,000 classes of 512 features would be 1 GiB: neither kept whole nor accumulated whole
            params = {"rank": min(rank or self.config.input_rank, room), "exact_up_to": 0}
        if params:
            params["seed"] = self.config.seed
        yield RecordRequest("covariance", (tap.id,), "unit", self.per_class, params)

    def _room(self, tap: Tap) -> int:
        """How many numbers per unit and class one tensor may hold."""
        return self.config.value_cap // (self.groups * math.prod(tap.shape))


def distinct_taps(teacher: Teacher, taps: Sequence[Tap], keep: Tap | None = None) -> list[Tap]:
    """The taps without those that hold the same tensor as another in a forward pass.

    The first of them stays, or ``keep`` if it is one of them; but nothing replaces the input.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, *teacher.inputs.shape, generator=generator).to(teacher.device)
    with torch.no_grad(), ActivationTap(teacher.module, taps) as tap:
        teacher(images)
        places: dict[tuple[int, torch.Size], Tap] = {}
        for place in taps:
            tensor = tap.activations[place.id]
            key = tensor.data_ptr(), tensor.shape
            if key not in places or (place == keep and not places[key].is_model_input):
                places[key] = place
    return list(places.values())


def _positions(tap: Tap) -> int:
    return math.prod(tap.shape) // feature_count([tap], "channel")


def _moments(tap: Tap, scope: Scope) -> RecordRequest:
    """Channel-wise moments; at a flat tap every unit is its own channel."""
    reduction: Literal["unit", "channel"] = "channel" if len(tap.shape) > 1 else "unit"
    return RecordRequest("moments", (tap.id,), reduction, scope)


def _pooled(tap: Tap, scope: Scope) -> RecordRequest:
    """Moments of the channels' means over positions: by how much samples differ as a whole."""
    return RecordRequest("moments", (tap.id,), "pooled", scope)
