"""Lopes, Fenu & Starner 2017, spectral records: the graph of the whole network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import Field

from dfkd_meta.sidecar import Sidecar, StatisticRecord
from dfkd_meta.synthesis.methods.lopes_top_layer import LopesConfig, lopes_source
from dfkd_meta.synthesis.recipe import MethodContext, Query, Recipe, Weighted, method
from dfkd_meta.synthesis.targets import TargetSampler
from dfkd_meta.synthesis.terms.spectral import ActivationGraph, DrawnSpectrum, EnergyOutside


class SpectralConfig(LopesConfig):
    """Shorter runs than the other records need, and pixels within the value range of the data."""

    images: int = Field(2_000, ge=1)
    batch_size: int = Field(250, ge=1)
    steps: int = Field(40, ge=0)
    clip: bool = True


@dataclass(frozen=True)
class SpectrumQuery(Query):
    """Spectra of every class: over pairs of layers, or the one over all layers that have any."""

    scope: str | None = "per_class"
    pairs: bool = False

    def records(self, sidecar: Sidecar) -> list[StatisticRecord]:
        """The records that answer the query, in file order."""
        found = sidecar.find(self.kind, scope=self.scope)
        if self.pairs:
            return [record for record in found if len(record.taps) == 2]
        everywhere = {tap for record in found for tap in record.taps}
        return [r for r in found if len(r.taps) > 1 and everywhere <= set(r.taps)][:1]

    def found(self, sidecar: Sidecar) -> bool:
        return bool(self.records(sidecar))

    def __str__(self) -> str:
        return f"{super().__str__()} over {'pairs of layers' if self.pairs else 'all layers'}"


NETWORK = SpectrumQuery("spectrum")


def read_graphs(
    context: MethodContext, records: Sequence[StatisticRecord]
) -> tuple[ActivationGraph, ...]:
    """The recorded spectra, on the device of the run."""
    return tuple(
        ActivationGraph.read(context.sidecar, record, context.device) for record in records
    )


def spectral_recipe(
    context: MethodContext,
    config: SpectralConfig,
    graphs: tuple[ActivationGraph, ...],
    targets: TargetSampler,
) -> Recipe:
    """Inputs whose activations have the drawn spectra and little energy outside, on each graph."""
    return Recipe(
        targets=targets,
        source=lopes_source(context, config),
        images=config.images,
        batch_size=config.batch_size,
        terms={
            "spectrum": Weighted(DrawnSpectrum(graphs), 1.0),
            "outside": Weighted(EnergyOutside(graphs), 1.0),
        },
        steps=config.steps,
    )


@method(
    "lopes_spectral_all_layers",
    source="Lopes, Fenu & Starner 2017, 'spectral methods, all layers' (graph defined here)",
    config=SpectralConfig,
    needs=((NETWORK,),),
)
def lopes_spectral_all_layers(context: MethodContext, config: SpectralConfig) -> Recipe:
    """Match spectra drawn for the graph of all layers of the teacher together.

    The paper: with s the activations and s' their spectrum cut to the C largest coefficients and
    transformed back, minimize ``|s' - s|^2``. That is the squared distance of the kept coefficients
    plus the energy outside them, with s' outside being 0. Here s' is drawn: each coefficient from
    N(mean, variance) of its class; the two parts are counted in units of the recorded spread and of
    the recorded energy, so that one weight serves every teacher. What the graph is, and what of it
    is defined here, says the statistic ``spectrum``. The released code never reads its spectra.
    """
    (graph,) = read_graphs(context, NETWORK.records(context.sidecar))
    drawn = {graph.key: graph.coefficients}
    sampler = TargetSampler(context.classes, context.device, drawn)
    return spectral_recipe(context, config, (graph,), sampler)
