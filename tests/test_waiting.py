"""On a CPU nothing waits, and a lost loss is noticed at once."""

from __future__ import annotations

import pytest
import torch

from dfkd_meta.errors import MethodError
from dfkd_meta.waiting import LossWatch, sent


def test_a_tensor_that_is_there_is_not_copied() -> None:
    here = torch.ones(2)
    assert sent(here, torch.device("cpu")) is here


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_lost_loss_is_an_error_that_says_where_and_what_to_do(value: float) -> None:
    watch = LossWatch("the loss", hint="smaller steps")
    watch.see(torch.tensor(1.0), "step 0")
    with pytest.raises(MethodError, match=f"the loss became {value} at step 1") as caught:
        watch.see(torch.tensor(value), "step 1")
    assert caught.value.hint == "smaller steps"
    watch.check()
