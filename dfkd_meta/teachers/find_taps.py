"""Which places of a teacher are worth recording, found by one seeded forward pass."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from dfkd_meta.errors import TeacherError
from dfkd_meta.sidecar.manifest import Tap
from dfkd_meta.teachers.teacher import Teacher
from dfkd_meta.teachers.watching import Place, watch_pass

KINDS = (_ConvNd, nn.Linear, _BatchNorm)


def default_taps(teacher: Teacher) -> list[Tap]:
    """The taps of a teacher, in the order a forward pass reaches them, the last hidden layer late.

    They are ``input``; the output of every convolution and linear layer (before the activation, as
    Lopes et al. 2017 record); the input of every BatchNorm; the input of the last layer (the last
    hidden layer); ``output``, the logits, which stand for the last layer's own output. The last
    layer is the last one called if it has an output for each class, else the last linear one, or
    else the last one. An id is ``<module path>:<side>``, with ``#<call>`` for later calls of the
    same module. There is no tap where none can be: at modules that the pass does not reach, tensors
    without an axis of samples or with more than four others, and tensors that the model overwrites
    in place. For ``linear_in_input`` see ``Place.tap``.
    """
    first, *between, final = watch_pass(teacher.module, teacher.inputs, KINDS)
    kept = [place for place in between if not place.overwritten]
    taps = [first.tap("input")]
    for place in kept:
        layer = isinstance(place.module, (_ConvNd, nn.Linear))
        wanted = "output" if layer else "input"
        logits = place.side == "output" and place.value is final.value
        if place.side == wanted and not logits:
            taps.append(place.tap())
    last = _last_layer([first, *kept, final], teacher.outputs.num_classes)
    if last is not None:
        taps.append(last.tap())
    return [*taps, final.tap("output")]


def last_hidden_tap(taps: Sequence[Tap]) -> Tap:
    """The last hidden layer among taps in forward order: the last input of a module.

    Raises TeacherError when there is none.
    """
    for tap in reversed(taps):
        if tap.side == "input" and tap.module:
            return tap
    raise TeacherError("no tap is the input of a layer, so there is no last hidden layer")


def _last_layer(seen: Sequence[Place], classes: int) -> Place | None:
    layers = [
        place
        for place in seen
        if place.side == "input" and isinstance(place.module, (_ConvNd, nn.Linear))
    ]
    if not layers or _outputs(layers[-1].module) == classes:
        return layers[-1] if layers else None
    linear = [place for place in layers if isinstance(place.module, nn.Linear)]
    return (linear or layers)[-1]


def _outputs(layer: nn.Module) -> int:
    outputs = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
    return int(outputs)  # type: ignore[arg-type]
