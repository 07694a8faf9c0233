"""``spectrum``: the leading eigenvectors of a class's activation graph, and its coefficients."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dfkd_meta.errors import StatisticsError
from dfkd_meta.statistics.base import Accumulator, Context, RecordRequest, Result, statistics
from dfkd_meta.statistics.factors import (
    backed_rows,
    nystrom_eigenpairs,
    orient,
    sketch_matrix,
    top_eigenpairs,
)
from dfkd_meta.statistics.kinds.covariance import EXACT_FEATURES, OVERSAMPLING
from dfkd_meta.statistics.running import Diagonal, Full, Running, Scatter, Sketch

GRAPHS = ("covariance", "correlation")
DEFAULT_KEPT = 0.1
NO_DIRECTION = 1e-9  # a mean this small beside the spread is rounding and has no direction


@statistics.register("spectrum")
class Spectrum(Accumulator):
    """Spectrum of the activations as a signal on a graph, per group.

    The units of one tap (a layer), of two (a pair of layers) or of many (the network), one after
    the other, are the nodes; a sample's activations x `f` are a signal on them. With orthonormal
    rows B `k f`, B x `k` is the sample's spectrum and ``|x|^2 - |B x|^2`` its energy outside.

    Roles: ``basis`` B `g k f`; ``coefficient_mean`` and ``coefficient_variance`` `g k` of B x, NOT
    centered; ``residual_energy`` `g`, the mean of ``|x|^2 - |B x|^2``. The first row of B is the
    direction of the group's mean (its constant signal), so that the mean lies within the basis; the
    others are the leading eigenvectors of the graph among the directions orthogonal to it. With the
    parameter ``graph`` = ``covariance`` (default) the weight of an edge is the covariance of its
    two units over the samples of the group, with ``correlation`` their correlation.
    k = ``kept_fraction`` (default 10 %) of f, at least 1, and where a sample is one observation at
    most one for every 5 samples of the smallest group; the record states k / f.

    What the paper says (Lopes, Fenu & Starner 2017, 'spectral methods', as far as it could be
    read): the graph's adjacency A comes from the connection weights, A = V J V^-1, the spectrum is
    V^-1 x, and the C coefficients of largest magnitude are kept, of which 10 % suffice. What is
    defined here: the graph. Its weights are second moments of the activations, as the released code
    (which never ran) has products of class means for adjacent layers; they are symmetric, so V^-1
    = V^T, and class by class, so the leading eigenvectors are those where the class's coefficients
    are largest. The format's third graph, ``weights``, is not computed: it says nothing about the
    data, and unrolling a convolution takes more than any bound.

    Up to ``exact_up_to`` (1,024) units the covariance is exact. Beyond, it is kept as its product
    with a seeded test matrix of 2 k + 10 columns, as ``covariance`` does. float64. Merge: Chan's.
    Raises StatisticsError: another graph, a fraction outside (0, 1].
    """

    kind = "spectrum"
    parameters = ("kept_fraction", "graph", "exact_up_to", "seed")
    examples = (
        {},
        {"kept_fraction": 0.5},
        {"kept_fraction": 0.5, "graph": "correlation"},
        {"kept_fraction": 0.5, "exact_up_to": 4},
        {"kept_fraction": 1.0, "graph": "correlation", "exact_up_to": 4},
    )

    def __init__(self, request: RecordRequest, context: Context) -> None:
        super().__init__(request, context)
        self.graph = _graph(request)
        features = context.features
        self.kept = _kept(request, features)
        self.sketched = features > int(request.params.get("exact_up_to", EXACT_FEATURES))
        scatters: dict[str, Scatter] = {"covariance": Full()}
        if self.sketched:
            columns = 2 * self.kept + OVERSAMPLING
            seed = int(request.params.get("seed", 0))
            self.test_matrix = sketch_matrix(features, columns, seed).to(context.device)
            scatters = {"variance": Diagonal(), "sketch": Sketch(self.test_matrix)}
        self.running = Running(context.groups, features, scatters, context.device)
        self.parts = {"x": self.running}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        groups, kept = self.context.groups, self.kept
        return {
            "basis": (groups, kept, self.context.features),
            "coefficient_mean": (groups, kept),
            "coefficient_variance": (groups, kept),
            "residual_energy": (groups,),
        }

    def result(self) -> Result:
        mean, (root, variance) = self.running.mean, self._root()
        nodes = root if self.graph == "covariance" else root * _inverse(variance.sqrt())
        kept = self.kept
        if not self.by_position:  # a basis of as many rows as samples holds them
            kept = min(kept, int(backed_rows(self.running.count).min()))
        basis = _leading(nodes, _direction(mean, variance.sum(-1).sqrt()), kept)
        coefficient_mean = (basis @ mean.unsqueeze(-1)).squeeze(-1)
        coefficient_variance = (root @ basis.mT).square().sum(-2)
        # The mean lies within the basis: what is outside is variance only.
        energy = variance.sum(-1) - coefficient_variance.sum(-1)
        arrays = {
            "basis": basis,
            "coefficient_mean": coefficient_mean,
            "coefficient_variance": coefficient_variance,
            "residual_energy": energy.clamp(min=0),
        }
        return Result(
            {role: tensor.cpu().numpy() for role, tensor in arrays.items()},
            count=self.running.count.tolist(),
            params={"graph": self.graph, "kept_fraction": kept / self.context.features},
        )

    def _root(self) -> tuple[Tensor, Tensor]:
        """R `g l f` with covariance = R^T R (up to the sketch), and the exact variances `g f`."""
        if self.sketched:
            variance, sketch = self.running.moment("variance"), self.running.moment("sketch")
            values, vectors = nystrom_eigenpairs(sketch, self.test_matrix, sketch.shape[-1])
        else:
            covariance = self.running.moment("covariance")
            variance = covariance.diagonal(dim1=-2, dim2=-1).clamp(min=0)
            values, vectors = top_eigenpairs(covariance, covariance.shape[-1])
        return values.sqrt().unsqueeze(-1) * vectors, variance

    @classmethod
    def reference(
        cls, features: np.ndarray, groups: np.ndarray, request: RecordRequest, context: Context
    ) -> dict[str, np.ndarray]:
        """Eigenvectors of the graph with the mean's direction projected out, group by group."""
        found = []
        for group in range(context.groups):
            rows = np.concatenate(features[groups == group])
            mean, graph = rows.mean(0), np.cov(rows, rowvar=False, bias=True)
            if request.params.get("graph") == "correlation":
                graph = np.corrcoef(rows, rowvar=False)
            first = mean / np.linalg.norm(mean)
            outside = np.eye(len(mean)) - np.outer(first, first)
            values, vectors = np.linalg.eigh(outside @ graph @ outside)
            # The eigenvalue of the mean's own direction is now zero: the last of all.
            others = vectors.T[np.argsort(-values)][: max(1, round(_fraction(request) * len(mean)))]
            basis = np.concatenate([first[None], others[:-1]])
            basis = np.stack([row * np.sign(row[np.abs(row).argmax()]) for row in basis])
            spectra = rows @ basis.T
            arrays = {
                "basis": basis,
                "coefficient_mean": spectra.mean(0),
                "coefficient_variance": spectra.var(0),
                "residual_energy": ((rows**2).sum(1) - (spectra**2).sum(1)).mean(),
            }
            found.append(arrays)
        return {role: np.stack([arrays[role] for arrays in found]) for role in found[0]}


