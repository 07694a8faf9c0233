"""What a report says about the machine."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dfkd_meta import machine


def test_the_processor_is_named_with_its_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    core = "processor\t: 0\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\n"
    (tmp_path / "cpuinfo").write_text(f"{core}\n{core.replace('17', '18')}\n")
    monkeypatch.setattr(machine, "CPU_FACTS", tmp_path / "cpuinfo")
    assert machine.processor() == "AMD EPYC (family 25, model 17)"


@pytest.mark.parametrize("text", [None, "", "Features\t: fp asimd\n"])
def test_other_systems_tell_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None
) -> None:
    if text is not None:
        (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(machine, "CPU_FACTS", tmp_path / "cpuinfo")
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    assert machine.processor() == "arm64"


def test_facts_name_the_hardware_and_nobody() -> None:
    facts = machine.machine_facts(torch.device("cpu"))
    assert facts["device"] == "cpu"
    assert facts["gpu"] is None
    assert facts["threads"] == torch.get_num_threads()
    assert set(facts) == {"platform", "processor", "cores", "threads", "device", "gpu"}


def test_software_that_was_never_installed_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.versions()["dfkd_meta"] == machine.installed("dfkd-meta")
    assert machine.installed("no-such-package") is None
    monkeypatch.setattr(machine, "installed", lambda package: None)
    assert machine.versions()["dfkd_meta"] == "unknown"
