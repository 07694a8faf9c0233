"""Lopes, Fenu & Starner 2017, spectral records: one graph per pair of connected layers."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dfkd_meta.synthesis.methods.lopes_spectral_all_layers import (
    SpectralConfig,
    SpectrumQuery,
    read_graphs,
    spectral_recipe,
)
from dfkd_meta.synthesis.recipe import MethodContext, Recipe, method
from dfkd_meta.synthesis.targets import Targets, TargetSampler
from dfkd_meta.synthesis.terms.spectral import ActivationGraph

PAIRS = SpectrumQuery("spectrum", pairs=True)


@method(
    "lopes_spectral_layer_pairs",
    source="Lopes, Fenu & Starner 2017, 'spectral methods, layer pairs' (graph defined here)",
    config=SpectralConfig,
    needs=((PAIRS,),),
)
def lopes_spectral_layer_pairs(context: MethodContext, config: SpectralConfig) -> Recipe:
    """``lopes_spectral_all_layers`` on one graph per pair of layers, drawn one after the other.

    The paper takes pairs because the eigenvectors of the whole network's graph are dear. Drawn
    independently, two pairs ask their common layer for two activations at once, and no input
    reaches either; so here each pair is drawn given what the pair before it asks of that layer.
    """
    graphs = read_graphs(context, PAIRS.records(context.sidecar))
    sampler = ChainedSpectra(context.classes, context.device, chain=graphs)
    return spectral_recipe(context, config, graphs, sampler)


@dataclass(frozen=True)
class ChainedSpectra(TargetSampler):
    """Draws coefficients for graphs of two layers, each given the graph before it.

    A signal is ``B^T c + noise``, c from N(mean, variance), the noise white with the energy that is
    outside. Where the first layer of a graph is the last of an earlier one, c is drawn from its
    distribution given that layer of the earlier draw.
    """

    chain: tuple[ActivationGraph, ...] = ()

    def sample(self, size: int, index: int, generator: torch.Generator) -> Targets:
        targets = super().sample(size, index, generator)
        drawn: dict[str, Tensor] = {}
        for number, graph in enumerate(self.chain):
            before = next((e for e in self.chain[:number] if _leads_to(e, graph)), None)
            if before is None:
                drawn[graph.key] = graph.coefficients.sample(targets.labels, generator)
            else:
                drawn[graph.key] = _draw_given(
                    graph, before, drawn[before.key], targets.labels, generator
                )
        return replace(targets, features={**targets.features, **drawn})


def _leads_to(earlier: ActivationGraph, graph: ActivationGraph) -> bool:
    return earlier.nodes[-1] == graph.nodes[0] and earlier.reduction == graph.reduction


def _draw_given(
    graph: ActivationGraph,
    before: ActivationGraph,
    drawn: Tensor,
    labels: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """Coefficients `n k` of ``graph``, given those of the graph ``before`` it (`n j`).

    With c = m + D z, z ~ N(0, I), and the common layer seen as A^T c under noise of variance s, the
    distribution of z has the precision P = I + D A A^T D / s and the mean
    P^-1 D A (seen - A^T m) / s.
    """
    shared = graph.nodes[0]
    noise = torch.randn(len(labels), graph.basis.shape[1], generator=generator).to(drawn)
    result = torch.empty_like(noise)
    rows, rows_before = graph.coefficients.rows(labels), before.coefficients.rows(labels)
    for group in torch.unique(rows).tolist():
        here = rows == group
        at = int(rows_before[here][0])
        seen = drawn[here] @ before.basis[at][:, before.columns(shared)]
        layer, mean = graph.basis[group][:, graph.columns(shared)], graph.coefficients.mean[group]
        scale = graph.variance[group].sqrt()
        white = sum(g.energy_unit[i] / g.basis.shape[2] for g, i in ((graph, group), (before, at)))
        rooted = scale[:, None] * layer  # k a
        identity = torch.eye(len(scale), device=scale.device)
        lower = torch.linalg.cholesky(identity + rooted @ rooted.T / white)
        expected = torch.cholesky_solve(rooted @ (seen - mean @ layer).T / white, lower)
        spread = torch.linalg.solve_triangular(lower.T, noise[here].T, upper=True)
        result[here] = mean + (expected + spread).T * scale
    return result
