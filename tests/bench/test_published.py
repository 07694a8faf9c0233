"""The facts that stand beside our numbers."""

from __future__ import annotations

from collections import Counter

from dfkd_meta.bench.cells import CONTROLS
from dfkd_meta.bench.published import FACTS, code_of_authors, other_pairs, published_for
from dfkd_meta.synthesis.recipe import methods


def test_every_fact_is_of_a_method_and_stands_once() -> None:
    assert {fact.method for fact in FACTS} <= set(methods.names())
    counted = Counter((fact.pair, fact.method, fact.source) for fact in FACTS)
    assert max(counted.values()) == 1
    for fact in FACTS:
        assert 10 < fact.accuracy < 100
        assert fact.source


def test_the_numbers_that_the_project_set_out_to_beat() -> None:
    def best(teacher: str, student: str, method: str) -> list[float]:
        return [fact.accuracy for fact in published_for("mnist", teacher, student, method)]

    assert best("lenet5", "lenet5_half", "lopes_spectral_layer_pairs") == [92.47]
    assert best("lenet5", "lenet5_half", "lopes_spectral_all_layers") == [90.28]
    assert best("hinton1200", "hinton800", "lopes_spectral_layer_pairs") == [91.24]
    assert best("hinton1200", "hinton800", "lopes_spectral_all_layers") == [89.41]
    assert best("lenet5", "half", "zskd") == [98.77]
    assert best("lenet5", "lenet5_half", "dafl") == [98.20]
    assert best("lenet5", "quarter", "dafl") == []


def test_measured_code_is_no_published_number() -> None:
    (measured,) = code_of_authors("mnist", "lenet5", "lenet5_half", "fast_dfkd")
    assert measured.accuracy == 96.24
    assert measured.cpu_seconds == 480
    assert published_for("mnist", "lenet5", "lenet5_half", "fast_dfkd") == []


def test_numbers_of_one_other_pair_stand_in() -> None:
    found = other_pairs("cifar10", "dafl")
    assert [str(fact.pair) for fact in found] == ["wrn40_2 -> wrn16_1"]
    assert other_pairs("digits", "dafl") == []
    assert other_pairs(None, "dafl") == []


def test_secondhand_numbers_are_marked() -> None:
    (fact,) = published_for("mnist", "lenet5", "lenet5_half", "soft_target")
    assert "secondary source" in fact.citation
    (first,) = published_for("mnist", "lenet5", "lenet5_half", "dafl")
    assert "secondary" not in first.citation
    assert "teacher 98.91 %" in first.citation


def test_controls_are_methods() -> None:
    assert set(CONTROLS) <= set(methods.names())
