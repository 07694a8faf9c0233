"""One seed for a run, a separate random stream for each of its parts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive_seed(seed: int, purpose: str) -> int:
    """A seed in [0, 2^63) that depends on both: streams of one run do not overlap."""
    digest = hashlib.sha256(f"{seed}:{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator_for(seed: int, purpose: str) -> torch.Generator:
    """A CPU generator for one part of a run, e.g. ``generator_for(0, "synthesis")``."""
    return torch.Generator().manual_seed(derive_seed(seed, purpose))


@contextmanager
def layers_draw_from(generator: torch.Generator, device: torch.device) -> Iterator[None]:
    """Inside, layers such as dropout, which draw from torch's global stream, follow ``generator``.

    The global streams of the CPU and of a CUDA ``device`` are put back afterwards, so a run neither
    uses nor disturbs them. Those of other GPUs, which torch seeds along, stay as this leaves them.
    """
    seed = int(torch.randint(2**62, (1,), generator=generator))
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
