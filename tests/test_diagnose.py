"""Diagnosis: its parts against the operators, its answers on known differences, its honesty on unknown ones."""

from itertools import islice

import numpy as np
import pytest

import refquant as rq
from refquant import numerics
from refquant.errors import ArgumentError, RefquantError, ShapeError
from refquant.numerics.forms import form_choices
from refquant.numerics.profile import section_types
from refquant.ops import OPS
from refquant.verify import build, case_stream, compare, diagnose, mutants, oracle
from refquant.verify.diagnosis import CAUSES
from refquant.verify.diagnosis.bench import Bench, same_bits
from refquant.verify.diagnosis.call import base_call
from refquant.verify.diagnosis.form_causes import field_words
from refquant.verify.diagnosis.search import single_candidates

DIAGNOSED = (
    "quantize", "dequantize", "fake_quantize", "linear", "conv1d", "conv2d", "conv3d", "matmul_integer", "add", "max_pool2d", "avg_pool2d",
    "adaptive_avg_pool2d", "cat",
)  # fmt: skip


def benches(op, profile, cases, seed=0):
    """Yield (call, base, bench) of default cases, the bits being the oracle's own."""
    base = numerics.get(profile)
    for case in islice(case_stream(op, profile, seed=seed), cases):
        if case.strategy == "wrap":
            continue
        problem = build(case)
        if problem.arguments.get("activation") not in (None, "relu") or problem.arguments.get("other") is not None:
            continue  # whole outputs at a time
        try:
            call, expected, _ = base_call(op, problem.arguments, base)
        except RefquantError:
            continue
        if 0 < expected.size < 6000:
            expected = np.ascontiguousarray(expected)
            yield case, call, base, Bench(call, base, expected, expected)


@pytest.mark.parametrize("profile", numerics.names())
@pytest.mark.parametrize("op", DIAGNOSED)
def test_parts_put_together_are_the_operator(op, profile):
    """Hypotheses are computed a few outputs at a time; undisturbed, they must give the operator's bits."""
    for case, call, _, bench in benches(op, profile, 6):
        assert not bench.evaluator.whole, case
        everything = bench.evaluator.values(call, np.arange(bench.expected.size))
        assert same_bits(everything, bench.expected).all(), case


@pytest.mark.parametrize("op", DIAGNOSED)
def test_every_cause_applies_or_declines(op):
    """Without quirks a hypothesis is an ordinary call: then the operator must agree with it."""
    seen = set()
    for profile in ("onnx", "fbgemm"):
        for case, call, base, bench in benches(op, profile, 5, seed=3):
            for candidate in single_candidates(call, base, bench):
                changed = candidate.apply(call)
                if changed is None:
                    continue
                candidate.words(call)
                with np.errstate(all="ignore"):
                    y = bench.values(changed, "sample")
                    if y is None or changed.quirks:
                        continue
                    whole = changed.run(base).reshape(-1)
                if whole.shape == bench.expected.shape:
                    seen.add(candidate.cause.name)
                    assert same_bits(y, whole[bench.levels["sample"]]).all(), (case, candidate.name)
    assert seen


def test_causes_are_a_table():
    names = {op.name for op in OPS}
    for cause in CAUSES:
        assert cause.ops and set(cause.ops) <= names, cause.name
        assert callable(cause.keys) or cause.keys, cause.name


def test_every_value_of_every_field_has_words():
    """A new field joins the search by itself; here it asks for a wording (`form_causes.WORDS`)."""
    forms = [getattr(profile, section) for profile in numerics.PROFILES for section in section_types()]
    forms = {type(part): part for form in forms if form is not None for part in (getattr(form, "yes", form), getattr(form, "no", form))}
    bare = []
    for form in forms.values():
        for field, allowed in form_choices(type(form)).items():
            for value in allowed if isinstance(allowed, tuple) else (False, True) if allowed is bool else (getattr(form, field),):
                if field_words(form, field, value).startswith("has "):
                    bare.append((type(form).__name__, field, value))
    assert not bare


