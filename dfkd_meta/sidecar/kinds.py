"""The statistic kinds of format 1.0: which tensor roles each holds, with their axis words.

Axis words: ``g`` groups (1, or the classes listed), ``f`` features of the tap after the record's
reduction, ``c`` classes of the teacher, ``k`` kept components, ``m`` modes, ``p`` spatial
frequencies, ``q`` quantiles, ``s`` dropout sites. One word has one size inside a record.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Role:
    """One tensor of a record: its axes, and what its values must satisfy."""

    axes: str
    nonnegative: bool = False
    probability: bool = False  # every value within [0, 1]
    sums_to_one: bool = False  # over the last axis
    lower_triangular: bool = False  # the last two axes form a Cholesky factor
    cosine: bool = False  # every value within [-1, 1]
    covariance: bool = False  # the last two axes are symmetric and positive semidefinite
    unit_rows: bool = False  # vectors along the last axis have length 1
    large: bool = False  # most of the bytes, and its use needs no more than half precision


@dataclass(frozen=True)
class Param:
    """A required parameter: a number in (``above``, ``most``], one of ``choices``, or ``names``."""

    above: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()
    names: bool = False


@dataclass(frozen=True)
class Kind:
    """A statistic kind: role sets (one of ``alternatives`` must be complete) and its rules.

    ``taps`` is the number of taps a record names (None: one or more where a role has the axis
    ``f``, else any), ``needs_count`` whether a count per group is required (false for kinds read
    from the weights), ``params`` the required parameters, ``reductions`` and ``scopes`` what a
    record may choose from, ``beside`` the role that another is nothing without.
    """

    name: str
    version: int
    roles: dict[str, Role]
    alternatives: tuple[frozenset[str], ...]
    taps: int | None = 1
    needs_count: bool = True
    params: dict[str, Param] = field(default_factory=dict)
    reductions: tuple[str, ...] = ("unit", "channel", "pooled")
    scopes: tuple[str, ...] = ("global", "per_class")
    beside: dict[str, str] = field(default_factory=dict)

    @property
    def has_features(self) -> bool:
        """Whether some role has the axis ``f``, so that taps and a reduction define its size."""
        return any("f" in role.axes for role in self.roles.values())

    @property
    def of_logits(self) -> bool:
        """Whether it is taken at a tap without describing the features there: soft targets."""
        return self.taps == 1 and not self.has_features

    @property
    def has_frequencies(self) -> bool:
        """Whether some role has the axis ``p``, whose size follows from the tap."""
        return any("p" in role.axes for role in self.roles.values())


def _kind(name: str, roles: dict[str, Role], *alternatives: str, **rules: Any) -> Kind:
    wanted = tuple(frozenset(names.split()) for names in alternatives) or (frozenset(roles),)
    return Kind(name, 1, roles, wanted, **rules)


GLOBAL = ("global",)

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        _kind("moments", {"mean": Role("g f"), "variance": Role("g f", nonnegative=True)}),
        _kind(
            "covariance",
            {
                "mean": Role("g f"),
                "cholesky": Role("g f f", lower_triangular=True),
                "factor": Role("g k f", large=True),
                "residual_variance": Role("g", nonnegative=True),
            },
            "mean cholesky",
            "mean factor residual_variance",
        ),
        _kind(
            "spectrum",
            {
                "basis": Role("g k f", unit_rows=True),
                "coefficient_mean": Role("g k"),
                "coefficient_variance": Role("g k", nonnegative=True),
                "residual_energy": Role("g", nonnegative=True),
            },
            taps=None,
            params={
                "graph": Param(choices=("covariance", "correlation", "weights")),
                "kept_fraction": Param(above=0, most=1),
            },
        ),
        _kind(
            "batchnorm",
            {"running_mean": Role("f"), "running_var": Role("f", nonnegative=True)},
            needs_count=False,
            params={"eps": Param(above=0)},
            reductions=("channel",),
            scopes=GLOBAL,
        ),
        _kind(
            "soft_targets",
            {
                "mean_probability": Role("g c", probability=True, sums_to_one=True),
                "logit_mean": Role("g c"),
                "logit_cholesky": Role("g c c", lower_triangular=True),
            },
            # With thousands of classes the covariance of the logits is too large to record.
            "mean_probability",
            params={"temperature": Param(above=0)},
            beside={"logit_cholesky": "logit_mean"},
        ),
        _kind(
            "class_similarity",
            {"similarity": Role("c c", cosine=True)},
            taps=None,
            needs_count=False,
            scopes=GLOBAL,
        ),
        _kind(
            "mixture",
            {
                "weight": Role("g m", probability=True, sums_to_one=True),
                "mean": Role("g m f"),
                "factor": Role("g m k f", large=True),
                "mode_count": Role("g m", nonnegative=True),
            },
            taps=None,
        ),
        _kind("quantiles", {"probability": Role("q", probability=True), "value": Role("g f q")}),
        _kind(
            "power_spectrum",
            {"mean": Role("g f"), "power": Role("g p f f", covariance=True)},
            reductions=("channel",),
        ),
        _kind(
            "dropout",
            {"keep_probability": Role("s", probability=True)},
            taps=0,
            needs_count=False,
            params={"sites": Param(names=True)},
            scopes=GLOBAL,
        ),
    )
}
