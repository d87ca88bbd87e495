"""The instructions of `refquant.isa` in hardware: the same bits, from the processor itself.

    code      position in `FORMS` of an instruction at one register width
    a, b, c   [register][bytes]   operands as bytes, in the order of the instruction's arguments
    out       [register][bytes]

One kernel holds every form that the running processor has, behind a switch: which these are is decided from the processor's
features before anything is compiled, because LLVM ends the process on an instruction that it cannot encode.
With the JIT off, the same kernel runs the Python meaning of `refquant.isa`. Behind the forms come those of which emulated levels
are made, written out by `refquant.kernels.models`, at ``len(FORMS) + code``.
"""

import math
from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic, overload

from refquant.errors import ShapeError, choose
from refquant.isa.cpu import EXTENSIONS
from refquant.isa.instructions import INSTRUCTIONS, instruction
from refquant.isa.registers import TYPES
from refquant.kernels.jit import jit_disabled, kernel
from refquant.kernels.processor import host_features
from refquant.kernels.vector_ir import Emitter

__all__ = ["Form", "FORMS", "available", "emulated", "hardware"]

_LLVM_FEATURE = {extension.name: extension.llvm for extension in EXTENSIONS}


class Form(NamedTuple):
    """One instruction at one register width.

    Attributes
    ----------
    name : str
    bits : int
    llvm : str
        LLVM's intrinsic; empty for a plain vector addition.
    features : tuple of tuple of str
        LLVM features; one of the inner tuples must be there completely.
    """

    name: str
    bits: int
    llvm: str
    features: tuple

    @property
    def code(self):
        """Position in `FORMS`."""
        return FORMS.index(self)


def _three(name, sse, avx2, avx512, base="sse2"):
    return (
        Form(name, 128, sse, ((base,),)),
        Form(name, 256, avx2, (("avx2",),)),
        Form(name, 512, avx512, (("avx512bw",),)),
    )


def _vnni(name):
    short = (("avxvnni",), ("avx512vnni", "avx512vl"))
    return tuple(
        Form(name, bits, f"llvm.x86.avx512.{name}.{bits}", short if bits < 512 else (("avx512vnni",),)) for bits in (128, 256, 512)
    )


def _int8(name):
    return tuple(Form(name, bits, f"llvm.x86.avx2.{name}.{bits}", (("avxvnniint8",),)) for bits in (128, 256))


FORMS = (
    *_three("vpmaddubsw", "llvm.x86.ssse3.pmadd.ub.sw.128", "llvm.x86.avx2.pmadd.ub.sw", "llvm.x86.avx512.pmaddubs.w.512", "ssse3"),
    *_three("vpmaddwd", "llvm.x86.sse2.pmadd.wd", "llvm.x86.avx2.pmadd.wd", "llvm.x86.avx512.pmaddw.d.512"),
    *_three("vpaddd", "", "", ""),
    *_three("pmulhrsw", "llvm.x86.ssse3.pmul.hr.sw.128", "llvm.x86.avx2.pmul.hr.sw", "llvm.x86.avx512.pmul.hr.sw.512", "ssse3"),
    *_three("packssdw", "llvm.x86.sse2.packssdw.128", "llvm.x86.avx2.packssdw", "llvm.x86.avx512.packssdw.512"),
    *_three("packsswb", "llvm.x86.sse2.packsswb.128", "llvm.x86.avx2.packsswb", "llvm.x86.avx512.packsswb.512"),
    *_three("packuswb", "llvm.x86.sse2.packuswb.128", "llvm.x86.avx2.packuswb", "llvm.x86.avx512.packuswb.512"),
    *_three("cvtps2dq", "llvm.x86.sse2.cvtps2dq", "llvm.x86.avx.cvt.ps2dq.256", "llvm.x86.avx512.mask.cvtps2dq.512"),
    *(form for name in ("vpdpbusd", "vpdpbusds", "vpdpwssd", "vpdpwssds") for form in _vnni(name)),
    *(form for name in ("vpdpbssd", "vpdpbssds", "vpdpbsud", "vpdpbsuds", "vpdpbuud", "vpdpbuuds") for form in _int8(name)),
)


def available():
    """Return the forms that the running processor has and LLVM may use.

    Examples
    --------
    >>> all(form in FORMS for form in available())
    True
    """
    features = host_features()
    return tuple(form for form in FORMS if any(set(needed) <= features for needed in form.features))


def emulated():
    """Return the forms that have a model, on whatever processor.

    Examples
    --------
    >>> sorted({form.name for form in emulated()})
    ['cvtps2dq', 'packssdw', 'packuswb', 'vpdpbusd', 'vpmaddubsw', 'vpmaddwd']
    """
    from refquant.kernels.models import MODELS

    return tuple(form for form in FORMS if form.llvm in MODELS)


