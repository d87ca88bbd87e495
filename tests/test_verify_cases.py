"""Cases: lines that print, parse and always give the same problem; streams that hold what they promise."""

from itertools import islice

import numpy as np
import pytest

from refquant import numerics
from refquant.errors import ArgumentError, UnsupportedError
from refquant.numerics.coverage import absence
from refquant.verify import OPTIONS, STRATEGIES, STREAMS, Case, build, case_stream, compare, default_cases, from_plain, oracle, to_plain
from refquant.verify.wide_stream import wide_stream


def arrays_of(problem):
    return to_plain(problem)[1]


@pytest.mark.parametrize("op", STREAMS)
@pytest.mark.parametrize("profile", numerics.names())
def test_lines_come_back(op, profile):
    for case in islice(case_stream(op, profile, seed=3), 60):
        assert Case.parse(str(case)) == case
        assert str(Case.parse(str(case))) == str(case)


@pytest.mark.parametrize("op", STREAMS)
def test_a_line_is_a_problem(op):
    for case in islice(case_stream(op, "onnxruntime"), 12):
        (plain, ref), (again, comp) = to_plain(build(case)), to_plain(build(str(case)))
        assert plain == again
        assert all(a.tobytes() == b.tobytes() for a, b in zip(ref, comp))


@pytest.mark.parametrize("op", STREAMS)
def test_another_seed_is_another_problem(op):
    case = next(case_stream(op, "fbgemm"))
    ref, comp = arrays_of(build(case)), arrays_of(build(case.replace(seed=case.seed + 1)))
    assert any(a.tobytes() != b.tobytes() for a, b in zip(ref, comp))


@pytest.mark.parametrize("op", STREAMS)
def test_problems_can_be_stored(op):
    for case in islice(case_stream(op, "onnx"), 6):
        problem = build(case)
        again = from_plain(*to_plain(problem))
        try:
            ref = oracle(problem, "onnx")
        except UnsupportedError:
            continue
        comp = oracle(again, "onnx")
        assert compare(comp, ref).exact
        assert [a.strides for a in _values(again)] == [a.strides for a in _values(problem)]


def _values(problem):
    return [q.values for q in problem.quantized() if hasattr(q, "values")]


@pytest.mark.parametrize("op", STREAMS)
def test_the_fast_path_and_the_reference_agree_on_default_cases(op):
    for case in islice(case_stream(op, "onnx"), 10):
        problem = build(case)
        try:
            assert compare(oracle(problem, "onnx"), oracle(problem, "onnx", reference=True)).exact, str(case)
        except UnsupportedError:
            continue


@pytest.mark.parametrize("op", STREAMS)
def test_default_cases_reach_their_outputs(op):
    profile = next(name for name in ("fbgemm", "onnxruntime", "tflite_ref") if not absence(op, name))
    sizes = [oracle(build(case), profile).size for case in default_cases(op, profile, outputs=3000)]
    assert sum(sizes) >= 3000 > sum(sizes[:-1])