@pytest.mark.parametrize("op", [op for op in DIAGNOSED if op not in ("matmul_integer", "max_pool2d")])
@pytest.mark.parametrize("profile", ["fbgemm", "onnxruntime"])
def test_a_changed_field_is_found(op, profile):
    """Each field of each form is a cause: whatever bits a changed profile gives, `numerics` gives them too."""
    found = 0
    for mutant in mutants(profile, op):
        for case in islice(case_stream(op, profile, seed=1), 60 if op == "cat" else 6):
            problem = build(case)
            try:
                right, wrong = oracle(problem, profile), oracle(problem, mutant.profile)
            except RefquantError:
                continue
            if right.size > 30000 or compare(wrong, right, nan_equal=True).exact:
                continue
            d = diagnose(op, actual=wrong, numerics=profile, **problem.arguments)
            assert d.explained and len(d.causes) == 1, (str(mutant), case, str(d))
            if not d.transformations:
                assert compare(oracle(problem, d.numerics), wrong, nan_equal=True).exact, (str(mutant), case)
            found += 1
            break
    assert found


def problem_and_bits(line, right, wrong, least=5):
    """Return the problem of the first seed on which two profiles differ, and the wrong one's bits."""
    for seed in range(60):
        problem = build(line.replace("seed=0", f"seed={seed}"))
        bits = oracle(problem, wrong)
        if np.count_nonzero(bits != oracle(problem, right)) >= least:
            return problem, bits
    raise AssertionError(line)


ONNX = numerics.get("onnx")


def test_the_words_of_a_pair():
    pair = {"rounding": "truncate", "zero_point": "before"}
    one, other = (ONNX.replace(linear={name: value}) for name, value in pair.items())
    both = ONNX.replace(linear=pair)
    for seed in range(60):
        problem = build(f"linear/onnx/m60k48n24/neartie/seed={seed}/per_channel/intbias")
        bits = oracle(problem, both)
        if all(np.count_nonzero(oracle(problem, p) != bits) > 5 for p in (ONNX, one, other)):
            break
    d = diagnose("linear", actual=bits, numerics="onnx", **problem.arguments)
    assert d.explained and not d.transformations
    assert {"truncates in place of rounding", "adds the zero point before rounding"} in [set(causes) for causes in (d.causes, *(e.causes for e in d.alternatives))]
    np.testing.assert_array_equal(oracle(problem, d.numerics), bits)
    text = str(d)
    assert "EXPLAINED: " in text and f"{d.differing:,} of 1,440 outputs differ" in text


def test_equal_bits_need_no_cause():
    problem = build("linear/onnx/m5k64n17/neartie/seed=0")
    d = diagnose("linear", actual=oracle(problem, "onnx"), numerics="onnx", **problem.arguments)
    assert d.explained and d.causes == () and d.numerics == numerics.get("onnx")
    assert str(d) == "linear against onnx: 0 of 85 outputs differ"


def test_noise_is_not_explained():
    rng = np.random.default_rng(0)
    for line in ("linear/onnx/m20k48n24/neartie/seed=0/per_channel", "conv2d/onnx/n1c8h9w9-oc8k3p1/neartie/seed=0", "add/onnx/n3000/neartie/seed=0", "quantize/onnx/n3000/random/seed=0"):
        problem = build(line)
        bits = oracle(problem, "onnx").copy()
        at = rng.choice(bits.size, 9, replace=False)
        bits.reshape(-1)[at] = (bits.reshape(-1)[at].astype(int) + rng.integers(30, 200, 9)).astype(np.uint8)
        d = diagnose(problem.op, actual=bits, numerics="onnx", seconds=2, **problem.arguments)
        assert not d.explained and d.causes == () and d.nearest and d.nearest[0].left > 0, line
        assert "UNEXPLAINED" in str(d) and f"{d.tried:,}" in str(d)


