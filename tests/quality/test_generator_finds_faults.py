"""Default cases tell every two profiles apart, and every profile from each of its mutants, unless the two compute the same."""

from itertools import combinations, islice

import pytest

from refquant import numerics, ops
from refquant.errors import UnsupportedError
from refquant.numerics.coverage import absence
from refquant.numerics.profile import Dispatch
from refquant.verify import STREAMS, build, case_stream, mutants, oracle
from refquant.verify.power import SAME_BITS, form_differences, function_reads

BUDGET = 900
#: Bytes of outputs from which a case is left out, as it takes long.
LARGE = 70000
SECTIONS = {op.name: op.sections for op in ops.OPS}
#: The profiles whose engines `refquant.backends` asks, and the specification; those of other engines are told apart in pairs.
NAMES = ("fbgemm", "onednn", "x86", "qnnpack", "inductor", "onnx", "onnxruntime")

#: Operators made of others: their own sections alone are for their cases to tell, the rest for those of the others.
COMPOSED = {
    "quantize_dynamic": ("dynamic",), "linear_dynamic": ("dynamic",), "conv1d_dynamic": (), "conv2d_dynamic": (), "conv3d_dynamic": (),
    "requantize": ("requantize",), "relu6": (), "hardtanh": (), "mul_scalar": (),
    "matmul": ("matmul",), **dict.fromkeys(("gemm", "where", "attention", "lstm_dynamic", "embed_layer_norm"), ()),
}  # fmt: skip


def answer(problem, profile):
    try:
        return oracle(problem, profile).tobytes()
    except UnsupportedError:
        return None


def unseparated(op, profile, others, budget=BUDGET):
    """Return those of `others` that give the bits of `profile` in every default case."""
    left = list(others)
    for case in islice(case_stream(op, profile), budget):
        if not left:
            break
        problem = build(case)
        expected = answer(problem, profile)
        if expected is not None and len(expected) < LARGE:
            left = [other for other in left if answer(problem, getattr(other, "profile", other)) in (expected, None)]
    return left


def never_separated(op, pairs, budget):
    """Return the pairs of profiles that no default case of either tells apart."""
    for turn in (0, 1):
        first = {pair[turn].name: pair[turn] for pair in pairs}
        same = {name: unseparated(op, a, [pair[1 - turn] for pair in pairs if pair[turn] is a], budget) for name, a in first.items()}
        pairs = [pair for pair in pairs if any(pair[1 - turn] is b for b in same[pair[turn].name])]
    return pairs


@pytest.mark.parametrize("op", list(STREAMS))
def test_every_two_profiles_are_separated(op):
    pairs = [(a, b) for a, b in combinations(numerics.PROFILES, 2) if form_differences(a, b, op)]
    assert [(a.name, b.name, form_differences(a, b, op)) for a, b in never_separated(op, pairs, 200)] == []


@pytest.mark.parametrize("op", list(STREAMS))
def test_pairs_that_are_not_asked_have_the_same_bits(op):
    """Whatever of two forms an operator is said not to read, the default cases show no difference."""
    profiles = [profile for profile in numerics.PROFILES if not absence(op, profile.name)]
    for a in profiles:
        others = [b for b in profiles if not form_differences(a, b, op) and any(row[0] in SECTIONS[op] and row[1] != "offered" for row in a.differences(b))]
        assert [b.name for b in others if b not in unseparated(op, a, others, 24)] == []


@pytest.mark.parametrize("op, one, others, why", SAME_BITS)
def test_pairs_of_the_same_bits_have_two_forms(op, one, others, why, monkeypatch):
    others = [numerics.get(name) for name in others]
    assert not any(form_differences(numerics.get(one), other, op) for other in others) and why
    monkeypatch.setattr("refquant.verify.power.SAME_BITS", ())
    assert all(form_differences(numerics.get(one), other, op) for other in others)