def _graph(request: RecordRequest) -> str:
    graph = str(request.params.get("graph", GRAPHS[0]))
    if graph not in GRAPHS:
        raise StatisticsError(
            f"there is no spectrum of the graph {graph!r} here",
            where=request.id,
            hint="graphs: " + ", ".join(GRAPHS),
        )
    return graph


def _fraction(request: RecordRequest) -> float:
    return float(request.params.get("kept_fraction", DEFAULT_KEPT))


def _kept(request: RecordRequest, features: int) -> int:
    fraction = _fraction(request)
    if not 0 < fraction <= 1:
        raise StatisticsError(f"kept_fraction must lie in (0, 1], got {fraction}", where=request.id)
    return max(1, round(fraction * features))


def _inverse(deviation: Tensor) -> Tensor:
    """1 / deviation `g f` as `g 1 f`; a unit that never changes has no edges."""
    return torch.where(deviation > 0, deviation, torch.inf).reciprocal().unsqueeze(-2)


def _direction(mean: Tensor, spread: Tensor) -> Tensor:
    """Unit vectors `g f`; zero where the mean is nothing beside the spread `g`."""
    norm = mean.norm(dim=-1, keepdim=True)
    directed = norm > NO_DIRECTION * spread.unsqueeze(-1)
    return torch.where(directed, mean / torch.where(directed, norm, 1), 0)


def _leading(nodes: Tensor, first: Tensor, kept: int) -> Tensor:
    """``first`` `g f`, then the leading right singular vectors beside it: `g k f`.

    nodes `g l f`: a root of the graph. ``first`` goes in as one more row, too long not to be the
    first singular vector; that keeps all of them orthogonal, whatever the rank.
    """
    outside = nodes - (nodes @ first.unsqueeze(-1)) * first.unsqueeze(-2)
    long = 1 + 2 * outside.flatten(-2).norm(dim=-1)
    rows = torch.cat([(long.unsqueeze(-1) * first).unsqueeze(-2), outside], -2)
    return orient(torch.linalg.svd(rows, full_matrices=False).Vh[..., :kept, :])
