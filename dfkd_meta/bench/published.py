"""Numbers that others published, to stand beside ours: facts with their sources, nothing computed.

A fact belongs to a benchmark (a data set) and a pair of networks. ``secondhand`` marks what was
read in another work that cites the source. ``cpu_seconds`` marks a measurement of the authors' own
code, one run on one core with that much process CPU time, on the very teacher of this benchmark's
grid; it is no published number.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Pair:
    """Teacher and student by architecture; ``student`` lists the names it has in a grid."""

    benchmark: str
    teacher: str
    student: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.teacher} -> {self.student[0]}"

    def is_of(self, benchmark: str | None, teacher: str, student: str) -> bool:
        """Whether these names are those of this pair."""
        return (self.benchmark, self.teacher) == (benchmark, teacher) and student in self.student


@dataclass(frozen=True)
class Fact:
    """Test accuracy of a method in percent, where it stands, and the teacher's accuracy there."""

    pair: Pair
    method: str
    accuracy: float
    source: str
    teacher_accuracy: float | None = None
    secondhand: bool = False
    cpu_seconds: int | None = None

    @property
    def citation(self) -> str:
        """The source as a footnote."""
        text = self.source
        if self.teacher_accuracy is not None:
            text += f"; teacher {self.teacher_accuracy:.2f} %"
        return text + (" (read in a secondary source)" if self.secondhand else "")


LENET = Pair("mnist", "lenet5", ("lenet5_half", "half"))
HINTON = Pair("mnist", "hinton1200", ("hinton800",))
R34 = Pair("cifar10", "resnet34", ("resnet18",))
WRN = Pair("cifar10", "wrn40_2", ("wrn16_1",))

LOPES = "Lopes, Fenu, Starner 2017 (arXiv 1710.07535)"
DAFL = "Chen et al. 2019 (arXiv 1904.01186), table 1"
ZSKD = "Nayak et al. 2019 (arXiv 1905.08114)"
SOFT = "Wang 2021 (arXiv 2104.04868)"
FAST = "Fang et al. 2022 (arXiv 2112.06253), README of zju-vipa/Fast-Datafree"
DAFL_T3 = "Chen et al. 2019 (arXiv 1904.01186), table 3"


def _from(
    pair: Pair,
    source: str,
    teacher: float | None,
    *,
    secondhand: bool = False,
    **accuracies: float,
) -> list[Fact]:
    return [
        Fact(pair, method, accuracy, source, teacher, secondhand)
        for method, accuracy in accuracies.items()
    ]


def _code(method: str, accuracy: float, what: str) -> Fact:
    return Fact(LENET, method, accuracy, f"{what}, one seed", 99.18, cpu_seconds=480)


FACTS: tuple[Fact, ...] = (
    *_from(
        LENET, DAFL, 98.91,
        noise=88.01, alternative_data=94.56, real_data=98.91, scratch=98.65, dafl=98.20,
    ),
    *_from(
        HINTON, DAFL, 98.39,
        noise=87.58, alternative_data=93.99, real_data=98.39, scratch=98.11, dafl=97.91,
    ),
    *_from(
        LENET, LOPES, 98.91, secondhand=True,
        lopes_top_layer=77.30, lopes_all_layers=85.61,
        lopes_spectral_all_layers=90.28, lopes_spectral_layer_pairs=92.47,
    ),
    *_from(
        HINTON, LOPES, 96.95, secondhand=True,
        lopes_top_layer=68.75, lopes_all_layers=76.38, lopes_all_layers_dropout=76.23,
        lopes_spectral_all_layers=89.41, lopes_spectral_layer_pairs=91.24,
    ),
    *_from(LENET, ZSKD, 99.34, secondhand=True, zskd=98.77),
    *_from(LENET, SOFT, None, secondhand=True, soft_target=99.08),
    *_from(
        WRN, FAST, 94.87,
        scratch=91.12, deep_inversion=83.04, cmi=90.01, dafl=65.71, zskt=83.74, dfq=86.14,
    ),
    *_from(WRN, f"{FAST}, 10 steps", 94.87, fast_dfkd=89.29),
    *_from(R34, f"{FAST}, 10 steps", 95.70, fast_dfkd=94.05),
    *_from(
        R34, FAST, 95.70,
        scratch=95.20, deep_inversion=93.26, cmi=94.84, dafl=92.22, zskt=93.32, dfq=94.61,
    ),
    *_from(R34, DAFL_T3, 95.58, noise=14.89, alternative_data=90.65),
    *_from(R34, SOFT, None, secondhand=True, soft_target=93.31),
    _code("dafl", 88.21, "huawei-noah/Data-Efficient-Model-Compression 5e8f4e4, lr_G 0.02"),
    _code("fast_dfkd", 96.24, "zju-vipa/Fast-Datafree 0dcecbc, 2 steps, warm-up 5"),
    _code("zskt", 85.19, "zju-vipa/DataFree 9e79fa9, batch 64 (428 of the 480 CPU s)"),
    _code("dfq", 80.88, "zju-vipa/DataFree 9e79fa9, batch 64 (324 of the 480 CPU s)"),
)  # fmt: skip


def published_for(benchmark: str | None, teacher: str, student: str, method: str) -> list[Fact]:
    """The published numbers of ``method`` on exactly this pair of networks."""
    return [fact for fact in _of(method) if fact.pair.is_of(benchmark, teacher, student)]


def other_pairs(benchmark: str | None, method: str) -> list[Fact]:
    """The published numbers of ``method`` on this data set, for the first pair that has any."""
    found = [fact for fact in _of(method) if fact.pair.benchmark == benchmark]
    return [fact for fact in found if fact.pair == found[0].pair]


def code_of_authors(benchmark: str | None, teacher: str, student: str, method: str) -> list[Fact]:
    """Measurements of the authors' own code on this pair."""
    found = _of(method, measured=True)
    return [fact for fact in found if fact.pair.is_of(benchmark, teacher, student)]


def _of(method: str, *, measured: bool = False) -> list[Fact]:
    """What is published of a method, or what was measured of its authors' code."""
    found = [fact for fact in FACTS if fact.method == method]
    return [fact for fact in found if (fact.cpu_seconds is not None) == measured]
