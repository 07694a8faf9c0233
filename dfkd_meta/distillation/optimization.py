"""What one training step does to weights: rules, their schedule, norms and averages."""

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

    If the gradient of all its weights is longer than ``longest``, it is cut to that norm.
    """

    name: OptimizerName
    learning_rate: float
    weight_decay: float
    longest: float | None = None


SGD = Rule("sgd", 0.5, 5e-4, longest=5.0)
ADAMW = Rule("adamw", 6e-3, 0.0)  # its steps do not grow with the gradient


def choose_rules(
    config: TrainingConfig, network: nn.Module, others: Iterable[nn.Parameter] = ()
) -> dict[Rule, list[nn.Parameter]]:
    """Which rule trains which weights of ``network``, and ``others``, which a loss brings along.

    An optimizer that ``config`` names trains all. Else SGD takes long steps where they can do no
    harm, AdamW trains the rest: weights before a BatchNorm have no scale (whatever factor they get,
    the network stays the same), and in a network of such the biases and BatchNorm's own weights
    go with them.
    """
    learned = list(network.parameters())
    if config.optimizer is not None:
        usual = SGD if config.optimizer == "sgd" else ADAMW
        rate, decay = config.learning_rate, config.weight_decay
        rule = Rule(
            usual.name,
            usual.learning_rate if rate is None else rate,
            usual.weight_decay if decay is None else decay,
            usual.longest,
        )
        return {rule: [*learned, *others]}
    scaleless = before_norms(network)
    parts: dict[Rule, list[nn.Parameter]] = {SGD: [], ADAMW: []}
    for weight in learned:
        bold = scaleless and (weight.ndim < 2 or weight in scaleless)
        parts[SGD if bold else ADAMW].append(weight)
    parts[ADAMW].extend(others)
    return {rule: weights for rule, weights in parts.items() if weights}


def before_norms(network: nn.Module) -> set[Tensor]:
    """The weights of layers with a BatchNorm of as many channels registered right after them."""
    found: set[Tensor] = set()
    before: nn.Module | None = None
    for layer in network.modules():
        if isinstance(layer, _BatchNorm) and isinstance(before, nn.Linear | _ConvNd):
            linear = isinstance(before, nn.Linear)
            if layer.num_features == (before.out_features if linear else before.out_channels):
                found.add(before.weight)
        if next(layer.parameters(recurse=False), None) is not None:
            before = layer
    return found


class Optimizer:
    """One step for all weights, each by its rule: SGD with Nesterov momentum, or AdamW."""

    def __init__(self, rules: dict[Rule, list[nn.Parameter]]) -> None:
        self.parts = [(rule, weights, _made(rule, weights)) for rule, weights in rules.items()]

    @property
    def rules(self) -> tuple[Rule, ...]:
        return tuple(rule for rule, _, _ in self.parts)

    def step(self, loss: Tensor, done: int, steps: int) -> None:
        """Step ``done`` (from 0) of ``steps`` down the gradient of ``loss``, in one cycle."""
        for _, _, optimizer in self.parts:
            optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        for rule, weights, optimizer in self.parts:
            if rule.longest is not None:
                nn.utils.clip_grad_norm_(weights, rule.longest)
            rate, momentum = one_cycle(done, steps, rule.learning_rate)
            for group in optimizer.param_groups:
                group["lr"] = rate
                if "betas" in group:
                    group["betas"] = (momentum, group["betas"][1])
                else:
                    group["momentum"] = momentum
            optimizer.step()

    def state(self) -> State:
        """The moments of all weights, by the names of the rules."""
        return {rule.name: optimizer.state_dict()["state"] for rule, _, optimizer in self.parts}

    def load_state(self, state: State) -> None:
        """Continue from the state of an optimizer of the same weights and rules."""
        for rule, _, optimizer in self.parts:
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": state[rule.name], "param_groups": groups})
            # What was saved is contiguous; where weights are not, no step would take them together.
            for weight, moments in optimizer.state.items():
                for name, value in moments.items():
                    if isinstance(value, Tensor) and value.shape == weight.shape:
                        moments[name] = torch.empty_like(weight, requires_grad=False).copy_(value)


def _made(rule: Rule, weights: list[nn.Parameter]) -> torch.optim.Optimizer:
    rate, decay = rule.learning_rate, rule.weight_decay
    if rule.name == "sgd":
        return torch.optim.SGD(weights, rate, momentum=0.9, nesterov=True, weight_decay=decay)
    return torch.optim.AdamW(weights, rate, weight_decay=decay)


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
