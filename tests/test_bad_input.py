"""Bad input: each public call answers with an error of refquant's own, before anything is computed, allocated or written."""

import numpy as np
import pytest

import refquant as rq
from refquant.errors import ArgumentError, RangeError, RefquantError, ShapeError, UnsupportedError
from refquant.numerics.coverage import absence
from refquant.verify import Case, Problem, build, campaign, case_stream, check, compare, default_cases, oracle, runner, save_case

QP = rq.QParams(0.5, 3, "uint8")
X2, W2 = rq.QTensor(np.ones((2, 3), np.uint8), QP), rq.QTensor(np.ones((4, 3), np.int8), rq.QParams(0.5, 0, "int8"))
X4, W4 = rq.QTensor(np.ones((1, 2, 4, 4), np.uint8), QP), rq.QTensor(np.ones((3, 2, 2, 2), np.int8), rq.QParams(0.5, 0, "int8"))
X5 = rq.QTensor(np.ones((1, 2, 3, 4, 4), np.uint8), QP)
RAGGED = [[1], [2, 3]]
TABLE = rq.ops.quantize_embedding(np.ones((3, 4), np.float32))
HUGE = 10**9


def linear(**changes):
    return rq.ops.linear(**{"x": X2, "w": W2, "out": QP, **changes})


def conv(**changes):
    return rq.ops.conv2d(**{"x": X4, "w": W4, "out": QP, **changes})


