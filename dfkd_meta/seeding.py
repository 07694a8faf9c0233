"""One seed for a run, a separate random stream for each of its parts."""

from __future__ import annotations

import hashlib

import torch


def derive_seed(seed: int, purpose: str) -> int:
    """A seed in [0, 2^63) that depends on both: streams of one run do not overlap."""
    digest = hashlib.sha256(f"{seed}:{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator_for(seed: int, purpose: str) -> torch.Generator:
    """A CPU generator for one part of a run, e.g. ``generator_for(0, "synthesis")``."""
    return torch.Generator().manual_seed(derive_seed(seed, purpose))
