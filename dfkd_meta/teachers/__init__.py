"""Teachers: opening them from several sources, tapping them, and preparing their inputs."""

from dfkd_meta.teachers.architectures import architectures
from dfkd_meta.teachers.axes import COLOR_ORDERS, channel_axis, for_all_channels
from dfkd_meta.teachers.build import build_model, build_own, count_parameters
from dfkd_meta.teachers.cosines import CosineTransform
from dfkd_meta.teachers.find_taps import default_taps, last_hidden_tap
from dfkd_meta.teachers.inputs import REQUIRED_INPUTS, check_inputs, inputs_needed
from dfkd_meta.teachers.oddities import oddities
from dfkd_meta.teachers.opening import check_name, open_teacher, teacher_from_sidecar
from dfkd_meta.teachers.own_code import (
    call_own_code,
    is_own_code,
    load_own_code,
    parameters_of,
)
from dfkd_meta.teachers.preprocess import denormalize, preprocess, valid_bounds
from dfkd_meta.teachers.store import save_model, save_teacher
from dfkd_meta.teachers.taps import ActivationTap, observations, reduce_features
from dfkd_meta.teachers.teacher import (
    Teacher,
    channels_last,
    device_of,
    freeze,
    probe,
    suited_layout,
)

__all__ = [
    "COLOR_ORDERS",
    "REQUIRED_INPUTS",
    "ActivationTap",
    "CosineTransform",
    "Teacher",
    "architectures",
    "build_model",
    "build_own",
    "call_own_code",
    "channel_axis",
    "channels_last",
    "check_inputs",
    "check_name",
    "count_parameters",
    "default_taps",
    "denormalize",
    "device_of",
    "for_all_channels",
    "freeze",
    "inputs_needed",
    "is_own_code",
    "last_hidden_tap",
    "load_own_code",
    "observations",
    "oddities",
    "open_teacher",
    "parameters_of",
    "preprocess",
    "probe",
    "reduce_features",
    "save_model",
    "save_teacher",
    "suited_layout",
    "teacher_from_sidecar",
    "valid_bounds",
]