def _vector(form, type_name):
    """LLVM's type of a register. The dot products take theirs in 32-bit lanes, which every LLVM version accepts."""
    bits, dtype = form.bits, TYPES["s32" if form.name.startswith("vpdp") else type_name]
    lane = ir.FloatType() if dtype.kind == "f" else ir.IntType(8 * dtype.itemsize)
    return ir.VectorType(lane, bits // (8 * dtype.itemsize))


def _emit(builder, form, pointers, target, model=None):
    """Load the operands, carry out one form or its model, store the result."""
    row = instruction(form.name)
    operands = []
    for pointer, type_name in zip(pointers, row.operands):
        kind = _vector(form, type_name)
        operands.append(builder.load(builder.bitcast(pointer, kind.as_pointer()), align=1))
    result = _vector(form, row.result)
    if model:
        value = model(Emitter(builder), *operands)
    elif not form.llvm:
        value = builder.add(*operands)
    else:
        if form.llvm.startswith("llvm.x86.avx512.mask."):
            operands += [ir.Constant(result, None), ir.Constant(ir.IntType(16), -1), ir.Constant(ir.IntType(32), 4)]
        signature = ir.FunctionType(result, [operand.type for operand in operands])
        module = builder.module
        function = module.globals.get(form.llvm) or ir.Function(module, signature, form.llvm)
        value = builder.call(function, operands)
    builder.store(value, builder.bitcast(target, result.as_pointer()), align=1)


def _address(context, builder, kind, value, register):
    """Return the address of one register's first byte."""
    array = context.make_array(kind)(context, builder, value)
    return builder.gep(array.data, [builder.mul(register, builder.extract_value(array.strides, 0))])


@intrinsic
def _execute_in_hardware(typingctx, code, register, a, b, c, out):
    """One register through the form `code`: a switch over the forms of this processor."""

    def codegen(context, builder, signature, args):
        from refquant.kernels.models import MODELS

        code, register, *arrays = args
        addresses = [_address(context, builder, kind, value, register) for kind, value in zip(signature.args[2:], arrays)]
        done = builder.append_basic_block("done")
        switch = builder.switch(code, done)
        cases = [(form, form.code, None) for form in available()]
        cases += [(form, len(FORMS) + form.code, MODELS[form.llvm]) for form in emulated()]
        for form, case, model in cases:
            block = builder.append_basic_block(f"{form.name}.{form.bits}")
            switch.add_case(ir.Constant(code.type, case), block)
            with builder.goto_block(block):
                _emit(builder, form, addresses[:3], addresses[3], model)
                builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, a, b, c, out), codegen


def execute(code, register, a, b, c, out):
    """Carry out one form on one register: the meaning from `refquant.isa`, which the hardware replaces under the JIT."""
    row = instruction(FORMS[code % len(FORMS)].name)
    operands = [bytes_[register].view(TYPES[t]) for bytes_, t in zip((a, b, c), row.operands)]
    out[register] = row.function(*operands).view(np.uint8)


@overload(execute)
def _execute(code, register, a, b, c, out):
    return lambda code, register, a, b, c, out: _execute_in_hardware(code, register, a, b, c, out)


@kernel
def _execute_all(code, a, b, c, out):
    for register in range(out.shape[0]):
        execute(code, register, a, b, c, out)


def hardware(name, *, model=False):
    """Return an instruction as the running processor carries it out.

    Parameters
    ----------
    name : str
        Of `refquant.isa.INSTRUCTIONS`.
    model : bool
        As emulated levels carry it out instead, see `emulated`.

    Returns
    -------
    callable or None
        Takes and gives whole registers, as the function of the same name in `refquant.isa` does, at the widths in its
        attribute `widths`. None where this processor has no such instruction. With ``NUMBA_DISABLE_JIT=1`` the callable runs
        the model and its attribute `simulated` is true.

    Examples
    --------
    >>> import numpy as np
    >>> maddubs = hardware("vpmaddubsw")
    >>> maddubs is None or int(maddubs(np.full(16, 255, np.uint8), np.full(16, 127, np.int8))[0]) == 32767
    True
    """
    choose("kernels.instructions", "instruction", name, [row.name for row in INSTRUCTIONS])
    codes = {form.bits: form.code + len(FORMS) * model for form in (emulated() if model else available()) if form.name == name}
    if not codes:
        return None
    row = instruction(name)

    def call(*operands):
        arrays = [np.asarray(value) for value in operands]
        expected = row.function(*(value[(0,) * (value.ndim - 1)] if value.size else value for value in arrays))
        return _run(codes, row, arrays, expected.dtype)

    call.__name__ = name
    call.__doc__ = f"`{name}` of the running processor; see `refquant.isa.{name}`."
    call.widths = tuple(sorted(codes))
    call.simulated = jit_disabled()
    return call


def _as_bytes(value):
    """Return registers as read-only rows of bytes: one Numba type for all operands."""
    rows = np.ascontiguousarray(value).reshape(math.prod(value.shape[:-1]), value.shape[-1]).view(np.uint8)
    rows.setflags(write=False)
    return rows


def _run(codes, row, arrays, dtype):
    bits = 8 * arrays[0].itemsize * arrays[0].shape[-1]
    if bits not in codes:
        raise ShapeError(f"hardware {row.name}: registers of {bits} bits, but this processor has it for {sorted(codes)}; cut them")
    lead = np.broadcast_shapes(*(value.shape[:-1] for value in arrays))
    flat = [_as_bytes(np.broadcast_to(value, (*lead, value.shape[-1]))) for value in arrays]
    flat += flat[:1] * (3 - len(flat))
    out = np.empty((flat[0].shape[0], bits // 8), np.uint8)
    _execute_all(codes[bits], *flat, out)
    return out.view(dtype).reshape(*lead, bits // (8 * dtype.itemsize))
