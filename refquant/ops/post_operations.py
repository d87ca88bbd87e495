"""Post-operations: what oneDNN does to a product's real value before the output scale, beside a ReLU."""

from functools import partial
from typing import NamedTuple

import numpy as np

from refquant.core.arguments import as_array, as_real
from refquant.core.epilogue import code_of_real
from refquant.core.fma import fma32, mul_add32
from refquant.core.glibc import glibc_tanh
from refquant.core.onednn_eltwise import onednn_gelu, onednn_gelu_reference, onednn_swish, onednn_swish_reference
from refquant.core.onednn_erf import onednn_gelu_avx512
from refquant.core.onednn_tanh import onednn_tanh
from refquant.core.qtensor import QTensor
from refquant.errors import ArgumentError, ShapeError, UnsupportedError, choose
from refquant.ops.output_stage import inverse_of_inverse

__all__ = ["POST_OPERATIONS", "PostOperations", "is_plain", "post_operations", "relu_of_reference"]

_F = np.float32


def _leaky_relu(t, slope=0.01):
    return np.where(t > 0, t, t * _F(slope))


def _hardtanh(t, low=-1.0, high=1.0):
    return np.minimum(np.maximum(t, _F(low)), _F(high))


def _hardswish(t):
    return t * np.minimum(np.maximum(t * _F(1 / 6) + _F(0.5), _F(0)), _F(1))


def relu_of_reference(t):
    """Return the ReLU of reference kernels, whose negative numbers are multiplied by a slope of 0: -0.0 comes of them."""
    return np.where(t > 0, t, t * _F(0))


#: Each function of one real number by vectorized kernels, with the most parameters that it takes.
POST_OPERATIONS = {
    "relu": (lambda t: np.maximum(t, _F(0)), 0),
    "leaky_relu": (_leaky_relu, 1),
    "hardtanh": (_hardtanh, 2),
    "hardswish": (_hardswish, 0),
    "tanh": (onednn_tanh, 0),
    "gelu": (onednn_gelu, 0),
    "swish": (onednn_swish, 0),
}

_REFERENCE = {"relu": relu_of_reference, "tanh": glibc_tanh, "gelu": onednn_gelu_reference, "swish": onednn_swish_reference}
# Processor levels, of which None is the one that profiles name, with AVX512-VNNI.
_AVX512 = (None, "avx512", "avx512_vbmi", "avx512_vnni", "amx_int8")


class PostOperations(NamedTuple):
    """What follows a product: a second tensor to add, then a function.

    Attributes
    ----------
    other : ndarray or QTensor or None
    scale : float32
        Of a quantized `other`, as the profile takes it.
    function : callable
    fma : callable
        Scales the codes of `other` and adds them: in one rounding, but in two by reference kernels, which are compiled without FMA, and by SSE4.1.
    """

    other: object
    scale: object
    function: object
    fma: object

    def apply(self, t):
        """Return the real values after the post-operations; `t` is float32."""
        with np.errstate(over="ignore", invalid="ignore"):
            if isinstance(self.other, QTensor):
                centred = self.other.values.astype(_F) - _F(self.other.qparams.zero_point)
                t = self.fma(centred, self.scale, t)
            elif self.other is not None:
                t = t + self.other
            return self.function(t).astype(_F)

    def finish(self, t, epilogue, dtype, order):
        """Return the codes of dtype, or the real numbers, in the memory order `order` makes."""
        t = self.apply(t)
        y = order(t.shape, dtype)
        y[...] = t if np.dtype(dtype) == np.float32 else code_of_real(t, epilogue)
        return y


def is_plain(activation, other):
    """Whether nothing but a ReLU follows a product, or nothing at all."""
    return other is None and (activation is None or (isinstance(activation, str) and activation == "relu"))


def post_operations(profile, op, activation, other, shape, kernel):
    """Check what is asked for after a product and return it, or None where there is nothing but a ReLU.

    Parameters
    ----------
    profile : Numerics
    op : str
        The operator, for messages and the profile's rules.
    activation : None, str or tuple
        A name of `POST_OPERATIONS`, or the name and its parameters.
    other : QTensor, ndarray of float32 or None
        To be added.
    shape : tuple
        Of the output.
    kernel : {"vectorized", "reference"}
        What computes the product, see the field `post` of `refquant.numerics.forms.ProductForm`.

    Raises
    ------
    UnsupportedError
        The engine has no such post-operation.
    """
    place = f"{op}[{profile.name}]"
    name, *parameters = activation if isinstance(activation, (tuple, list)) and activation else (activation,)
    if other is None and name in (None, "relu") and not parameters:
        return None
    function, most = POST_OPERATIONS["relu" if name is None else choose(place, "activation", name, [None, *POST_OPERATIONS])]
    fma = mul_add32 if kernel == "reference" or profile.isa == "sse41" else fma32
    if kernel == "reference":
        function = _REFERENCE.get(name, function)
    elif name == "gelu" and profile.isa in _AVX512:
        function = onednn_gelu_avx512
    elif name in ("tanh", "gelu", "swish"):
        function = partial(function, fma=fma)
    form = profile.section("post", op)
    if len(parameters) > most:
        raise ArgumentError(f"{place}: activation={activation!r} has {len(parameters)} parameters but {name} takes {most}; leave the rest out")
    parameters = [as_real(p, f"activation's parameter {i}", place, finite=False) for i, p in enumerate(parameters)]
    if op not in ("linear", "conv2d"):
        raise UnsupportedError(f"{place}: {profile.engine} has post-operations for linear layers and images alone")
    if name is None:
        function = lambda t: t  # noqa: E731
    scale = _F(1)
    if isinstance(other, QTensor):
        p = other.qparams
        if p.per_channel:
            raise ArgumentError(f"{place}: other is quantized per channel but must be per tensor; quantize it with a scalar scale")
        scale = inverse_of_inverse(_F(p.scale)) if form.other_scale == "reciprocals" else _F(p.scale)
    elif other is not None:
        other = as_array(other, "other", place)
        if other.dtype != np.float32:
            raise ArgumentError(f"{place}: other has dtype {other.dtype} but must be a QTensor or float32; convert it")
    if other is not None and other.shape != tuple(shape):
        raise ShapeError(f"{place}: other has shape {other.shape} but the output {tuple(shape)}; they must be equal")
    return PostOperations(other, scale, lambda t: function(t, *parameters), fma)
