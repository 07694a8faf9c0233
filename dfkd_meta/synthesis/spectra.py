"""Inputs as white noise in coordinates of their own: the recorded power spectrum as a prior."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from dfkd_meta.sidecar import Sidecar
from dfkd_meta.synthesis.gaussians import of_input, read_tensor
from dfkd_meta.synthesis.marginals import ValueMap, read_marginals
from dfkd_meta.synthesis.recipe import MethodContext
from dfkd_meta.synthesis.sources.pixels import Render, Rendering, Start
from dfkd_meta.synthesis.targets import Targets, TargetSampler
from dfkd_meta.teachers import CosineTransform, channel_axis

SAMPLE = 2_000  # inputs that tell which values noise of a spectrum has (fewer of large ones)
LEEWAY = 0.2  # what noise adds, of a unit, even to coordinates that draws know all about
FLOOR = 1e-4  # of the mean power: what a frequency without any is taken to have


@dataclass(frozen=True)
class Spectrum:
    """The Gaussian with a recorded spectrum, as a linear map from white noise.

    mean: float32 `c`. root: float32 `... c c`, lower triangular, root root^T = the power at each
    frequency of the cosine transform along the axes of positions. channel: which axis of a batch
    holds the channels; all others but the first are positions.
    """

    mean: Tensor
    root: Tensor
    channel: int = 1

    def inputs(self, white: Tensor) -> Tensor:
        """Coordinates `n ...` to inputs of the same shape; white noise gets this spectrum.

        Decorrelated coordinates, in which a step changes an image the way images differ from one
        another: the parameterization of Olah et al. 2017 (Feature Visualization), recorded instead
        of assumed.
        """
        waves = white.movedim(self.channel, 1)
        mixed = torch.einsum("pab,nbp->nap", self.root.flatten(0, -3), waves.flatten(2))
        plain: Tensor = self._mean + self._transform.inverse(mixed.view(waves.shape), 2)
        return plain.movedim(1, self.channel)

    def coordinates(self, inputs: Tensor) -> Tensor:
        """What ``inputs`` makes these inputs `n ...` of."""
        waves = self._transform(inputs.movedim(self.channel, 1) - self._mean, 2)
        mixed = waves.flatten(2).permute(2, 1, 0)
        found: Tensor = torch.linalg.solve_triangular(self.root.flatten(0, -3), mixed, upper=False)
        return found.permute(2, 1, 0).reshape(waves.shape).movedim(1, self.channel)

    @cached_property
    def _transform(self) -> CosineTransform:
        return CosineTransform(self.root.shape[:-2], self.root.device, self.root.dtype)

    @cached_property
    def _mean(self) -> Tensor:
        """The mean as `c 1 ...`."""
        return self.mean.view(-1, *(1,) * (self.root.dim() - 2))


@dataclass(frozen=True)
class NaturalInputs:
    """Renders coordinates as inputs with a recorded spectrum and, if known, recorded values.

    White noise becomes noise with the spectrum of the data; then each channel gets the values that
    the data have (by ``turn``, from those of such noise), and what is outside of the bounds (low,
    high) is cut. Gradients pass through both as if they were not there: values that do not
    occur (gray in a drawing) are no wall between those that do.
    """

    spectrum: Spectrum
    bounds: tuple[Tensor, Tensor]
    turn: ValueMap | None = None

    def __call__(self, white: Tensor) -> Tensor:
        """Coordinates `n ...` to inputs of the same shape."""
        plain = self.spectrum.inputs(white)
        turned = plain.detach()
        if self.turn is not None:
            turned = self.turn(turned)
        return turned.clamp(*self.bounds) + (plain - plain.detach())


@dataclass(frozen=True)
class DrawnCoordinates:
    """Draws from records of the input in coordinates of its spectrum, and what they leave open.

    Class-wise records of low rank say how the large shapes of an image lie and nothing of the rest.
    ``spread``, float32 of the shape of an input, is the root of the power that draws lack: noise of
    that strength completes them.
    """

    spectrum: Spectrum
    draw: Start
    spread: Tensor

    @classmethod
    def of(cls, spectrum: Spectrum, draw: Start, sample: Targets) -> DrawnCoordinates:
        """``draw`` makes inputs; what it draws for ``sample`` tells what it leaves."""
        drawn = spectrum.coordinates(draw(sample, torch.Generator().manual_seed(0)))
        spread = (1 - drawn.square().mean(0)).clamp_min(LEEWAY**2).sqrt()
        return cls(spectrum, draw, spread)

    def __call__(self, targets: Targets, generator: torch.Generator) -> Render:
        """Makes of white noise `n ...` coordinates of completed draws."""
        drawn = self.spectrum.coordinates(self.draw(targets, generator))
        return lambda white: drawn + self.spread * white


def natural_inputs(
    context: MethodContext, white: Start, draw: Start | None, sampler: TargetSampler
) -> Rendering | None:
    """How a sidecar lets white noise be rendered; None without a power spectrum of the input.

    Where class-wise records of the input give a ``draw`` for what ``sampler`` aims at, noise
    completes it.
    """
    spectrum = read_spectrum(context.sidecar, context.device)
    if spectrum is None:
        return None
    sample = sampler.sample(context.fitting(SAMPLE), 0, torch.Generator().manual_seed(0))
    drawn = None if draw is None else DrawnCoordinates.of(spectrum, draw, sample)

    def coordinates(targets: Targets, generator: torch.Generator) -> Render:
        return (lambda noise: noise) if drawn is None else drawn(targets, generator)

    inputs = NaturalInputs(spectrum, context.bounds)
    wanted = read_marginals(context.sidecar, context.device)
    if wanted is not None:
        generator = torch.Generator().manual_seed(0)
        noise = white(sample, generator)
        found = spectrum.inputs(coordinates(sample, generator)(noise))
        inputs = replace(inputs, turn=ValueMap.for_inputs_like(found, wanted))

    def rendering(targets: Targets, generator: torch.Generator) -> Render:
        place = coordinates(targets, generator)
        return lambda noise: inputs(place(noise))

    return rendering


def read_spectrum(sidecar: Sidecar, device: torch.device) -> Spectrum | None:
    """The spectrum of the model's input over all classes; None where there is none recorded.

    Inputs without positions have no frequencies: there the record is a plain covariance.
    """
    inputs = sidecar.manifest.inputs
    axis = channel_axis(inputs)
    grid = [size for place, size in enumerate(inputs.shape) if place != axis]
    if not grid:
        return None
    for record in of_input(sidecar, "power_spectrum", scope="global"):
        mean, power = (read_tensor(sidecar, record, role, device)[0] for role in ("mean", "power"))
        power = power.double()
        channels = len(mean)
        floor = FLOOR * power.diagonal(dim1=1, dim2=2).mean().clamp_min(1e-12)
        raised = power + floor * torch.eye(channels, device=device)
        root, failed = torch.linalg.cholesky_ex(raised)
        if failed.any():  # rounding may leave an eigenvalue below 0
            values, vectors = torch.linalg.eigh(raised)
            raised = vectors @ (values.clamp_min(floor)[..., None] * vectors.mT)
            root = torch.linalg.cholesky(raised)
        return Spectrum(mean, root.view(*grid, channels, channels).float(), 1 + axis)
    return None