def test_the_clock_is_obeyed():
    problem = build("conv2d/onnx/n2c16h28w28-oc32k3p1/neartie/seed=0/per_channel")
    bits = oracle(problem, "onnx") ^ np.uint8(5)
    d = diagnose("conv2d", actual=bits, numerics="onnx", seconds=0.5, **problem.arguments)
    assert not d.explained and not d.complete and "stopped by the clock" in str(d)


def test_what_data_cannot_tell_apart_is_listed():
    """Without padding, an ignored zero point and a missing compensation are one thing; with it they are two."""
    problem = build("linear/onnx/m20k48n24/neartie/seed=0/intbias")
    x, w = problem["x"], problem["w"]
    ignored = rq.QTensor(x.values, rq.QParams(x.qparams.scale, 0, "uint8"))
    bits = rq.ops.linear(ignored, w, problem["bias"], out=problem["out"], numerics="onnx")
    d = diagnose("linear", actual=bits, numerics="onnx", **problem.arguments)
    names = {d.names, *(e.names for e in d.alternatives)}
    assert {("compensation_missing[x]",), ("zero_point_ignored[x]",)} <= names


def test_half_up_and_half_away_agree_above_zero():
    x = (np.arange(40, dtype=np.float32) + np.float32(0.5)) * np.float32(0.25)
    qp = rq.QParams(0.25, 0, "uint8")
    bits = rq.quantize(x, qp, numerics=numerics.get("onnx").replace(rounding="half_up"))
    d = diagnose("quantize", actual=bits, numerics="onnx", x=x, qparams=qp)
    words = {d.causes, *(e.causes for e in d.alternatives)}
    assert {("rounds half up",), ("rounds half away from zero",)} <= words
    case = d.separating_case()
    answers = {oracle(case, e.numerics).tobytes() for e in (d.explanation, *d.alternatives) if not e.transformations}
    assert len(answers) > 1


def test_evidence_and_what_was_ruled_out():
    problem = build("linear/onnx/m40k48n24/neartie/seed=0/per_channel/intbias")
    fewer = {**problem.arguments, "bias": None}
    bits = oracle(type(problem)("linear", fewer), numerics.get("onnx").replace(linear={"rounding": "truncate"}))
    d = diagnose("linear", actual=bits, numerics="onnx", **problem.arguments)
    assert d.explained and set(d.names) == {"bias_missing", "linear.rounding[truncate]"}
    assert set(d.evidence) == set(d.causes) and all(0 <= n <= d.differing for n in d.evidence.values())
    assert d.transformations == ("leaves out the bias",) and d.numerics.linear.rounding == "truncate"
    assert "rounds up (ceiling)" in d.ruled_out and all(left > 0 for left in d.ruled_out.values())


def test_places_are_told():
    problem = build("conv2d/onnx/n1c12h9w9-oc16k3p1/neartie/seed=0/per_channel/intbias")
    x = problem["x"]
    padded = np.pad(x.values, ((0, 0), (0, 0), (1, 1), (1, 1)))
    bits = rq.ops.conv2d(rq.QTensor(padded, x.qparams), problem["w"], problem["bias"], out=problem["out"], numerics="onnx")
    d = diagnose("conv2d", actual=bits, numerics="onnx", **problem.arguments)
    assert d.names[0].startswith("padding_code") and "all at the border of the image" in d.places
    assert "pads with code 0 in place of the input's zero point" in d.causes


def test_profiles_are_named():
    problem, bits = problem_and_bits("linear/onnx/m400k64n64/neartie/seed=0/per_channel", "onednn", "fbgemm", 40)
    d = diagnose("linear", actual=bits, numerics="onednn", **problem.arguments)
    assert d.causes == ("computes as the profiles fbgemm and x86 do",) and d.numerics == numerics.get("fbgemm")
    assert {"fbgemm", "x86"} <= set(d.profiles) and len(d.means) > 1