def same_by_proof(mutant):
    """Return why a mutant computes what its profile does, or None if it must be found."""
    form = getattr(numerics.get(mutant.profile.name.rstrip("*")), mutant.section)
    side, _, field = mutant.field.rpartition(".")
    form = getattr(form, side) if isinstance(form, Dispatch) else form
    profile = numerics.get(mutant.profile.name.rstrip("*"))
    if field == "post" and not mutant.section.endswith("_real") and (profile.post is None or mutant.section in ("conv_transpose", "mul", "prelu")):
        return "nothing but a ReLU of codes follows there"
    if mutant.section in ("linear", "linear_int8", "conv", "conv_transpose", "mul", "prelu") and hasattr(form, "multiplier"):
        return _same_product(form, field, mutant)
    if mutant.section in ("avg_pool", "adaptive_avg_pool") and hasattr(form, "contiguous"):
        return _same_pool(form, field, mutant)
    if field == "copy_equal":
        return "a code survives the way to its real number and back"
    if field == "zero_point" and mutant.section in _EIGHT_BITS and {mutant.old, mutant.new} == {"after", "float_after"} and form.overflow in ("saturate", "int64"):
        return "sums that lie among 8-bit codes are the same integers in float32"
    if field == "overflow" and mutant.section == "quantize_int32" and form.zero_point == "float_after" and {mutant.old, mutant.new} == {"saturate", "indefinite"}:
        return "2**31, the float32 nearest to the largest code, is converted to what every larger number is"
    if field == "nan":
        return _same_nan(form, mutant)
    if (field == "tail" or field.startswith("tail_")) and form.vector == 0:
        return "without a vector body there is no tail"
    return None


_SMOOTH = ("sigmoid", "tanh", "elu", "celu", "gelu", "softmax")
_EIGHT_BITS = ("quantize", "fake_quantize", "fake_quantize_channel")
_SAME_AT_ONCE = ({"(xw)/y", "x,w,/y", "(xw),/y"}, {"(xw)*(1/y)", "x,w,1/y", "(xw),1/y"})


def _same_product(form, field, mutant):
    quotients = {"(xw)/y", "f64(xw)/y"} | ({"f64(xw)/y, double"} if mutant.section in ("mul", "prelu") else set())
    if field == "relu":
        return "rounding is monotone: a maximum with 0 before it is one with the zero point after it"
    if field == "multiplier" and form.arithmetic == "float32" and {mutant.old, mutant.new} <= quotients:
        return "a float64 quotient of float32 numbers rounds to their float32 quotient"
    if form.arithmetic != "float32" and (field == "y_scale" or field == "bias" and {mutant.old, mutant.new} <= {"before", "after", "int32"}):
        return "read by float32 arithmetic alone"
    if form.arithmetic != "float32" and field == "multiplier" and any({mutant.old, mutant.new} <= same for same in _SAME_AT_ONCE):
        return "steps apart exist in float32 arithmetic alone"
    if form.arithmetic.startswith("fixed") and field in ("rounding", "zero_point", "overflow"):
        return "integer multipliers bring their own rounding"
    return None


def _same_nan(form, mutant):
    # Per channel there are codes of 32 bits, where an integer zero point moves what NaN overflows to.
    lowest = {"qmin"} if form.overflow == "indefinite" or mutant.section == "quantize_channel" else {"qmin", "overflow"}
    same = [lowest | {"indefinite"}] if mutant.section == "quantize_int32" else [lowest]
    if mutant.section == "quantize":
        same.append({"zero", "indefinite"})
    return "the same code in that dtype" if any({mutant.old, mutant.new} <= group for group in same) else None


def _same_pool(form, field, mutant):
    formulas = {form.contiguous, form.channels_last}
    if field == "rounding" and formulas <= {"spec", "raw_integer"}:
        return "the formula brings its own rounding"
    if mutant.section == "adaptive_avg_pool" and {mutant.old, mutant.new} == {"global", "global_area"}:
        return "adaptive windows have no kernel but themselves"
    return None


