"""What a run was made with: times, and the last digits of results, are a machine's own."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

CPU_FACTS = Path("/proc/cpuinfo")  # Linux; other systems tell Python


def machine_facts(device: torch.device) -> dict[str, Any]:
    """Hardware and threads, for a report: no name of the machine or of its user is among them."""
    return {
        "platform": platform.platform(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": device.type,
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
    }


def versions() -> dict[str, str]:
    """Of the software that numbers depend on."""
    return {
        "dfkd_meta": installed("dfkd-meta") or "unknown",
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }


def installed(package: str) -> str | None:
    """The version of a package; None if it is used without having been installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def processor() -> str:
    """E.g. ``AMD EPYC 9654 (family 25, model 17)``: virtual machines shorten the name."""
    facts: dict[str, str] = {}
    if CPU_FACTS.is_file():
        first, _, _ = CPU_FACTS.read_text(encoding="utf-8", errors="replace").partition("\n\n")
        pairs = (line.partition(":") for line in first.splitlines())
        facts = {key.strip(): value.strip() for key, _, value in pairs}
    name = facts.get("model name") or platform.processor() or platform.machine()
    numbers = [
        f"{word.split()[-1]} {facts[word]}" for word in ("cpu family", "model") if word in facts
    ]
    return f"{name} ({', '.join(numbers)})" if numbers else name