def test_a_profile_of_ones_own_and_packed_weights():
    mine = numerics.get("onnx").replace(name="mine", rounding="half_away")
    problem, bits = problem_and_bits("linear/onnx/m200k48n24/neartie/seed=0/per_channel", mine, "onnx")
    arguments = {**problem.arguments, "w": rq.ops.pack_weights(problem["w"])}
    d = diagnose("linear", actual=bits, numerics=mine, **arguments)
    assert d.against == "mine" and d.explained and d.causes == ("rounds half to even",)
    assert "mine.replace(linear={'rounding': 'half_even'})" in str(d)


def test_products_of_tensors_and_functions():
    rng = np.random.default_rng(1)
    a, b = (rq.QTensor(rng.integers(0, 256, (2, 5, 7, 7)).astype(np.uint8), rq.QParams(s, z, "uint8")) for s, z in ((0.03, 120), (0.02, 131)))
    out = rq.QParams(0.0125, 129, "uint8")
    wide = rq.ops.mul(a, b, out=rq.QParams(0.0125, 129, "int32"), numerics="fbgemm").values
    d = diagnose("mul", actual=wide.astype(np.uint8), numerics="fbgemm", a=a, b=b, out=out)
    assert d.names == ("output_wraps",)
    stale = rq.ops.mul(a, b, out=rq.QParams(0.0125, 122, "uint8"), numerics="fbgemm")
    d = diagnose("mul", actual=stale, numerics="fbgemm", a=a, b=b, out=out)
    assert d.causes == ("uses the output zero point 122 in place of 129",)
    q = rq.QTensor(a.values, rq.QParams(0.03, 0, "uint8"))
    theirs = rq.ops.sigmoid(q, numerics="fbgemm")
    d = diagnose("sigmoid", actual=theirs, numerics="fbgemm", x=a)
    assert d.explained and d.names == ("zero_point_ignored[x]",) and d.separating_case() is None


def test_codes_in_a_wider_dtype_are_taken():
    problem, bits = problem_and_bits("linear/onnx/m20k8n4/neartie/seed=0", "onnx", ONNX.replace(rounding="truncate"))
    assert diagnose("linear", actual=bits.astype(np.int64), numerics="onnx", **problem.arguments).explained


def test_wrong_calls_are_refused():
    problem = build("conv2d/onnx/n1c3h5w5-oc4k3p1/neartie/seed=0")
    bits = oracle(problem, "onnx")
    with pytest.raises(ShapeError, match="looks like NHWC"):
        diagnose("conv2d", actual=np.moveaxis(bits, 1, -1), numerics="onnx", **problem.arguments)
    with pytest.raises(ShapeError, match="the operator gives"):
        diagnose("conv2d", actual=bits[:, :2], numerics="onnx", **problem.arguments)
    with pytest.raises(ArgumentError, match="codes of that dtype"):
        diagnose("conv2d", actual=bits.astype(np.float32), numerics="onnx", **problem.arguments)
    with pytest.raises(ArgumentError, match="did you mean 'padding'"):
        diagnose("conv2d", actual=bits, numerics="onnx", **problem.arguments, paddin=1)
    with pytest.raises(ArgumentError, match="argument w is missing"):
        diagnose("conv2d", actual=bits, numerics="onnx", x=problem["x"])
    with pytest.raises(ArgumentError, match="did you mean 'conv2d'"):
        diagnose("conv2", actual=bits, numerics="onnx", **problem.arguments)
    with pytest.raises(ArgumentError, match="choose one of"):
        diagnose("conv2d", actual=bits, numerics="nobody", **problem.arguments)


def test_the_account_of_what_differs():
    problem, bits = problem_and_bits("linear/onnx/m60k48n24/neartie/seed=0/per_channel/intbias", "onnx", numerics.get("onnx").replace(rounding="half_away"), 2)
    d = diagnose("linear", actual=bits, numerics="onnx", **problem.arguments)
    expected = oracle(problem, "onnx")
    a, w = d.account, d.account.worst
    assert a.histogram == {k: int((bits.astype(int) - expected == k).sum()) for k in a.histogram} and sum(a.histogram.values()) == d.differing
    assert a.ties == 1.0, "half away differs on ties alone"
    assert (w.actual, w.expected) == (bits[w.index], expected[w.index])
    x, weights = problem["x"], problem["w"]
    acc = (x.values[w.index[0]].astype(int) - x.qparams.zero_point) @ (weights.values[w.index[1]].astype(int))
    unit = x.qparams.scale * weights.qparams.scale[w.index[1]]
    assert w.accumulator == acc and w.multiplier == unit / problem["out"].scale
    assert w.real == pytest.approx((acc + problem["bias"][w.index[1]]) * unit / problem["out"].scale, rel=1e-12)
    assert "100 % on a tie" in str(d) and f"accumulator {acc:,}" in str(d) and "actual - expected in LSB" in str(d)