CALLS = {
    "an array for a name": (lambda: linear(numerics=np.ones(3)), ArgumentError, "name="),
    "an array for a choice": (lambda: rq.ops.interpolate(X4, 2, mode=np.ones(2)), ArgumentError, "mode="),
    "ragged codes": (lambda: rq.QTensor(RAGGED, QP), ArgumentError, "values cannot be made an array"),
    "a ragged zero point": (lambda: rq.QParams([0.1, 0.2], RAGGED, "uint8", axis=0), ArgumentError, "zero_point"),
    "an axis that is a text": (lambda: rq.QParams([0.1], [0], "int8", axis="a"), ArgumentError, "axis='a'"),
    "an axis that is NaN": (lambda: rq.QParams([0.1], [0], "int8", axis=float("nan")), ArgumentError, "axis=nan"),
    "a limit that is a text": (lambda: rq.QParams(0.1, 0, "int8", quant_min="a"), ArgumentError, "quant_min='a'"),
    "a limit that is None's opposite": (lambda: rq.QParams(0.1, 0, "int8", quant_max=float("inf")), ArgumentError, "quant_max=inf"),
    "a dtype that is a dict": (lambda: rq.QParams(0.1, 0, {"a": 1}), ArgumentError, "dtype="),
    "ragged numbers": (lambda: rq.quantize(RAGGED, QP), ArgumentError, "x cannot be made an array"),
    "a bias beyond int32": (lambda: linear(bias=np.array([0, 2**31, 0, 0])), RangeError, "bias spans .*2147483648"),
    "a bias of texts": (lambda: linear(bias=["a"] * 4), ArgumentError, "bias has dtype"),
    "a stride that is a text": (lambda: conv(stride="a"), ArgumentError, "stride='a'"),
    "a stride that is None": (lambda: conv(stride=None), ArgumentError, "stride=None"),
    "a stride that is NaN": (lambda: conv(stride=np.float32("nan")), ArgumentError, "stride="),
    "strides of texts": (lambda: conv(stride=("a", "b")), ArgumentError, "stride='a'"),
    "no stride": (lambda: conv(stride=0), RangeError, "stride=0"),
    "terabytes of padding": (lambda: conv(padding=HUGE), RangeError, "GiB"),
    "terabytes of output": (lambda: rq.ops.adaptive_avg_pool2d(X4, HUGE), RangeError, "GiB"),
    "terabytes of boxes": (lambda: rq.ops.adaptive_avg_pool3d(X5, HUGE), RangeError, "GiB"),
    "a window of terabytes": (lambda: rq.ops.max_pool2d(X4, HUGE, padding=HUGE // 2), RangeError, "GiB"),
    "a terabyte image": (lambda: rq.ops.interpolate(X4, HUGE), RangeError, "GiB"),
    "a terabyte factor": (lambda: rq.ops.interpolate(X4, scale_factor=1e9), RangeError, "GiB"),
    "an endless factor": (lambda: rq.ops.interpolate(X4, scale_factor=float("inf")), RangeError, "scale_factor"),
    "a factor that is a text": (lambda: rq.ops.interpolate(X4, scale_factor="a"), ArgumentError, "scale_factor='a'"),
    "terabytes between points": (lambda: rq.ops.conv_transpose2d(X4, rq.QTensor(np.ones((2, 3, 2, 2), np.int8), W4.qparams), stride=HUGE, out=QP), RangeError, "GiB"),
    "terabytes of integers": (lambda: rq.ops.conv_integer(X4.values, W4.values, padding=HUGE), RangeError, "GiB"),
    "a zero point that is NaN": (lambda: rq.ops.matmul_integer(X2.values, W2.values.T, a_zero_point=float("nan")), ArgumentError, "a_zero_point"),
    "half a zero point": (lambda: rq.ops.matmul_integer(X2.values, W2.values.T, b_zero_point=1.5), ArgumentError, "b_zero_point has dtype float64"),
    "half a zero point of a convolution": (lambda: rq.ops.conv_integer(X4.values, W4.values, x_zero_point=1.5), ArgumentError, "x_zero_point"),
    "half a divisor": (lambda: rq.ops.avg_pool2d(X4, 2, divisor_override=1.5), ArgumentError, "divisor_override=1.5"),
    "a divisor beyond int64": (lambda: rq.ops.avg_pool3d(X5, 2, divisor_override=2**70), RangeError, "divisor_override"),
    "half an axis": (lambda: rq.ops.mean(X4, 0.5), ArgumentError, "dim"),
    "an axis None": (lambda: rq.ops.softmax(X4, None), ArgumentError, "dim=None"),
    "an axis of a scalar": (lambda: rq.ops.softmax(rq.QTensor(np.uint8(3), QP), 0), ArgumentError, "0 dimensions"),
    "one tensor to join": (lambda: rq.ops.cat(X4, out=QP), ArgumentError, "must be a list"),
    "joined along a text": (lambda: rq.ops.cat([X4], "a", out=QP), ArgumentError, "dim='a'"),
    "a number that is a text": (lambda: rq.ops.mul_scalar(X4, "a"), ArgumentError, "number='a'"),
    "two numbers": (lambda: rq.ops.add_scalar(X4, np.ones(2)), ArgumentError, "number="),
    "a limit that is a list": (lambda: rq.ops.clamp(X4, [1, 2]), ArgumentError, "min="),
    "a slope that is a text": (lambda: rq.ops.leaky_relu(X4, "a", out=QP), ArgumentError, "negative_slope='a'"),
    "a slope that is NaN": (lambda: rq.ops.leaky_relu(X4, float("nan"), out=QP), RangeError, "negative_slope=nan"),
    "an alpha that is None": (lambda: rq.ops.elu(X4, None, out=QP), ArgumentError, "alpha=None"),
    "a threshold that is a text": (lambda: rq.ops.threshold(X4, "a", 0.0), ArgumentError, "threshold='a'"),
    "out 0": (lambda: rq.ops.sigmoid(X4, out=0), ArgumentError, "out must be a QParams"),
    "out as an array": (lambda: rq.ops.softmax(X4, out=np.ones(2)), ArgumentError, "out must be a QParams"),
    "out False": (lambda: rq.ops.avg_pool2d(X4, 2, out=False, numerics="onnx"), ArgumentError, "out must be a QParams"),
    "an eps that is a text": (lambda: rq.ops.layer_norm(X2, (3,), eps="a", out=QP), ArgumentError, "eps='a'"),
    "a shape of texts": (lambda: rq.ops.layer_norm(X2, "a", out=QP), ArgumentError, "normalized_shape"),
    "a mean of texts": (lambda: rq.ops.batch_norm(X4, ["a", "b"], [1, 1], out=QP), ArgumentError, "mean has dtype"),
    "a table of lists": (lambda: rq.ops.embedding_bag((RAGGED, [1], [1], 8), [0]), ArgumentError, "table.codes"),
    "a table that does not fit": (lambda: rq.ops.embedding_bag((TABLE.codes, TABLE.scale[:1], TABLE.bias, 8), [0]), ShapeError, "table has"),
    "half an offset": (lambda: rq.ops.embedding_bag(TABLE, [0, 1], [0, 0.5]), ArgumentError, "offsets has dtype"),
    "offsets in a matrix": (lambda: rq.ops.embedding_bag(TABLE, [0, 1], [[0, 1]]), ShapeError, "offsets"),
    "an alpha that is complex": (lambda: rq.ops.gemm(X2, rq.QTensor(np.ones((3, 2), np.int8), W2.qparams), alpha=1j, out=QP), ArgumentError, "alpha=1j"),
    "a shape that is a text": (lambda: rq.ops.reshape(X4, "a"), ShapeError, "cannot become a"),
    "half a start": (lambda: rq.ops.flatten(X4, 0.5), ArgumentError, "start_dim=0.5"),
    "half a group": (lambda: rq.ops.pack_weights(W4, groups=0.5), ArgumentError, "groups=0.5"),
    "a slope of an activation": (lambda: linear(numerics="onednn", activation=("leaky_relu", "a")), ArgumentError, "parameter 0='a'"),
    "a ragged batch": (lambda: rq.observers.MinMaxObserver()(RAGGED), ArgumentError, "the batch cannot be made an array"),
    "a percentile that is a text": (lambda: rq.observers.PercentileObserver(percentile="a"), ArgumentError, "percentile='a'"),
    "terabytes of bins": (lambda: rq.observers.HistogramObserver(bins=10**13), RangeError, "GiB"),
    "terabytes of bins that grow": (lambda: rq.observers.EntropyObserver(num_bins=10**13), RangeError, "GiB"),
    "a fixed scale that is a text": (lambda: rq.observers.FixedQParamsObserver("a", 0), ArgumentError, "scale has dtype"),
    "a range of texts": (lambda: rq.observers.qparams_from_range("a", 1.0, rq.observers.quant_limits("uint8")), ArgumentError, "min_val has dtype"),
    "no limits": (lambda: rq.observers.qparams_from_range(0.0, 1.0, None), ArgumentError, "limits must be QuantLimits"),
    "a letter twice": (lambda: build("conv2d/fbgemm/n1c9h9h9w9-oc1k1/random/seed=0"), ArgumentError, "must be letters"),
    "a large case": (lambda: build("conv2d/fbgemm/n1c9h1000000w1000000-oc1k1/random/seed=0"), RangeError, "GiB"),
    "a large product": (lambda: build("linear/fbgemm/m1k99999999n99999999/random/seed=0"), RangeError, "GiB"),
    "a case of many digits": (lambda: Case.parse(f"linear/fbgemm/m{'9' * 5000}k1n1/random/seed=0"), ArgumentError, "more than 18 digits"),
    "several rows": (lambda: Case.parse("linear/fbgemm/m2x3k1n1/random/seed=0"), ArgumentError, "must be one number"),
    "a stride of 0 on one side": (lambda: Case.parse("max_pool2d/any/n1c1h4w4-k2s0x1/random/seed=0"), ArgumentError, "s=0"),
    "a negative side": (lambda: Case(op="linear", profile="any", shape=(("m", -1), ("k", 1), ("n", 1)), strategy="random", seed=0), ArgumentError, "m=-1"),
    "a seed that is a text": (lambda: next(case_stream("linear", "fbgemm", seed="a")), ArgumentError, "seed='a'"),
    "a seed below 0": (lambda: next(case_stream("linear", "fbgemm", seed=-1)), RangeError, "seed=-1"),
    "outputs that are a text": (lambda: next(default_cases("linear", "fbgemm", outputs="a")), ArgumentError, "outputs='a'"),
    "a campaign of texts": (lambda: campaign(runner(max, numerics="onnx"), "linear", outputs="a"), ArgumentError, "outputs='a'"),
    "a campaign of nobody": (lambda: campaign(None, "linear", outputs=1), ArgumentError, "runner is a NoneType"),
    "a problem of nothing": (lambda: Problem(5, None), ArgumentError, "op=5"),
    "the answer to nothing": (lambda: oracle(None, "fbgemm"), ArgumentError, "problem is a NoneType"),
    "an argument that is unknown": (lambda: oracle(Problem("relu", {"x": X2, "y": 1}), "fbgemm"), ArgumentError, "argument='y'"),
    "an argument that is missing": (lambda: oracle(Problem("relu", {}), "fbgemm"), ArgumentError, "lacks x"),
    "a check of a number": (lambda: check(max, 5, numerics="onnx"), ArgumentError, "op=5"),
    "a check of one line": (lambda: check(max, numerics="onnx", cases="relu/any/n1/random/seed=0"), ArgumentError, "cases="),
    "ragged bits": (lambda: compare(RAGGED, [1]), ArgumentError, "actual cannot be made an array"),
    "a model's path that is None": (lambda: rq.load(None), ArgumentError, "must be the path of a file"),
    "a path with a NUL": (lambda: rq.load("a\0b"), ArgumentError, "must be the path of a file"),
    "save to None": (lambda: rq.save(rq.zoo.load("digits_resnet"), None), ArgumentError, "must be the path of a file"),
    "a case file at None": (lambda: save_case(None, "relu", x=X2), ArgumentError, "must be the path of a file"),
    "a case of an object": (lambda: save_case("nowhere/case", "relu", x=X2, actual=[object()]), ArgumentError, "actual has dtype object"),
    "a case of no operator": (lambda: save_case("nowhere/case", 5, x=X2), ArgumentError, "op is a int"),
}


@pytest.mark.parametrize("name", CALLS)
def test_is_refused(name):
    call, error, text = CALLS[name]
    with pytest.raises(error, match=text):
        call()


def test_every_message_says_what_to_do():
    for call, _, _ in CALLS.values():
        with pytest.raises(RefquantError) as caught:
            call()
        assert len(str(caught.value)) > 30 and "\n" not in str(caught.value), caught.value


@pytest.mark.parametrize("profile", rq.numerics.names())
@pytest.mark.parametrize("dtype", ["int32", "int16", "uint4"])
def test_products_write_eight_bits(profile, dtype):
    """No engine has another: a wider output would be a number of refquant's own."""
    out, w = rq.QParams(0.5, 0, dtype), rq.QTensor(W4.values.swapaxes(0, 1).copy(), W4.qparams)
    calls = {
        "linear": lambda: linear(out=out, numerics=profile),
        "conv2d": lambda: conv(out=out, numerics=profile),
        "conv_transpose2d": lambda: rq.ops.conv_transpose2d(X4, w, out=out, numerics=profile),
    }
    for op, call in calls.items():
        if not absence(op, profile):
            with pytest.raises(UnsupportedError, match=f"out has dtype {dtype}.*choose uint8 or int8"):
                call()


def test_numbers_that_are_no_python_numbers_are_taken():
    a = conv(stride=np.int64(2), padding=np.array([1, 1]))
    np.testing.assert_array_equal(a.values, conv(stride=2, padding=1).values)
    assert rq.ops.clamp(X4, np.float32(1.5)).values.max() == rq.ops.clamp(X4, 1.5).values.max()
    assert rq.ops.avg_pool2d(X4, np.int32(2), divisor_override=np.int64(3)).shape == (1, 2, 2, 2)
    problem = Problem("leaky_relu", {"x": X4, "negative_slope": np.float32(0.5), "out": QP})
    from refquant.verify import from_plain, to_plain

    assert from_plain(*to_plain(problem))["negative_slope"] == 0.5
