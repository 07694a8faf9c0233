"""How often each value occurs in a channel, and inputs changed so that it does."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dfkd_meta.sidecar import Sidecar
from dfkd_meta.synthesis.gaussians import of_input, read_tensor
from dfkd_meta.teachers import channel_axis

ENTRIES = 4_096


@dataclass(frozen=True)
class Marginals:
    """Quantiles of the values of each channel, over samples and positions.

    probability: float32 `q`, ascending within (0, 1). value: float32 `c q`, not descending.
    channel: which axis of a batch holds the channels.
    """

    probability: Tensor
    value: Tensor
    channel: int = 1

    @classmethod
    def of(cls, inputs: Tensor, probability: Tensor, channel: int = 1) -> Marginals:
        """Those of a batch of inputs at some probabilities `q`."""
        rows = inputs.transpose(0, channel).flatten(1).sort(1).values
        place = (probability * (rows.shape[1] - 1)).round().long()
        return cls(probability, rows[:, place], channel)


@dataclass(frozen=True)
class ValueMap:
    """Changes values of each channel into others, by looking them up (histogram matching).

    low: float32 `c`, what the first entry stands for. per_unit: float32 `c`, entries between two
    values that differ by one. table: float32 `c t`. channel: which axis of a batch holds the
    channels.
    """

    low: Tensor
    per_unit: Tensor
    table: Tensor
    channel: int = 1

    @classmethod
    def for_inputs_like(cls, sample: Tensor, wanted: Marginals) -> ValueMap:
        """Gives inputs that are distributed like those of ``sample`` the wanted marginals."""
        return cls.between(Marginals.of(sample, wanted.probability, wanted.channel), wanted)

    @classmethod
    def between(cls, own: Marginals, wanted: Marginals) -> ValueMap:
        """Gives inputs that have one set of marginals the other, at the same probabilities.

        Each value goes where its quantile is, linearly in between; beyond the outermost levels it
        stays at them. Values are told apart to a 4,095th of their range.
        """
        low, span = own.value[:, :1], own.value[:, -1:] - own.value[:, :1]
        values = low + span * torch.linspace(0, 1, ENTRIES, device=low.device)
        upper = torch.searchsorted(own.value.contiguous(), values.contiguous())
        upper = upper.clamp(1, len(own.probability) - 1)
        start, end = (own.value.gather(1, at) for at in (upper - 1, upper))
        share = ((values - start) / (end - start).clamp_min(1e-12)).clamp(0, 1)
        table = torch.lerp(wanted.value.gather(1, upper - 1), wanted.value.gather(1, upper), share)
        per_unit = torch.where(span > 0, (ENTRIES - 1) / span, 0.0)
        return cls(low[:, 0], per_unit[:, 0], table, wanted.channel)

    def __call__(self, inputs: Tensor) -> Tensor:
        """A batch of inputs to one of the same shape."""
        rows = inputs.transpose(0, self.channel)
        entry = (rows.flatten(1) - self.low[:, None]).mul_(self.per_unit[:, None]).add_(0.5)
        found = self.table.gather(1, entry.clamp_(0, ENTRIES - 1).long())
        return found.view(rows.shape).transpose(0, self.channel)


def read_marginals(sidecar: Sidecar, device: torch.device) -> Marginals | None:
    """Those of the model's input over all classes; None where there are none recorded.

    One level alone tells nothing of how values are distributed.
    """
    for record in of_input(sidecar, "quantiles", scope="global", reduction="channel"):
        probability, value = (
            read_tensor(sidecar, record, role, device) for role in ("probability", "value")
        )
        if len(probability) < 2:
            continue
        return Marginals(probability, value[0], 1 + channel_axis(sidecar.manifest.inputs))
    return None