@pytest.mark.parametrize("op", STREAMS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_makes_data_for_every_operator(op, strategy):
    for case in islice(case_stream(op, "fbgemm", seed=1), 4):
        case = case.replace(strategy=strategy)
        if case.outputs < 20_000 and len(dict(case.shape)) and dict(case.shape).get("k", 1) != 120001:
            assert build(case).op == op


def test_edges_of_a_single_product_are_all_pairs_of_edges():
    problem = build("linear/fbgemm/m129k1n257/edges/seed=0")
    x, w, zero = problem["x"].values[:, 0], problem["w"].values[:, 0], problem["x"].qparams.zero_point
    ends = {0, 1, 254, 255, zero} | {c for c in (zero - 1, zero + 1) if 0 <= c <= 255}
    assert set(x.tolist()) == ends and set(w.tolist()) == {-128, -127, -1, 0, 1, 126, 127}


@pytest.mark.parametrize("op", STREAMS)
def test_outputs_are_known_before_a_case_is_built(op):
    for case in islice(case_stream(op, "onnx", seed=4), 25):
        try:
            assert case.outputs == oracle(build(case), "onnx").size, str(case)
        except UnsupportedError:
            continue


def test_every_strategy_and_option_comes_up():
    cases = [case for op in STREAMS for profile in ("fbgemm", "onednn", "onnxruntime", "tflite_ref") for case in islice(wide_stream(op, profile), 225)]
    assert {case.strategy for case in cases} == set(STRATEGIES)
    assert {option for case in cases for option in case.options} == {str(option) for option in OPTIONS}


def test_near_ties_are_ties():
    """Of near-tie data, far more scaled sums lie on or beside half a code than the one in thousands of random scales."""
    near = []
    for seed in range(8):
        problem = build(f"linear/onnxruntime/m64k31n100/neartie/seed={seed}/nobias")
        x, w, out = problem["x"], problem["w"], problem["out"]
        acc = (x.values.astype(np.int64) - x.qparams.zero_point) @ (w.values.astype(np.int64) - w.qparams.zero_point).T
        scaled = acc * (x.qparams.scale * w.qparams.scale / out.scale)
        near.append(np.mean(np.abs(scaled - np.floor(scaled) - 0.5) < 1e-4))
    assert np.median(near) > 0.005


@pytest.mark.parametrize("line", [f"{op}/fbgemm/{shape}/wrap/seed=2" for op in ("linear", "conv2d", "matmul_integer") for shape in STREAMS[op].wrap])
def test_wrapping_data_leave_int32(line):
    problem = build(line)
    if problem.op == "matmul_integer":
        x, w, zero = problem["a"], problem["b"].T, 0
    else:
        x, w, zero = problem["x"].values, problem["w"].values, problem["x"].qparams.zero_point
    length = w[0].size
    acc = (x.reshape(x.shape[0], -1)[:, :length].astype(np.int64) - zero) @ w.reshape(w.shape[0], -1).T.astype(np.int64)
    assert np.abs(acc).max() >= 2**31


@pytest.mark.parametrize(
    "line, rule",
    [
        ("linear/fbgemm/m5k64n17/neartie", "must read operator/profile/shape/strategy/seed=N"),
        ("liner/fbgemm/m5k64n17/neartie/seed=1", "did you mean 'linear'"),
        ("linear/fbgemm/m5k64/neartie/seed=1", "the shape lacks n"),
        ("linear/fbgemm/m5k64n17z3/neartie/seed=1", "letter of the shape='z'"),
        ("linear/fbgemm/m5k64n17m5/neartie/seed=1", "each once"),
        ("linear/fbgemm/m5 k64n17/neartie/seed=1", "must be letters with numbers"),
        ("linear/fbgemm/m5k64n17/nearty/seed=1", "did you mean 'neartie'"),
        ("linear/fbgemm/m5k64n17/neartie/seed=-1", "must read"),
        ("linear/fbgemm/m5k64n17/neartie/seed=1/per_chanel", "did you mean 'per_channel'"),
        ("linear/f b/m5k64n17/neartie/seed=1", "one word"),
    ],
)
def test_a_wrong_line_says_what_is_wrong(line, rule):
    with pytest.raises(ArgumentError, match=rule.replace("(", r"\(").replace("[", r"\[")):
        Case.parse(line)


def test_what_cannot_be_stored_is_refused():
    from refquant.verify import Problem

    with pytest.raises(ArgumentError, match="cannot be stored"):
        to_plain(Problem("relu", {"x": object()}))
    with pytest.raises(ArgumentError, match="lacks or garbles"):
        from_plain({"op": "relu", "arguments": {"x": {"array": 7, "channels_last": False}}}, [])


@pytest.mark.parametrize("view", ["sliced", "stepped", "transposed", "expanded", "channels_last/sliced", "channels_last/stepped"])
def test_a_case_file_keeps_strides(view, tmp_path):
    from refquant.verify import load_case, save_case

    problem = build(f"add/fbgemm/n2c5h4w6/neartie/seed=1/{view}")
    save_case(tmp_path / "view.npz", "add", numerics="fbgemm", **problem.arguments)
    again = load_case(tmp_path / "view.npz").problem
    for role in "ab":
        assert again[role].values.strides == problem[role].values.strides
        assert again[role].values.tobytes() == problem[role].values.tobytes()
    assert np.array_equal(oracle(again, "fbgemm"), oracle(problem, "fbgemm"))


@pytest.mark.parametrize("strides, rule", [([1], "must be 2 numbers"), ([2, -1], "none negative"), ([1, 1.0], "none negative"), ([0, 1], "one that differ"), ([1 << 28, 1], "none negative|span"), (7, "must be 2 numbers")])
def test_strides_that_are_none_are_refused(strides, rule):
    array = np.arange(4, dtype=np.uint8).reshape(2, 2)
    with pytest.raises(ArgumentError, match=rule):
        from_plain({"op": "quantize", "arguments": {"x": {"array": 0, "channels_last": False, "strides": strides}}}, [array])
