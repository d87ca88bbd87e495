"""Scalar steps whose bits matter, each twice: its meaning in Python, and the one machine instruction that does the same.

With the JIT on, `numba.extending.overload` replaces the Python body by the instruction; with it off, the body runs.
"""

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic, overload

from refquant.core.fma import fma32
from refquant.core.rounding import Round, round_real

__all__ = ["wrap32", "fused_multiply_add", "half_even"]


def wrap32(x):
    """Reduce an int64 modulo ``2**32`` to int32."""
    return np.int32(((int(x) + 2**31) & 0xFFFFFFFF) - 2**31)


def fused_multiply_add(a, b, c):
    """``a * b + c`` in float32, rounded once."""
    return fma32(a, b, c)


def half_even(x):
    """Round a float32 or float64 to the nearest integer, ties to even."""
    return round_real(x, Round.HALF_EVEN)


@intrinsic
def _truncate_to_int32(typingctx, x):
    def codegen(context, builder, signature, args):
        return builder.trunc(args[0], ir.IntType(32))

    return types.int32(types.int64), codegen


@intrinsic
def _llvm_fma(typingctx, a, b, c):
    def codegen(context, builder, signature, args):
        return builder.fma(*args)

    return types.float32(types.float32, types.float32, types.float32), codegen


@intrinsic
def _llvm_roundeven(typingctx, x):
    def codegen(context, builder, signature, args):
        kind = args[0].type
        function = builder.module.declare_intrinsic("llvm.roundeven", [kind])
        return builder.call(function, args)

    return x(x), codegen


@overload(wrap32, inline="always")
def _wrap32(x):
    return lambda x: _truncate_to_int32(x)


@overload(fused_multiply_add, inline="always")
def _fused_multiply_add(a, b, c):
    return lambda a, b, c: _llvm_fma(a, b, c)


@overload(half_even, inline="always")
def _half_even(x):
    return lambda x: _llvm_roundeven(x)
