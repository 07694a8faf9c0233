"""Square roots of covariances: a triangular one that always exists, and low-rank ones.

All in float64, batched over groups `g`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dfkd_meta.sidecar.checks.privacy import SAMPLES_PER_ROW


def lower_factor(covariance: Tensor) -> Tensor:
    """L `g f f`, lower triangular, diagonal >= 0, with ``L L^T`` = covariance `g f f`.

    Works for singular matrices (dead units, fewer samples than features), where Cholesky's method
    stops: with S = V D V^T and the QR decomposition sqrt(D) V^T = Q R, S = R^T R. Negative
    eigenvalues, which only rounding makes, count as zero. It is the correlation matrix that is
    decomposed, so that each feature is exact on its own scale and a dead one has a row of zeros.
    """
    deviation = covariance.diagonal(dim1=-2, dim2=-1).clamp(min=0).sqrt()
    inverse = torch.where(deviation > 0, deviation, torch.inf).reciprocal()
    correlation = inverse.unsqueeze(-1) * covariance * inverse.unsqueeze(-2)
    values, vectors = torch.linalg.eigh(correlation)
    root = values.clamp(min=0).sqrt().unsqueeze(-1) * vectors.mT
    lower: Tensor = torch.linalg.qr(root, mode="r").R.mT
    diagonal = lower.diagonal(dim1=-2, dim2=-1)
    signs = torch.where(diagonal < 0, -1.0, 1.0).to(lower)
    return deviation.unsqueeze(-1) * (lower * signs.unsqueeze(-2)).tril()


def top_eigenpairs(covariance: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The largest eigenvalues `g k`, descending, and eigenvectors as rows `g k f`."""
    values, vectors = torch.linalg.eigh(covariance)
    top_values, top_vectors = values[..., -rank:].flip(-1), vectors[..., -rank:].flip(-1).mT
    return top_values.clamp(min=0), orient(top_vectors)


def nystrom_eigenpairs(sketch: Tensor, test_matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Eigenpairs of the fixed-rank Nystrom approximation of A from Y = A Omega.

    A ~ Y (Omega^T Y)^+ Y^T, truncated to ``rank``: eigenvalues `g k`, eigenvectors as rows `g k f`;
    sketch `g f l`, test_matrix `f l`. Source: Tropp, Yurtsever, Udell, Cevher 2017, "Fixed-rank
    approximation of a positive-semidefinite matrix from streaming data", algorithm 3, with the
    pseudo-inverse in place of its shifted Cholesky factor, so that a class with fewer samples than
    the sketch has columns needs no shift.
    """
    core = test_matrix.T @ sketch
    values, vectors = torch.linalg.eigh((core + core.mT) / 2)
    largest = values[..., -1:].clamp(min=0)
    kept = values > largest * values.shape[-1] * torch.finfo(values.dtype).eps
    inverse_root = torch.where(kept, values, 1).rsqrt() * kept
    left, singular, _ = torch.linalg.svd(
        sketch @ (vectors * inverse_root.unsqueeze(-2)), full_matrices=False
    )
    return singular[..., :rank].square(), orient(left[..., :rank].mT)


def backed_rows(count: Tensor) -> Tensor:
    """How many rows of a factor so many samples `g` can stand behind, without being in it: `g`."""
    return (count // SAMPLES_PER_ROW).clamp(min=1)


def backs_triangle(count: Tensor, features: int) -> bool:
    """Whether every group of so many samples `g` can stand behind a triangular root `f f`.

    Fewer samples than features would span exactly what the triangle does, so that whoever has an
    image could tell whether it was among them.
    """
    return bool((backed_rows(count) >= features).all())


def split_residual(
    values: Tensor, vectors: Tensor, trace: Tensor, most: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Probabilistic PCA: factor F `g k f` and residual r `g` so that covariance ~ F^T F + r I.

    r is the mean of the variance not kept, (trace - sum kept) / (f - kept), and row i of F is
    sqrt(lambda_i - r) v_i, so the total variance is exact. A component weaker than that mean
    (possible when eigenvalues are estimated) is not kept: its row is zero. Nor are more than
    ``most`` `g` components of a group kept.
    Source: Tipping & Bishop 1999, eq. 3.7 and 3.8.
    """
    rank, features = vectors.shape[-2:]
    left_over = (trace.unsqueeze(-1) - values.cumsum(-1)).clamp(min=0)
    others = torch.arange(features - 1, features - 1 - rank, -1, device=values.device)
    residuals = left_over / others.clamp(min=1)  # if the first 1..k components were kept
    kept = (values >= residuals).cummin(-1).values
    if most is not None:
        kept = kept & (torch.arange(rank, device=values.device) < most.unsqueeze(-1))
    number = kept.sum(-1, keepdim=True)
    none_kept = (trace / features).unsqueeze(-1)
    residual = torch.cat([none_kept, residuals], -1).gather(-1, number)
    scale = (values - residual).clamp(min=0).sqrt() * kept
    return scale.unsqueeze(-1) * vectors, residual.squeeze(-1)


def orient(rows: Tensor) -> Tensor:
    """Flip each row `... f` so that its largest entry is positive: one factor for one matrix."""
    largest = rows.abs().argmax(-1, keepdim=True)
    return rows * torch.where(rows.gather(-1, largest) < 0, -1.0, 1.0).to(rows)


def sketch_matrix(features: int, columns: int, seed: int) -> Tensor:
    """Orthonormal Gaussian columns `f l` to sketch a covariance with: one matrix for one seed."""
    generator = torch.Generator().manual_seed(seed)
    gaussian = torch.randn(
        features, min(columns, features), generator=generator, dtype=torch.float64
    )
    orthonormal: Tensor = torch.linalg.qr(gaussian).Q
    return orthonormal
