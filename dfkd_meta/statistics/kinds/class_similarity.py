"""``class_similarity``: how alike the classes are in the eyes of the last layer."""

from __future__ import annotations

import numpy as np
from torch import nn
from torch.nn.functional import normalize

from dfkd_meta.errors import StatisticsError
from dfkd_meta.statistics.base import Accumulator, Context, RecordRequest, Result, statistics

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def last_linear(module: nn.Module) -> str | None:
    """Module path of the last linear layer in definition order."""
    paths = [path for path, child in module.named_modules() if isinstance(child, nn.Linear)]
    return paths[-1] if paths else None


@statistics.register("class_similarity")
class ClassSimilarity(Accumulator):
    """Cosine between the weight rows of the last layer, one per class; read from the weights.

    ``similarity`` `c c`: C_ij = w_i w_j / (|w_i| |w_j|), in [-1, 1], without the min-max rescaling
    that users of it apply. The parameter ``module`` names the layer, linear or a convolution
    (whose kernels are its rows); default: the last ``nn.Linear``. Raises StatisticsError for none.
    Source: Nayak et al. 2019 (ZSKD), section 3.2.
    """

    kind = "class_similarity"
    parameters = ("module",)

    def __init__(self, request: RecordRequest, context: Context) -> None:
        super().__init__(request, context)
        path = request.params.get("module") or last_linear(context.module)
        layer = dict(context.module.named_modules()).get(path)
        if not isinstance(layer, LAYERS):
            raise StatisticsError(
                "class similarity needs a linear layer or a convolution, the last",
                where=str(path or request.id),
                hint="the parameter module names it",
            )
        self.layer = layer

    def result(self) -> Result:
        rows = normalize(self.layer.weight.detach().double().flatten(1), dim=1)
        return Result({"similarity": (rows @ rows.T).clamp(-1, 1).cpu().numpy()})

    @classmethod
    def reference(
        cls, features: np.ndarray, groups: np.ndarray, request: RecordRequest, context: Context
    ) -> dict[str, np.ndarray]:
        path = request.params.get("module") or last_linear(context.module)
        weight = np.asarray(context.module.state_dict()[f"{path}.weight"].tolist())
        similarity = np.empty((len(weight), len(weight)))
        for i, a in enumerate(weight):
            for j, b in enumerate(weight):
                similarity[i, j] = a @ b / np.sqrt((a @ a) * (b @ b))
        return {"similarity": similarity}
