"""Models against the processor: the same bits on all byte pairs in every lane position, on random and on extreme registers."""

import os
import subprocess
import sys

import numpy as np
import pytest
from test_isa_witness import DTYPE, FAULTS, registers_for

from refquant.errors import ArgumentError, ShapeError
from refquant.isa import INSTRUCTIONS, instruction
from refquant.kernels.instructions import FORMS, available, emulated, hardware
from refquant.kernels.jit import jit_disabled
from refquant.kernels.processor import host_features

MODELLED = tuple((form.name, form.bits) for form in emulated())
HERE = tuple(dict.fromkeys((form.name, form.bits) for form in available()))
NAMES = tuple(dict.fromkeys(name for name, _ in HERE))
REGISTERS = 100_000
CHUNK = 25_000

needs_hardware = pytest.mark.skipif(jit_disabled(), reason="with the JIT off the processor is not asked")


def assert_same(name, ref, comp):
    """Same dtype, shape and bits; the message counts registers and shows the first."""
    assert comp.dtype == ref.dtype and comp.shape == ref.shape
    wrong = np.flatnonzero((ref != comp).any(axis=-1))
    if len(wrong):
        raise AssertionError(f"{name}: {len(wrong)} of {len(ref)} registers differ, first {wrong[0]}: {comp[wrong[0]]} for {ref[wrong[0]]}")


def byte_pairs(name, bits):
    """All 65,536 pairs of bytes in every lane position: in each lane, the registers run through a permutation of the pairs."""
    lanes = bits // 8
    code = (np.arange(65536)[:, None] * 40503 + np.arange(lanes) * 12007) % 65536
    return (code >> 8).astype(np.uint8), (code & 255).astype(np.uint8)


def test_byte_pairs_cover_every_lane():
    a, b = byte_pairs("", 512)
    for lane in range(64):
        assert len(np.unique(a[:, lane].astype(np.int64) * 256 + b[:, lane])) == 65536


BOTH = [*((*form, False) for form in HERE), *((*form, True) for form in MODELLED)]
BYTES = [form for form in BOTH if instruction(form[0]).operands[-1] in ("u8", "s8")]