def test_saturated_and_tailing_outputs_are_told():
    from refquant.verify.diagnosis.places import describe_places

    problem = build("quantize/onnx/n1000/random/seed=0")
    q = problem["qparams"]
    bits = np.minimum(oracle(problem, "onnx"), 200)
    d = diagnose("quantize", actual=bits, numerics="onnx", x=problem["x"], qparams=rq.QParams(q.scale, q.zero_point, "uint8"), seconds=0.2)
    top = oracle(problem, "onnx") == 255
    assert d.account.saturated == pytest.approx((top & (bits != 255)).sum() / d.differing) and d.account.worst.accumulator is None
    e = np.zeros(100, np.uint8)
    a = e.copy()
    a[[97, 99]] = 3
    assert describe_places((100,), np.array([97, 99]), e, a)[0] == "all in the last 4 of 100 elements, beyond whole blocks of 32"
    rows = np.zeros((5, 30), np.uint8)
    assert "all in row 2 of 5" in describe_places((5, 30), np.arange(60, 90), rows.reshape(-1), rows.reshape(-1) + np.uint8(1))


@pytest.mark.parametrize("line", ["add/onnxruntime/n1023/neartie/seed=18/int8/broadcast", "mul/onnxruntime/n1000/telling/seed=7/broadcast"])
def test_operands_that_broadcast(line):
    arguments = {k: v for k, v in build(rq.verify.Case.parse(line)).arguments.items() if v is not None}
    assert arguments["a"].shape != arguments["b"].shape
    zero = int(arguments["a"].qparams.zero_point)
    moved = rq.QParams(arguments["a"].qparams.scale, zero - 1 if zero > 100 else zero + 1, arguments["a"].dtype)
    actual = getattr(rq.ops, line[:3])(**{**arguments, "a": rq.QTensor(arguments["a"].values, moved)}, numerics="onnxruntime").values
    found = diagnose(line[:3], actual=actual, numerics="onnxruntime", **arguments)
    assert found.explained and found.causes == (f"uses the zero point {int(moved.zero_point)} for a in place of {zero}",)


@pytest.mark.parametrize("shift", [1, -1, 9])
def test_a_moved_zero_point_is_found_from_five_outputs_that_no_limit_cuts(shift):
    problem = build("mul/onnxruntime/n2c5/random/seed=17/int8/broadcast")
    q = problem["out"]
    moved = {**problem.arguments, "out": rq.QParams(q.scale, q.zero_point + shift, q.dtype)}
    found = diagnose("mul", actual=rq.ops.mul(**moved, numerics="onnxruntime").values, numerics="onnxruntime", **problem.arguments)
    assert found.causes == (f"uses the output zero point {q.zero_point + shift} in place of {q.zero_point}",)


@pytest.mark.parametrize("zero", [126, 125, -128])
def test_a_moved_zero_point_of_an_operand_is_found_from_four_such_outputs(zero):
    problem = build("mul/onnxruntime/n2c5/random/seed=17/int8/broadcast")
    a = problem["a"]
    moved = {**problem.arguments, "a": rq.QTensor(a.values, rq.QParams(a.qparams.scale, zero, a.dtype))}
    found = diagnose("mul", actual=rq.ops.mul(**moved, numerics="onnxruntime").values, numerics="onnxruntime", **problem.arguments)
    assert found.causes == (f"uses the zero point {zero} for a in place of 127",)
