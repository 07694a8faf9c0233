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
    uses nor disturbs them. (``torch.manual_seed`` would seed those of all devices, and slowly.)
    """
    seed = int(torch.randint(2**62, (1,), generator=generator))
    streams = [torch.default_generator]
    if device.type == "cuda":
        current = torch.cuda.current_device()  # which starts CUDA, if nothing has
        index = current if device.index is None else device.index
        streams.append(torch.cuda.default_generators[index])
    before = [stream.get_state() for stream in streams]
    for stream in streams:
        stream.manual_seed(seed)
    try:
        yield
    finally:
        for stream, state in zip(streams, before, strict=True):
            stream.set_state(state)
