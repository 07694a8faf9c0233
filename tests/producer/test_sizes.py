"""What an export will take is known before the pass, and what would not fit is refused then."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from dfkd_meta.errors import UsageError
from dfkd_meta.producer.export import export
from dfkd_meta.producer.profiles import plan
from dfkd_meta.sidecar import InputSpec, OutputSpec
from dfkd_meta.sidecar.summary import record_bytes
from dfkd_meta.statistics import MIN_COUNT, forecast
from dfkd_meta.statistics.collect import _Pass
from dfkd_meta.teachers import Teacher, build_model, default_taps, freeze
from tests.producer.toys import builtin, config, data

PICTURES = InputSpec(
    shape=[3, 32, 32], axes=["c", "h", "w"], value_range=[0, 1], mean=[0.3], std=[0.4]
)


def many_classes(classes: int) -> Teacher:
    arguments = {"num_classes": classes, "shape": [3, 32, 32]}
    module = freeze(build_model("resnet20", arguments, seed=0))
    return Teacher(
        module, "builtin", "resnet20", arguments, PICTURES, OutputSpec(num_classes=classes)
    )


@pytest.mark.parametrize("profile", ["minimal", "standard", "full"])
def test_what_is_foretold_is_what_comes(tmp_path: Path, profile: str) -> None:
    teacher, settings = builtin(), config(profile, modes=1, min_count=1)
    taps = default_taps(teacher)
    requests = plan(settings, teacher, taps, labeled=True)
    foretold = forecast(teacher, requests, taps)
    manifest = export(teacher, data(12_000), settings, tmp_path / "out")
    for record in manifest.statistics:
        if all(ref.file is None for ref in record.tensors.values()):
            assert foretold[record.id].stored == record_bytes(record), record.id
        else:
            assert foretold[record.id].stored > record_bytes(record) == 0
    assert foretold.keys() == {record.id for record in manifest.statistics}


def test_the_memory_foretold_is_that_of_the_sums() -> None:
    teacher, settings = builtin(), config("full")
    taps = default_taps(teacher)
    requests = plan(settings, teacher, taps, labeled=True)
    foretold = forecast(teacher, requests, taps)
    running = _Pass(teacher, requests, taps, MIN_COUNT).accumulators
    assert all(foretold[name].memory == 0 for name in foretold.keys() - running)
    for name, accumulator in running.items():
        held = sum(tensor.nbytes for tensor in accumulator.state().values())
        if (scout := accumulator.scout()) is not None:  # it keeps samples of the last hidden layer
            (tap,) = (tap for tap in taps if tap.id == scout.tap)
            held += 4 * 2_000 * math.prod(tap.shape) * 8
        assert foretold[name].memory == held, name


def test_classes_beyond_number_are_refused_before_the_data_are_read(tmp_path: Path) -> None:
    settings = config("standard", only=["moments/*/channel/per_class"])
    with pytest.raises(UsageError, match="would make a manifest of"):
        export(many_classes(40_000), data(), settings, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_tensors_beyond_the_limit_are_refused_with_the_largest_named(tmp_path: Path) -> None:
    teacher, settings = many_classes(1_000), config("standard", standard_unit_cap=2**16)
    with pytest.raises(UsageError, match="a sidecar holds at most") as caught:
        export(teacher, data(), settings, tmp_path / "out")
    assert "/unit/per_class 131.07 MB" in (caught.value.hint or "")
    assert not list(tmp_path.iterdir())
