"""``class_similarity``: how alike the classes are in the eyes of the last layer."""

from __future__ import annotations

import numpy as np
from torch import nn
from torch.nn.functional import normalize

from dfkd_meta.errors import StatisticsError
from dfkd_meta.statistics.base import Accumulator, Context, RecordRequest, Result, statistics


def last_linear(module: nn.Module) -> str | None:
    """Module path of the last linear layer in definition order."""
    paths = [path for path, child in module.named_modules() if isinstance(child, nn.Linear)]
    return paths[-1] if paths else None


@statistics.register("class_similarity")
class ClassSimilarity(Accumulator):
    """Cosine between the weight rows of the last linear layer; read from the weights.

    ``similarity`` `c c`: C_ij = w_i w_j / (|w_i| |w_j|), in [-1, 1], without the min-max rescaling
    that users of it apply. The parameter ``module`` names the layer; default: the last
    ``nn.Linear``. Raises StatisticsError when there is none.
    Source: Nayak et al. 2019 (ZSKD), section 3.2.
    """

    kind = "class_similarity"

    def result(self) -> Result:
        path = self.request.params.get("module") or last_linear(self.context.module)
        layer = self.context.module.get_submodule(path) if path else None
        if not isinstance(layer, nn.Linear):
            raise StatisticsError("class similarity needs a linear last layer", where=path)
        rows = normalize(layer.weight.detach().double(), dim=1)
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
