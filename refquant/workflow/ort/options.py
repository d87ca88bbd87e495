"""`QuantizationOptions`: what a quantization was asked for, checked once."""

from dataclasses import dataclass, field

from refquant.errors import ArgumentError, RangeError, UnsupportedError, choose
from refquant.workflow.ort.scales import TYPES

__all__ = ["METHODS", "FORMATS", "EXTRA_OPTIONS", "QuantizationOptions", "type_name"]

FORMATS = ("QDQ", "QOperator")
METHODS = ("MinMax", "Entropy", "Percentile", "Distribution")

EXTRA_OPTIONS = {
    "ActivationSymmetric": False,
    "ActivationRestrictedAsymmetric": False,
    "WeightSymmetric": None,
    "ForceQuantizeNoInputCheck": False,
    "MatMulConstBOnly": False,
    "AddQDQPairToWeight": False,
    "OpTypesToExcludeOutputQuantization": (),
    "DedicatedQDQPair": False,
    "QDQOpTypePerChannelSupportToAxis": {},
    "QuantizeBias": True,
    "CalibTensorRangeSymmetric": None,
    "CalibStridedMinMax": None,
    "CalibMovingAverage": False,
    "CalibMovingAverageConstant": 0.01,
    "CalibPercentile": 99.999,
    "MinimumRealRange": None,
    "TensorQuantOverrides": {},
    "QDQKeepRemovableActivations": False,
    "QDQDisableWeightAdjustForInt32Bias": False,
    "extra.Sigmoid.nnapi": False,
}
"""ONNX Runtime's names of further options, and what holds without them."""

_SPELLINGS = {"QInt8": "int8", "QUInt8": "uint8", "QInt16": "int16", "QUInt16": "uint16"}
_OVERRIDES = ("quant_type", "scale", "zero_point", "symmetric", "reduce_range", "rmin", "rmax", "axis")


@dataclass(frozen=True)
class QuantizationOptions:
    """The arguments of `refquant.workflow.quantize_static`, see there."""

    quant_format: str = "QDQ"
    op_types_to_quantize: tuple = ()
    per_channel: bool = False
    reduce_range: bool = False
    activation_type: str = "int8"
    weight_type: str = "int8"
    nodes_to_quantize: tuple = ()
    nodes_to_exclude: tuple = ()
    calibrate_method: str = "MinMax"
    extra_options: dict = field(default_factory=dict)

    def __post_init__(self):
        put = object.__setattr__
        choose("quantize_static", "quant_format", self.quant_format, FORMATS)
        choose("quantize_static", "calibrate_method", self.calibrate_method, METHODS)
        for name in ("activation_type", "weight_type"):
            put(self, name, type_name(getattr(self, name), f"quantize_static: {name}"))
        for name in ("op_types_to_quantize", "nodes_to_quantize", "nodes_to_exclude"):
            put(self, name, _names(getattr(self, name), name))
        for name in self.extra_options or {}:
            choose("quantize_static", "extra option", name, EXTRA_OPTIONS)
        put(self, "extra_options", {**EXTRA_OPTIONS, **(self.extra_options or {})})
        self._check_types()
        put(self, "overrides", _checked_overrides(self.extra_options["TensorQuantOverrides"]))
        _check_moving_average(self["CalibMovingAverageConstant"])

    def _check_types(self):
        if (self.activation_type, self.weight_type) == ("int8", "uint8"):
            raise UnsupportedError("quantize_static: int8 activations with uint8 weights have no kernels in ONNX Runtime; make the weights int8")
        if self.quant_format == "QOperator" and {self.activation_type, self.weight_type} & {"int16", "uint16"}:
            raise UnsupportedError("quantize_static: 16-bit types need quant_format='QDQ'; ONNX Runtime has no operators on 16-bit codes")

    def __getitem__(self, name):
        return self.extra_options[name]

    def wants(self, node):
        """Whether a node is to be quantized, by its name and operator."""
        if self.nodes_to_quantize and node.name not in self.nodes_to_quantize:
            return False
        return node.op in self.op_types_to_quantize and node.op not in ("QuantizeLinear", "DequantizeLinear") and node.name not in self.nodes_to_exclude

    def override(self, name):
        """Return what the user fixed of a tensor that is quantized as a whole."""
        given = self.overrides.get(name)
        if given and "axis" in given[0]:
            raise ArgumentError(f"quantize_static: TensorQuantOverrides of {name!r} are per channel, but it is quantized as a whole; leave out 'axis'")
        return given[0] if given else {}

    def weight_symmetric(self, dtype):
        """Whether weights of a type have zero point 0: signed ones, unless told otherwise."""
        chosen = self["WeightSymmetric"]
        return dtype in ("int8", "int16") if chosen is None else bool(chosen)


def type_name(value, place):
    """Return the name of a type: ``"int8"`` for ``"QInt8"``, ``"int8"`` or ONNX Runtime's own ``QuantType.QInt8``."""
    name = str(getattr(value, "name", value))
    return choose(place, "type", _SPELLINGS.get(name, name), TYPES)


def _names(value, place):
    if isinstance(value, str):
        raise ArgumentError(f"quantize_static: {place}={value!r} must be a sequence of names; write [{value!r}]")
    return tuple(value or ())


def _check_moving_average(value):
    if not 0 <= value <= 1:
        raise RangeError(f"quantize_static: CalibMovingAverageConstant={value} must lie in 0 … 1; 0.01 is the default")


def _checked_overrides(given):
    """Return overrides with types by name, refusing what contradicts itself."""
    out = {}
    for tensor, rows in (given or {}).items():
        place = f"quantize_static: TensorQuantOverrides of {tensor!r}"
        if not isinstance(rows, (list, tuple)) or not all(isinstance(row, dict) for row in rows):
            raise ArgumentError(f"{place} must be a list of dicts, one a channel or one alone; write [{{...}}]")
        out[tensor] = [_checked_override(row, place) for row in rows]
        if len(rows) > 1 and "axis" not in rows[0]:
            raise ArgumentError(f"{place}: has {len(rows)} channels but no 'axis'; give it in the first")
    return out


def _checked_override(row, place):
    if "convert" in row:
        raise UnsupportedError(f"{place}: 'convert' between two types is not supported; give the tensor one type")
    for key in row:
        choose(place, "key", key, _OVERRIDES)
    if ("scale" in row) != ("zero_point" in row):
        raise ArgumentError(f"{place}: gives one of 'scale' and 'zero_point'; give both or none")
    if "scale" in row and {"symmetric", "reduce_range", "rmin", "rmax"} & set(row):
        raise ArgumentError(f"{place}: 'scale' and 'zero_point' leave nothing to {sorted(set(row) - {'scale', 'zero_point', 'quant_type', 'axis'})}; leave those out")
    row = dict(row)
    if "quant_type" in row:
        row["quant_type"] = type_name(row["quant_type"], place)
    return row
