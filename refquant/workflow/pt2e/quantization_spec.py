"""How one tensor of a graph is to be quantized, and what a quantizer writes on a node: PT2E's specs and annotations."""

from dataclasses import dataclass, field
from typing import Any, Callable

from refquant.errors import ArgumentError
from refquant.observers.observer_base import ObserverBase, ObserverFactory
from refquant.observers.qparams_from_range import plain_name

__all__ = [
    "QuantizationSpecBase", "QuantizationSpec", "SharedQuantizationSpec", "FixedQParamsQuantizationSpec", "DerivedQuantizationSpec",
    "QuantizationAnnotation", "ANNOTATION", "CODES",
]  # fmt: skip

ANNOTATION = "quantization_annotation"
"""Where a node's ``meta`` keeps its `QuantizationAnnotation`."""

CODES = ("uint8", "int8", "uint16", "int16", "int32")
"""The dtypes of codes; tensors of others stay real."""


class QuantizationSpecBase:
    """Base of the specs: how a tensor is quantized, which is an edge ``(input node, node)`` or the output of a node."""


@dataclass(frozen=True)
class QuantizationSpec(QuantizationSpecBase):
    """A tensor with an observer of its own.

    Parameters
    ----------
    dtype : str
        ``"uint8"``, ``"int8"``, ``"int32"``, …; ``"float32"`` stays as it is.
    observer_or_fake_quant_ctr : observer class or factory
        Such as ``HistogramObserver.with_args(eps=2**-12)``; it gets the other fields as arguments.
    quant_min, quant_max : int, optional
    qscheme : str, optional
        ``"per_tensor_affine"``, ``"per_channel_symmetric"``, …
    ch_axis : int, optional
        Handed on to observers with "PerChannel" in their name.
    is_dynamic : bool
        Parameters are chosen at run time.

    Raises
    ------
    ArgumentError
        ``quant_min > quant_max``, a negative `ch_axis`, an observer instead of something that makes observers.

    Examples
    --------
    >>> from refquant.observers import MinMaxObserver
    >>> QuantizationSpec("uint8", MinMaxObserver, 0, 255, "per_tensor_affine").observer()
    MinMaxObserver(dtype='uint8', qscheme='per_tensor_affine', quant_min=0, quant_max=255)
    """

    dtype: Any
    observer_or_fake_quant_ctr: Callable
    quant_min: int = None
    quant_max: int = None
    qscheme: str = None
    ch_axis: int = None
    is_dynamic: bool = False

    def __post_init__(self):
        _check_limits(self)
        maker = self.observer_or_fake_quant_ctr
        if isinstance(maker, ObserverBase) or not hasattr(maker, "with_args"):
            raise ArgumentError(f"QuantizationSpec: observer_or_fake_quant_ctr={maker!r} makes no observers; pass an observer class or its with_args(...)")

    def observer(self):
        """Return a new observer."""
        maker = self.observer_or_fake_quant_ctr
        kind = maker.observer if isinstance(maker, ObserverFactory) else maker
        arguments = {"dtype": plain_name(self.dtype), "quant_min": self.quant_min, "quant_max": self.quant_max, "qscheme": self.qscheme, "is_dynamic": self.is_dynamic}
        if "PerChannel" in kind.__name__:
            arguments["ch_axis"] = self.ch_axis
        return maker.with_args(**arguments)()


@dataclass(frozen=True)
class SharedQuantizationSpec(QuantizationSpecBase):
    """A tensor that shares the observer, and so the parameters, of another: of an edge ``(input node, node)`` or of a node's output."""

    edge_or_node: Any


@dataclass(frozen=True)
class FixedQParamsQuantizationSpec(QuantizationSpecBase):
    """A tensor whose scale and zero point are known before any data."""

    dtype: Any
    scale: float
    zero_point: int
    quant_min: int = None
    quant_max: int = None
    qscheme: str = None
    is_dynamic: bool = False

    def __post_init__(self):
        _check_limits(self)


@dataclass(frozen=True)
class DerivedQuantizationSpec(QuantizationSpecBase):
    """A tensor whose parameters are computed from those of others: a bias in units of ``input scale * weight scale``.

    Parameters
    ----------
    derived_from : sequence of edges and nodes
    derive_qparams_fn : callable
        From the list of their observers to ``(scale, zero_point)``, numbers or vectors.
    dtype, quant_min, quant_max, qscheme, ch_axis, is_dynamic
        As in `QuantizationSpec`.
    """

    derived_from: Any
    derive_qparams_fn: Callable
    dtype: Any
    quant_min: int = None
    quant_max: int = None
    qscheme: str = None
    ch_axis: int = None
    is_dynamic: bool = False

    def __post_init__(self):
        _check_limits(self)
        object.__setattr__(self, "derived_from", tuple(self.derived_from))


@dataclass(eq=False)
class QuantizationAnnotation:
    """What a quantizer writes on a node: ``node.meta["quantization_annotation"]``.

    Attributes
    ----------
    input_qspec_map : dict of GraphNode to QuantizationSpecBase or None
        By input: a value, a weight or a bias.
    output_qspec : QuantizationSpecBase, optional
    allow_implicit_sharing : bool
        Whether readers of one value, and the node that makes it, may share an observer where their specs agree.
    """

    input_qspec_map: dict = field(default_factory=dict)
    output_qspec: QuantizationSpecBase = None
    allow_implicit_sharing: bool = True
    _annotated: bool = False
    _is_output_of_quantized_pattern: bool = False


def _check_limits(spec):
    name = type(spec).__name__
    if spec.quant_min is not None and spec.quant_max is not None and spec.quant_min > spec.quant_max:
        raise ArgumentError(f"{name}: quant_min={spec.quant_min} must be <= quant_max={spec.quant_max}; swap them")
    if getattr(spec, "ch_axis", None) is not None and spec.ch_axis < 0:
        raise ArgumentError(f"{name}: ch_axis={spec.ch_axis} must not be negative; count axes from the front")
