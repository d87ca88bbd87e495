"""Instructions on 512 bits, or on their two halves where the processor has registers of 256 bits.

Each of them works on quarters of a register by itself (``vpacksswb`` and its like) or lane by lane, so two instructions on the halves
are one on the whole, bit for bit.
"""

from refquant.kernels.processor import cpu_features
from refquant.kernels.vector_ir import F32, F64, I8, I16, I32, vector

__all__ = ["halves_run_here", "wide_vectors_run_here", "wide", "nearest_even", "truncated", "guarded_integer"]

_WORDS = vector(I32, 16)
_OPERATIONS = {
    "cvtps2dq": (_WORDS, "llvm.x86.avx512.mask.cvtps2dq.512", "llvm.x86.avx.cvt.ps2dq.256"),
    "packssdw": (vector(I16, 32), "llvm.x86.avx512.packssdw.512", "llvm.x86.avx2.packssdw"),
    "packuswb": (vector(I8, 64), "llvm.x86.avx512.packuswb.512", "llvm.x86.avx2.packuswb"),
    "pmaddubsw": (vector(I16, 32), "llvm.x86.avx512.pmaddubs.w.512", "llvm.x86.avx2.pmadd.ub.sw"),
    "pmaddwd": (_WORDS, "llvm.x86.avx512.pmaddw.d.512", "llvm.x86.avx2.pmadd.wd"),
}


def _on_512_bits():
    return cpu_features().issuperset(("avx512f", "avx512bw"))


def wide_vectors_run_here():
    """Whether the processor has the instructions, and fused multiply-adds, on whole registers or halves."""
    return _on_512_bits() or halves_run_here()


def halves_run_here():
    """Whether instructions on 512 bits are two on 256."""
    return not _on_512_bits() and cpu_features().issuperset(("avx2", "fma"))


def wide(e, operation, *args):
    """Emit an instruction by Intel's name, without the ``v``, for vectors of 512 bits."""
    result, whole, half = _OPERATIONS[operation]
    if _on_512_bits():
        masked = (e.constant(0, result), e.constant(-1, I16), e.constant(4, I32)) if operation == "cvtps2dq" else ()
        return e.call(whole, result, *args, *masked)
    kind = vector(result.element, result.count // 2)
    parts = [e.call(half, kind, *(_half(e, a, i) for a in args)) for i in range(2)]
    return e.shuffle(*parts, list(range(result.count)))


def _half(e, v, i):
    count = v.type.count // 2
    return e.shuffle(v, v, list(range(i * count, (i + 1) * count)))


def nearest_even(e, x):
    """As ``cvtps2dq`` and ``cvtpd2dq`` round: beyond int32 and NaN they give ``-2**31``."""
    if x.type.element == F32 and wide_vectors_run_here():
        return wide(e, "cvtps2dq", x)
    if x.type.element == F64 and halves_run_here():
        return _on_quarters(e, "llvm.x86.avx.cvt.pd2dq.256", x)
    return guarded_integer(e, e.unary("roundeven", x))


def truncated(e, x):
    """As ``cvttpd2dq`` cuts towards zero, on halves: beyond int32 and NaN ``-2**31``."""
    return _on_quarters(e, "llvm.x86.avx.cvtt.pd2dq.256", x)


def _on_quarters(e, name, x):
    quarters = [e.call(name, vector(I32, 4), e.shuffle(x, x, list(range(4 * q, 4 * q + 4)))) for q in range(4)]
    return e.shuffle(*(e.shuffle(*quarters[i : i + 2], list(range(8))) for i in (0, 2)), list(range(16)))


def guarded_integer(e, x):
    """Of whole numbers; beyond int32 and NaN ``-2**31``, on every processor."""
    b, kind = e.builder, x.type
    low, high = e.constant(-(2.0**31), kind), e.constant(2.0**31, kind)
    inside = b.and_(b.fcmp_ordered(">=", x, low), b.fcmp_ordered("<", x, high))
    return b.fptosi(b.select(inside, x, low), vector(I32, kind.count))
