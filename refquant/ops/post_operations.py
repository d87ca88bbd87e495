"""Post-operations: what oneDNN does to a product's real value before the output scale, beside a ReLU."""

from typing import NamedTuple

import numpy as np

from refquant.core.arguments import as_array, as_real
from refquant.core.epilogue import DST_DIV, code_of_real
from refquant.core.fma import fma32
from refquant.core.onednn_eltwise import onednn_gelu, onednn_swish
from refquant.core.onednn_erf import onednn_gelu_avx512
from refquant.core.qtensor import QTensor
from refquant.errors import ArgumentError, ShapeError, UnsupportedError, choose
from refquant.ops.output_stage import inverse_of_inverse

__all__ = ["POST_OPERATIONS", "PostOperations", "is_plain", "post_operations"]

_F = np.float32


def _leaky_relu(t, slope=0.01):
    return np.where(t > 0, t, t * _F(slope))


def _hardtanh(t, low=-1.0, high=1.0):
    return np.minimum(np.maximum(t, _F(low)), _F(high))


def _hardswish(t):
    return t * np.minimum(np.maximum(t * _F(1 / 6) + _F(0.5), _F(0)), _F(1))


def _by_libm(function):
    def apply(t):
        with np.errstate(over="ignore"):
            return function(t.astype(np.float64)).astype(_F)

    return apply


def _gelu(t):
    from scipy.special import erf

    return 0.5 * t * (1 + erf(t * np.sqrt(0.5)))


#: Each function of one real number, with the most parameters that it takes and whether it rests on libm, so that its last bit is the engine's own.
POST_OPERATIONS = {
    "relu": (lambda t: np.maximum(t, _F(0)), 0, False),
    "leaky_relu": (_leaky_relu, 1, False),
    "hardtanh": (_hardtanh, 2, False),
    "hardswish": (_hardswish, 0, False),
    "tanh": (_by_libm(np.tanh), 0, True),
    "gelu": (_by_libm(_gelu), 0, True),
    "swish": (onednn_swish, 0, False),
}

_REFERENCE = {"swish": _by_libm(lambda t: t / (1 + np.exp(-t))), "gelu": _by_libm(_gelu)}
# By processor level; None is the one that profiles name, with AVX512-VNNI.
_GELU = {
    **dict.fromkeys(("avx2", "avx_vnni", "avx_vnni_int8"), onednn_gelu),
    **dict.fromkeys((None, "avx512", "avx512_vbmi", "avx512_vnni", "amx_int8"), onednn_gelu_avx512),
}


class PostOperations(NamedTuple):
    """What follows a product: a second tensor to add, then a function.

    Attributes
    ----------
    other : ndarray or QTensor or None
    scale : float32
        Of a quantized `other`, as the profile takes it.
    function, reference : callable
        As the vectorized and as the reference kernels compute it.
    """

    other: object
    scale: object
    function: object
    reference: object

    def apply(self, t, fused=True):
        """Return the real values after the post-operations; `t` is float32. `fused`: the codes of `other` are scaled and added in one rounding."""
        with np.errstate(over="ignore", invalid="ignore"):
            if isinstance(self.other, QTensor):
                centred = self.other.values.astype(_F) - _F(self.other.qparams.zero_point)
                t = fma32(centred, np.full_like(t, self.scale), t) if fused else centred * self.scale + t
            elif self.other is not None:
                t = t + self.other
            return (self.function if fused else self.reference)(t).astype(_F)

    def finish(self, t, epilogue, dtype, order):
        """Return the codes of dtype, or the real numbers, in the memory order `order` makes."""
        # oneDNN's reference kernels, which divide at the end, are compiled without FMA.
        t = self.apply(t, fused=not epilogue.flags & DST_DIV)
        y = order(t.shape, dtype)
        y[...] = t if np.dtype(dtype) == np.float32 else code_of_real(t, epilogue)
        return y


def is_plain(activation, other):
    """Whether nothing but a ReLU follows a product, or nothing at all."""
    return other is None and (activation is None or (isinstance(activation, str) and activation == "relu"))


def post_operations(profile, op, activation, other, shape, real=False):
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
    real : bool
        Whether the output is float32.

    Raises
    ------
    UnsupportedError
        The engine has no such post-operation, or its float32 results rest on approximations of its own.
    """
    place = f"{op}[{profile.name}]"
    name, *parameters = activation if isinstance(activation, (tuple, list)) and activation else (activation,)
    if other is None and name in (None, "relu") and not parameters:
        return None
    function, most, libm = POST_OPERATIONS["relu" if name is None else choose(place, "activation", name, [None, *POST_OPERATIONS])]
    reference = _REFERENCE.get(name, function)
    if name == "gelu" and profile.isa in _GELU:
        function, libm = _GELU[profile.isa], False
    form = profile.section("post", op)
    if len(parameters) > most:
        raise ArgumentError(f"{place}: activation={activation!r} has {len(parameters)} parameters but {name} takes {most}; leave the rest out")
    parameters = [as_real(p, f"activation's parameter {i}", place, finite=False) for i, p in enumerate(parameters)]
    if real and libm:
        raise UnsupportedError(f"{place}: float32 results of {name} have last bits of the engine's own approximation, which is not known; give out")
    if op not in ("linear", "conv2d"):
        raise UnsupportedError(f"{place}: {profile.engine} has post-operations for linear layers and images alone")
    if name is None:
        function = reference = lambda t: t  # noqa: E731
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
    return PostOperations(other, scale, *(lambda t, f=f: f(t, *parameters) for f in (function, reference)))
