"""Terms on the spectrum of the activations: the recorded graph of one layer, a pair, or all."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dfkd_meta.sidecar import Sidecar, StatisticRecord, Tap
from dfkd_meta.statistics import feature_count
from dfkd_meta.synthesis.gaussians import ClassGaussians, read_tensor
from dfkd_meta.synthesis.terms.base import StepState, Term
from dfkd_meta.synthesis.terms.moments import FLOOR, floor_under
from dfkd_meta.teachers import reduce_features


@dataclass(frozen=True)
class ActivationGraph:
    """A ``spectrum`` record to hold a batch against.

    ``nodes`` are the taps whose features, one after the other, are the signal `n f`. basis: float32
    `g k f`, rows of length 1. coefficients: mean and variance `g k`. energy: float32 `g`, the
    recorded mean energy outside the basis. ``key`` names the drawn coefficients among the targets.
    """

    key: str
    nodes: tuple[Tap, ...]
    reduction: str
    basis: Tensor
    coefficients: ClassGaussians
    energy: Tensor

    @classmethod
    def read(
        cls, sidecar: Sidecar, record: StatisticRecord, device: torch.device
    ) -> ActivationGraph:
        """From a ``spectrum`` record."""

        def array(role: str) -> Tensor:
            return read_tensor(sidecar, record, role, device)

        return cls(
            key=record.id,
            nodes=tuple(sidecar.tap(name) for name in record.taps),
            reduction=record.reduction or "unit",
            basis=array("basis"),
            coefficients=ClassGaussians(
                array("coefficient_mean"),
                residual=array("coefficient_variance"),
                classes=tuple(record.classes or ()),
            ),
            energy=array("residual_energy"),
        )

    @property
    def variance(self) -> Tensor:
        """Recorded variance of the coefficients, float32 `g k`."""
        if self.coefficients.residual is None:
            raise ValueError("a recorded spectrum holds a variance per coefficient")
        return self.coefficients.residual

    @property
    def energy_unit(self) -> Tensor:
        """The recorded energy `g`, above rounding also where (nearly) everything is kept."""
        floored = torch.maximum(self.energy, FLOOR * self.variance.sum(1))
        return floored + torch.finfo(floored.dtype).tiny

    def columns(self, tap: Tap) -> slice:
        """Where the features of one of the nodes lie in the signal."""
        before = feature_count(self.nodes[: self.nodes.index(tap)], self.reduction)
        return slice(before, before + feature_count([tap], self.reduction))

    def rows(self, state: StepState) -> Tensor:
        """The group of each input, int64 `n`."""
        return state.targets.grouping(self.coefficients.classes).rows

    def spectra(self, state: StepState) -> tuple[Tensor, Tensor]:
        """Coefficients `n k` of each input in the basis of its class, and energy outside `n`."""
        return state.once(("spectra", self.key), lambda: self._spectra(state))

    def _spectra(self, state: StepState) -> tuple[Tensor, Tensor]:
        signal = torch.cat(
            [reduce_features(state.activation(t), t, self.reduction) for t in self.nodes], 1
        )
        coefficients = signal.new_empty(len(signal), self.basis.shape[1])
        outside = signal.new_empty(len(signal))
        for group, here in state.targets.grouping(self.coefficients.classes).members:
            own, basis = signal[here], self.basis[group]
            spectrum = own @ basis.T
            coefficients = coefficients.index_copy(0, here, spectrum)
            outside = outside.index_copy(0, here, (own - spectrum @ basis).square().sum(1))
        return coefficients, outside


@dataclass(frozen=True)
class DrawnSpectrum(Term):
    """Distance of each input's coefficients to those drawn for it, in units of recorded spread.

    Mean over graphs, inputs and coefficients of ``(c - s)^2 / (v + floor * mean_k v)``, with c =
    B x the coefficients of the activations x, s the draw and v the recorded variance.
    """

    graphs: tuple[ActivationGraph, ...]
    floor: float = FLOOR

    @property
    def taps(self) -> tuple[Tap, ...]:
        return tuple(tap for graph in self.graphs for tap in graph.nodes)

    def __call__(self, state: StepState) -> Tensor:
        return torch.stack([self._distance(graph, state) for graph in self.graphs]).mean()

    def _distance(self, graph: ActivationGraph, state: StepState) -> Tensor:
        reached, _ = graph.spectra(state)
        unit = (graph.variance + floor_under(graph.variance, self.floor))[graph.rows(state)]
        return ((reached - state.targets.features[graph.key]).square() / unit).mean()


@dataclass(frozen=True)
class EnergyOutside(Term):
    """Energy of each input's activations outside the recorded basis, in units of the recorded.

    Mean over graphs and inputs of ``|x - B^T B x|^2 / r``, with x the activations and r the
    recorded mean of the numerator. Real data have about 1 there, but of what is not recorded; the
    paper's target, cut to the kept coefficients, has none.
    """

    graphs: tuple[ActivationGraph, ...]

    @property
    def taps(self) -> tuple[Tap, ...]:
        return tuple(tap for graph in self.graphs for tap in graph.nodes)

    def __call__(self, state: StepState) -> Tensor:
        return torch.stack([self._energy(graph, state) for graph in self.graphs]).mean()

    def _energy(self, graph: ActivationGraph, state: StepState) -> Tensor:
        _, outside = graph.spectra(state)
        return (outside / graph.energy_unit[graph.rows(state)]).mean()
