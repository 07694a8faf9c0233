"""How precisely networks compute: in float32, or in bfloat16 where the machine is fast at it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

Precision = Literal["auto", "float32", "bfloat16"]
Settled = Literal["float32", "bfloat16"]

FAST_ON_CPU = ("amx_bf16", "avx512_bf16")  # instructions; without them bfloat16 is emulated


def settle(precision: Precision, device: torch.device) -> Settled:
    """What ``auto`` is on this device: bfloat16 where it has instructions for it, else float32.

    A ResNet-20 forward and back to its input takes 350 ms for 645 in float32, a LeNet-5 29 for 48
    (256 images, one core with AVX512-BF16).
    """
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.get_device_capability(device)[0] >= 8 else "float32"
    if device.type == "cpu":
        # Older versions of torch cannot tell, and take what is right everywhere.
        able: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
        return "bfloat16" if any(able.get(name) for name in FAST_ON_CPU) else "float32"
    return "float32"


def computing(precision: Settled, device: torch.device) -> AbstractContextManager[object]:
    """Within it, layers compute in ``precision``; weights, and what is summed up, stay float32."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)
