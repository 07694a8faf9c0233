"""Generators of any input shape, cheap enough for a CPU, with initial weights of one's own."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfkd_meta.seeding import layers_draw_from
from dfkd_meta.sidecar import InputSpec
from dfkd_meta.teachers import channels_last, valid_bounds

LEAK = 0.2
SMALL = 16  # pixels a side
CENTERS = (0.1, 0.9)  # of the range: nearer to its ends a sigmoid has little gradient


class ConvTrunk(nn.Module):
    """Latent `n z` to an image `n c h w` without output activation.

    The published generators (Chen et al. 2019 and all after them) convolve 64 to 128 channels at
    full size, which takes 20 times as long as a LeNet-5 teacher. Here a linear layer makes
    `2 width` maps of a quarter of the size; they are doubled, convolved to ``width`` maps, doubled
    bilinearly, and convolved to the channels of the input. Nothing but that last layer works at
    full size, and images are smooth from the start. Images of up to 16 pixels a side are too small
    for that: the hidden maps have their size, and start from half of it.
    """

    def __init__(self, latent: int, shape: Sequence[int], width: int) -> None:
        super().__init__()
        channels, *self.size = shape
        shrink = 1 if max(self.size) <= SMALL else 2
        self.hidden_size = [math.ceil(side / shrink) for side in self.size]
        self.first_size = [math.ceil(side / 2) for side in self.hidden_size]
        self.width = width
        self.fc = nn.Linear(latent, 2 * width * math.prod(self.first_size))
        self.bn0 = nn.BatchNorm2d(2 * width)
        self.conv1 = nn.Conv2d(2 * width, width, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, latent: Tensor) -> Tensor:
        """Latent `n z` -> `n c h w`."""
        x = self.fc(latent).view(len(latent), 2 * self.width, *self.first_size)
        x = F.interpolate(self.bn0(x), size=self.hidden_size)
        x = F.leaky_relu(self.bn1(self.conv1(x)), LEAK)
        if self.hidden_size != self.size:
            x = F.interpolate(x, size=self.size, mode="bilinear")
        image: Tensor = self.conv2(x)
        return image


class FlatTrunk(nn.Module):
    """Latent `n z` to an input that is no image, `n ...`: two hidden layers with BatchNorm."""

    def __init__(self, latent: int, shape: Sequence[int], width: int) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.fc1 = nn.Linear(latent, 8 * width)
        self.bn1 = nn.BatchNorm1d(8 * width)
        self.fc2 = nn.Linear(8 * width, 16 * width)
        self.bn2 = nn.BatchNorm1d(16 * width)
        self.fc3 = nn.Linear(16 * width, math.prod(shape))

    def forward(self, latent: Tensor) -> Tensor:
        """Latent `n z` -> `n ...`."""
        x = F.leaky_relu(self.bn1(self.fc1(latent)), LEAK)
        x = F.leaky_relu(self.bn2(self.fc2(x)), LEAK)
        out: Tensor = self.fc3(x)
        return out.view(-1, *self.shape)


class WithinRange(nn.Module):
    """A sigmoid onto the values that real inputs can take, which starts where they are centered.

    A raw output of 0 becomes a model-normalized 0, the mean of the data by convention, or what
    comes near it inside the range: digits are mostly background, and a generator that starts at mid
    gray finds its way there late or never.
    """

    def __init__(self, inputs: InputSpec) -> None:
        super().__init__()
        low, high = valid_bounds(inputs)
        center = (-low / (high - low)).clamp(*CENTERS)
        for name, value in (("low", low), ("reach", high - low), ("bias", torch.logit(center))):
            self.register_buffer(name, value, persistent=False)
        self.low: Tensor
        self.reach: Tensor
        self.bias: Tensor

    def forward(self, raw: Tensor) -> Tensor:
        """Raw outputs `n ...` -> inputs within the bounds."""
        return self.low + self.reach * torch.sigmoid(raw + self.bias)


class Standardized(nn.Module):
    """Outputs with mean 0 and variance 1 per channel over a batch, cut at the range of real inputs.

    That is what model-normalized data have by convention; DAFL's generator ends the same way (a
    BatchNorm without weights after a tanh), but without the cut. Gradients pass through the cut, so
    that a value outside can come back.
    """

    def __init__(self, inputs: InputSpec) -> None:
        super().__init__()
        low, high = valid_bounds(inputs)
        for name, value in (("low", low), ("high", high)):
            self.register_buffer(name, value, persistent=False)
        self.low: Tensor
        self.high: Tensor
        self.channels = inputs.shape[0] if len(inputs.shape) == 3 else 1
        self.norm = nn.BatchNorm1d(self.channels, affine=False)

    def forward(self, raw: Tensor) -> Tensor:
        """Raw outputs `n ...` -> inputs within the bounds."""
        rows = torch.tanh(raw).view(len(raw), self.channels, -1)
        x: Tensor = self.norm(rows).view_as(raw)
        return x + (x.clamp(self.low, self.high) - x).detach()


def make_generator(
    latent: int,
    inputs: InputSpec,
    width: int,
    generator: torch.Generator,
    device: torch.device,
    *,
    standardized: bool = False,
) -> nn.Module:
    """A fresh generator of inputs like ``inputs`` from latents `n latent`, in training mode.

    Its weights are drawn from ``generator`` (PyTorch's default initialization). ``standardized``
    chooses the output layer: see ``Standardized``, else ``WithinRange``.
    """
    shape = inputs.shape
    with layers_draw_from(generator, torch.device("cpu")):
        trunk = (
            ConvTrunk(latent, shape, width) if len(shape) == 3 else FlatTrunk(latent, shape, width)
        )
    output = Standardized(inputs) if standardized else WithinRange(inputs)
    return channels_last(nn.Sequential(trunk, output)).to(device).train()


def reinitialize(module: nn.Module, generator: torch.Generator) -> None:
    """Give every layer fresh initial weights, drawn from ``generator``, in place."""
    with layers_draw_from(generator, next(module.parameters()).device):
        for part in module.modules():
            reset = getattr(part, "reset_parameters", None)
            if callable(reset):
                reset()
