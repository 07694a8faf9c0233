"""What one optimizer step needs besides a loss: the rule, its schedule, norms and averages."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from dfkd_meta.checkpoint import State
from dfkd_meta.distillation.config import OptimizerName, TrainingConfig


@dataclass(frozen=True)
class Rule:
    """An optimizer with its peak learning rate and its weight decay.

    A gradient of a norm above ``longest`` is cut to it; None cuts none.
    """

    name: OptimizerName
    learning_rate: float
    weight_decay: float
    longest: float | None


SGD = Rule("sgd", 0.5, 5e-4, longest=5.0)  # twice what KD gives, so that no loss breaks a network
ADAMW = Rule("adamw", 6e-3, 0.0, longest=None)  # its steps do not grow with the gradient


def choose_rule(config: TrainingConfig, network: nn.Module) -> Rule:
    """What ``config`` says, and for what it leaves open the defaults that suit the network."""
    normalized = any(isinstance(layer, _BatchNorm) for layer in network.modules())
    name = config.optimizer or ("sgd" if normalized else "adamw")
    usual = SGD if name == "sgd" else ADAMW
    rate, decay = config.learning_rate, config.weight_decay
    return Rule(
        name,
        usual.learning_rate if rate is None else rate,
        usual.weight_decay if decay is None else decay,
        usual.longest,
    )


def make_optimizer(rule: Rule, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """AdamW, or SGD with Nesterov momentum; ``set_pace`` gives both their rate at every step."""
    rate, decay = rule.learning_rate, rule.weight_decay
    if rule.name == "sgd":
        return torch.optim.SGD(parameters, rate, momentum=0.9, nesterov=True, weight_decay=decay)
    return torch.optim.AdamW(parameters, rate, weight_decay=decay)


def set_pace(optimizer: torch.optim.Optimizer, rate: float, momentum: float) -> None:
    """Learning rate and momentum (the first beta of AdamW) of the next step."""
    for group in optimizer.param_groups:
        group["lr"] = rate
        if "betas" in group:
            group["betas"] = (momentum, group["betas"][1])
        else:
            group["momentum"] = momentum


def one_cycle(step: int, steps: int, peak: float) -> tuple[float, float]:
    """Learning rate and momentum of step ``step`` (from 0) of ``steps``: one cycle of cosines.

    The rate rises from peak / 25 over the first 30 % of the steps and falls to peak / 250,000; the
    momentum goes from 0.95 to 0.85 and back (Smith & Topin 2018; as in torch's OneCycleLR). It is
    a function of the step alone, so nothing of it needs saving.
    """
    steps = max(steps, 2)  # a cycle needs a step to warm up and one to cool down
    turn, last = 0.3 * steps - 1, steps - 1
    if step <= turn:
        done = step / turn
        return _cosine(peak / 25, peak, done), _cosine(0.95, 0.85, done)
    done = (step - turn) / (last - turn)
    return _cosine(peak, peak / 250_000, done), _cosine(0.85, 0.95, done)


def _cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * done))


@torch.no_grad()
def limit_norms(module: nn.Module, limit: float) -> None:
    """Scale the incoming weights of every hidden unit down to an L2 norm of at most ``limit``.

    A unit is an output of a linear layer or an output channel of a convolution. The last layer in
    the order of registration gives the logits and is left free (Hinton et al. 2012; Srivastava et
    al. 2014, sec. 5.1, constrain hidden units).
    """
    layers = [part for part in module.modules() if isinstance(part, nn.Linear | _ConvNd)]
    for layer in layers[:-1]:
        if not isinstance(layer, _ConvTransposeNd):
            layer.weight.copy_(torch.renorm(layer.weight, 2, 0, limit))


class Average:
    """The exponential moving average of a module's weights and buffers (BatchNorm's included).

    ``a <- d a + (1 - d) w`` after each step, with d = min(decay, (1 + step) / (10 + step)) so that
    the first weights are forgotten early; whole numbers, such as BatchNorm's counter, are copied.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = copy_state(module.state_dict())

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Take in the weights after ``step`` steps (from 1)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in module.state_dict().items():
            average = self.values[name]
            if average.is_floating_point():
                average.lerp_(value, 1 - decay)
            else:
                average.copy_(value)


def copy_state(state: State) -> State:
    """The same nested table with every tensor copied, so that neither side changes the other."""
    return {key: _copy(value) for key, value in state.items()}


def _copy(value: object) -> object:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return copy_state(value)
    return value