@needs_hardware
@pytest.mark.parametrize("name, bits, model", BYTES)
@pytest.mark.parametrize("alone", [None, 0, 1, 2, 3])
def test_all_byte_pairs_in_every_lane(name, bits, model, alone):
    """`alone`: only that byte of each four is not zero, so that no neighbour can hide a product."""
    row = instruction(name)
    a, b = byte_pairs(name, bits)
    if alone is not None:
        a = np.where(np.arange(bits // 8) % 4 == alone, a, 0).astype(np.uint8)
    operands = [v.view(DTYPE[t]) for v, t in zip((a, b), row.operands[-2:])]
    if len(row.operands) == 3:
        operands.insert(0, np.random.default_rng(1).integers(-(2**31), 2**31, (65536, bits // 32)).astype(DTYPE[row.operands[0]]))
    assert_same(name, row.function(*operands), hardware(name, model=model)(*operands))


@needs_hardware
@pytest.mark.parametrize("name, bits, model", BOTH)
def test_random_and_extreme_registers(name, bits, model):
    row, compared = instruction(name), 0
    for seed in range(REGISTERS // CHUNK):
        operands = registers_for(row.operands, [bits] * len(row.operands), CHUNK, seed)
        ref, comp = row.function(*operands), hardware(name, model=model)(*operands)
        assert_same(name, ref, comp)
        compared += len(comp)
    assert compared >= REGISTERS


@needs_hardware
@pytest.mark.parametrize("name, bits", [form for form in MODELLED if form in HERE])
def test_a_model_is_the_instruction_of_this_processor(name, bits):
    """Random and extreme registers; no `refquant.isa` between."""
    row = instruction(name)
    for seed in range(4):
        operands = registers_for(row.operands, [bits] * len(row.operands), CHUNK, 100 + seed)
        assert_same(name, hardware(name)(*operands), hardware(name, model=True)(*operands))


@needs_hardware
@pytest.mark.parametrize("bits", [bits for name, bits in MODELLED if name == "cvtps2dq"])
def test_the_model_of_a_conversion_at_ties_and_ends(bits):
    near = np.array([0.5, 1.5, 2.5, 8388607.5, 2.0**31, -(2.0**31), 2.0**23, 1e30, np.inf, np.nan, 1e-45, 0.0], np.float32)
    values = np.concatenate([sign * np.nextafter(near, to) for sign in (1, -1) for to in (near, np.float32(0), np.float32(np.inf))])
    values = np.resize(values, (-(-values.size * 16 // bits * 4), bits // 32)).astype(np.float32)
    with np.errstate(all="ignore"):
        assert_same("cvtps2dq", instruction("cvtps2dq").function(values), hardware("cvtps2dq", model=True)(values))


@needs_hardware
@pytest.mark.parametrize("name, fault, function", [f for f in FAULTS if f[0] in NAMES], ids=lambda v: str(v).replace(" ", "_") if isinstance(v, str) else "")
def test_planted_fault_differs_from_the_processor(name, fault, function):
    row, found = instruction(name), False
    for bits in hardware(name).widths:
        operands = registers_for(row.operands, [bits] * len(row.operands), 4000, 9)
        with np.errstate(all="ignore"):
            comp = function(*operands)
        try:
            assert_same(name, hardware(name)(*operands), comp)
        except AssertionError:
            found = True
    assert found


@needs_hardware
def test_machine_code_holds_the_instructions():
    """The kernel is made of the instructions themselves, not of something that LLVM put in their place."""
    from numba import njit, types

    from refquant.kernels.instructions import _execute_all

    rows = types.Array(types.uint8, 2, "C", readonly=True)
    fresh = njit(nogil=True)(_execute_all.py_func)
    fresh.compile((types.int64, rows, rows, rows, types.Array(types.uint8, 2, "C")))
    code = "".join(fresh.inspect_asm().values())
    for name, bits in HERE:
        mnemonic = name if name.startswith("v") else f"v{name}"
        if "avx" not in host_features():
            mnemonic = mnemonic.lstrip("v")
        assert mnemonic in code, f"{name} of {bits} bits is not in the machine code"


@pytest.mark.parametrize("name", [row.name for row in INSTRUCTIONS])
def test_hardware_is_there_exactly_where_the_processor_has_it(name):
    call = hardware(name)
    widths = tuple(form.bits for form in available() if form.name == name)
    if not widths:
        assert call is None
        return
    assert call.widths == widths and call.__name__ == name
    assert call.simulated == jit_disabled()
    assert set(widths) <= {bits for bits, _ in instruction(name).forms}


def test_every_x86_instruction_of_the_table_has_its_forms():
    x86 = {(row.name, bits) for row in INSTRUCTIONS for bits, extension in row.forms if bits <= 512 and extension not in ("NEON", "DotProd", "I8MM")}
    assert {(form.name, form.bits) for form in FORMS} == x86
    assert len(set(FORMS)) == len(FORMS) == len({(form.name, form.bits) for form in FORMS})


def test_hardware_refuses_what_the_model_refuses():
    name = NAMES[0]
    if instruction(name).operands != ("u8", "s8"):
        pytest.skip("no vpmaddubsw here")
    call, good = hardware(name), (np.zeros((2, 16), "u1"), np.zeros((2, 16), "i1"))
    assert call(*good).shape == (2, 8)
    assert call(np.zeros((3, 1, 16), "u1"), good[1]).shape == (3, 2, 8) and call(good[0][:0], good[1][:0]).shape == (0, 8)
    with pytest.raises(ArgumentError, match="must have s8"):
        call(good[0], good[0])
    with pytest.raises(ShapeError, match="must fill one register"):
        call(good[0][:, :12], good[1][:, :12])
    with pytest.raises(ArgumentError, match="instruction='vpmad'"):
        hardware("vpmad")
    if call.widths == (128, 256):
        with pytest.raises(ShapeError, match="registers of 512 bits"):
            call(np.zeros(64, "u1"), np.zeros(64, "i1"))


SCRIPT = """
import hashlib, numpy as np
from refquant.kernels.instructions import available, hardware
from refquant.isa import instruction
rng, digest = np.random.default_rng(0), hashlib.sha256()
kinds = {"u8": "u1", "s8": "i1", "s16": "i2", "s32": "i4", "u32": "u4", "f32": "f4"}
for form in available():
    operands = [np.frombuffer(rng.bytes(20 * form.bits // 8), kinds[t]).reshape(20, -1) for t in instruction(form.name).operands]
    digest.update(hardware(form.name)(*operands).tobytes())
print(digest.hexdigest(), len(available()))
"""


def test_same_bits_with_the_jit_off():
    if jit_disabled():
        pytest.skip("the JIT is off already")
    outputs = []
    for disabled in ("0", "1"):
        environment = {**os.environ, "NUMBA_DISABLE_JIT": disabled}
        outputs.append(subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, env=environment).stdout)
    assert outputs[0] == outputs[1] and int(outputs[0].split()[1]) == len(available())


def test_features_are_asked_before_compiling():
    """Held to a processor without AVX-512, the wide forms and VNNI are gone, and what is left compiles and runs."""
    if jit_disabled() or not {"avx2", "avx512vnni"} <= host_features():
        pytest.skip("needs a processor with more than AVX2")
    environment = {**os.environ, "NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+sse2,+ssse3,+sse4.1,+avx,+avx2"}
    code = SCRIPT + "print(sorted({form.name for form in available()}), max(form.bits for form in available()), hardware('vpdpbusd'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "vpmaddubsw" in done.stdout and "vpdpbusd" not in done.stdout and done.stdout.split()[-2:] == ["256", "None"]