def _same_dynamic(op, mutant):
    if (op == "quantize_dynamic") == (mutant.field == "linear_input"):
        return True
    # reduce_range is ATen's alone; where it is ignored or refused, no case asks for it of another engine.
    return mutant.field == "reduced" and "refused" in (mutant.old, mutant.new)


def order_shows(op, old, new):
    """Whether an operator by way of real numbers adds, and in another order by the one form than by the other."""
    if op in ("prelu", "batch_norm", "interpolate"):
        return False
    return not (op.startswith("avg_pool") and {old, new} == {"aten", "runtime"})


def same_for_operator(op, mutant):
    if op in COMPOSED and mutant.section not in COMPOSED[op]:
        return "for the cases of the operator that it is made of to tell"
    if mutant.section == "dynamic" and _same_dynamic(op, mutant):
        return "read by dynamic linear layers alone, or a parameter that only one of them has"
    if op == "cat" and "copy" in (mutant.old, mutant.new):
        return "it refuses inputs with other parameters, and copies are the same in every engine"
    if op == "clamp" and mutant.field == "nan":
        return "a limit is a number"
    if op == "clamp" and {mutant.old, mutant.new} <= {"after", "float_after"}:
        return "float32 sums with a zero point of 8 bits are exact wherever they do not saturate"
    if op in ("conv1d", "conv3d") and (mutant.section, mutant.field) == ("conv", "post"):
        return "nothing but a ReLU of codes follows what is no image"
    if op in ("mul", "prelu") and mutant.field in ("bias", "overflow"):
        return "a product of two codes has no bias, and no scale takes it out of int32"
    if op == "add" and mutant.field == "overflow":
        return "no scale of a default case takes a sum of two codes out of int32; drawn cases' scales do"
    if not function_reads(op, mutant.section, mutant.field, mutant.old, mutant.new):
        return "for other functions of one code to tell"
    if mutant.field == "order" and mutant.section != "embedding" and not order_shows(op, mutant.old, mutant.new):
        return "what has no sum has no order, and boxes are added in one order alone"
    if op in _SMOOTH:
        return "where its ties lie is the mathematical library's to say"
    direct = {"exact", "fbgemm_direct", "fbgemm_direct_rows"}
    if mutant.field.endswith("accumulator") and op in ("conv_transpose1d", "conv_transpose3d") and {mutant.old, mutant.new} <= direct:
        return "the direct kernel exists for images alone"
    if mutant.field.endswith("accumulator") and op in ("linear", "conv1d", "mul", "prelu"):
        return "depthwise kernels exist for images and volumes alone"
    if mutant.profile.name.startswith("qnnpack") and mutant.field.startswith("yes.") and mutant.section == "conv" and op != "conv3d":
        return "the other kernel takes volumes alone"
    return same_by_proof(mutant)


@pytest.mark.parametrize("op", [op for op in STREAMS if SECTIONS[op]])
@pytest.mark.parametrize("profile", NAMES)
def test_every_mutant_is_found(op, profile):
    if absence(op, profile):
        return
    if profile != "fbgemm" and all(getattr(numerics.get(profile), s) == getattr(numerics.get("fbgemm"), s) for s in SECTIONS[op]):
        return  # the same forms, tried under the name of fbgemm
    changed = list(mutants(profile, op))
    assert changed or not any(getattr(numerics.get(profile), s) for s in SECTIONS[op])
    wanted = [mutant for mutant in changed if same_for_operator(op, mutant) is None]
    assert [str(mutant) for mutant in unseparated(op, profile, wanted)] == []


@pytest.mark.parametrize("profile", ("fbgemm", "qnnpack", "onnxruntime", "tflite_ref", "onnx_reference"))
@pytest.mark.parametrize("op", ("linear", "conv2d", "cat", "add", "quantize"))
def test_what_is_the_same_by_proof_is_never_told_apart(op, profile):
    same = [mutant for mutant in mutants(profile, op) if same_for_operator(op, mutant)]
    assert len(unseparated(op, profile, same, 60)) == len(same)
