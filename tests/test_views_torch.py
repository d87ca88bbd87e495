"""PyTorch on views: strides that are neither contiguous nor channels last, on codes that lie on ties, where the vector body and the scalar tail part ways."""

from itertools import islice

import numpy as np
import pytest

from refquant import backends
from refquant.core.layout import is_channels_last, to_channels_last
from refquant.core.qparams import QParams
from refquant.core.qtensor import QTensor
from refquant.errors import UnsupportedError
from refquant.ops.softmax import softmax
from refquant.ops.tensor_iterator import loop_of
from refquant.verify import case_stream, try_case
from refquant.verify.build import build
from refquant.verify.compare import Status, compare
from refquant.verify.problem import Problem, oracle
from refquant.verify.views import VIEWS as WORDS

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.engine

OUT = QParams(1.0, 1, "uint8")


def inside(x, before, after, axis):
    """Lay `x` into a larger array, whose other numbers are all 7."""
    width = [(before, after) if d == axis % x.ndim else (0, 0) for d in range(x.ndim)]
    big = np.pad(x, width, constant_values=7)
    return big[tuple(slice(b, b + n) for (b, _), n in zip(width, x.shape))]


def stepped(x, axis):
    big = np.repeat(x, 2, axis=axis)
    return big[tuple(slice(None, None, 2) if d == axis % x.ndim else slice(None) for d in range(x.ndim))]


def permuted(x, *order):
    return np.ascontiguousarray(x.transpose(order)).transpose(np.argsort(order))


def last(function):
    """The same done to an image that lies channels last, along its channels or columns."""
    return lambda x: np.moveaxis(function(np.ascontiguousarray(np.moveaxis(x, 1, -1))), -1, 1)


VIEWS = {
    "reversed": lambda x: permuted(x, *reversed(range(x.ndim))),
    "rows and columns": lambda x: permuted(x, *range(x.ndim - 2), x.ndim - 1, x.ndim - 2),
    "outer axes": lambda x: permuted(x, 1, 0, *range(2, x.ndim)),
    "slice": lambda x: inside(x, 2, 5, -1),
    "slice of rows": lambda x: inside(x, 1, 3, 1),
    "every other": lambda x: stepped(x, -1),
    "every other row": lambda x: stepped(x, 0),
    "one for all": lambda x: np.broadcast_to(x[1:2], x.shape),
    "one along rows": lambda x: np.broadcast_to(x[..., :1], x.shape),
    "channels last": to_channels_last,
    "channels last, slice of channels": last(lambda x: inside(x, 2, 5, -1)),
    "channels last, slice of columns": last(lambda x: inside(x, 1, 2, -2)),
    "channels last, every other channel": last(lambda x: stepped(x, -1)),
}
SHAPE = (3, 70, 5, 9)


def on_ties(dtype, rng):
    return (rng.integers(0, 40, SHAPE) * 2 + 1).astype(dtype)


def arguments_of(op, view, dtype, second=None):
    rng = np.random.default_rng(5)
    out = QParams(OUT.scale, OUT.zero_point, dtype)
    x = QTensor(view(on_ties(dtype, rng)), QParams(0.5, 0, dtype))
    if op in ("add", "mul"):
        b = QTensor((second or view)(on_ties(dtype, rng) - dtype(1)), QParams(0.5, 0, dtype))
        return {"a": x, "b": b, "out": out, "activation": None}
    more = {"leaky_relu": {"negative_slope": 0.5}, "elu": {"alpha": 1.0}, "celu": {"alpha": 1.0}}.get(op, {})
    if op == "threshold":
        return {"x": x, "threshold": 20.0, "value": 0.25}
    return {"x": x, **({} if op in ("tanh", "hardsigmoid", "gelu") else {"out": out}), **more}


def same(engine, problem):
    theirs, ours = engine.run(problem), oracle(problem, engine.profile)
    assert compare(theirs, ours).exact
    assert is_channels_last(theirs) == is_channels_last(ours)
    assert np.array_equal(oracle(problem, engine.profile, reference=True), ours)
    return ours


@pytest.fixture(scope="module")
def engine():
    return backends.load("fbgemm")


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("op", ["add", "mul", "leaky_relu", "elu", "celu", "hardswish", "sigmoid", "tanh", "hardsigmoid", "gelu", "threshold"])
def test_elementwise(engine, op, name):
    for dtype in (np.uint8, np.int8):
        same(engine, Problem(op, arguments_of(op, VIEWS[name], dtype)))


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_beside_a_copy(engine, name):
    for first, second in ((VIEWS[name], np.ascontiguousarray), (np.ascontiguousarray, VIEWS[name]), (to_channels_last, VIEWS[name])):
        same(engine, Problem("add", arguments_of("add", first, np.uint8, second)))


@pytest.mark.parametrize("op", ["add", "elu", "leaky_relu"])
def test_these_codes_tell_views_from_copies(engine, op):
    told = set()
    for name, view in VIEWS.items():
        problem = Problem(op, arguments_of(op, view, np.uint8))
        copied = Problem(op, {k: QTensor(np.ascontiguousarray(v.values), v.qparams) if isinstance(v, QTensor) else v for k, v in problem.arguments.items()})
        if not np.array_equal(engine.run(problem), engine.run(copied)):
            told.add(name)
    wanted = {"add": set(VIEWS) - {"slice of rows", "every other row"}, "elu": set(), "leaky_relu": set()}[op]
    assert told >= wanted, set(VIEWS) - told
    assert op != "leaky_relu" or told <= {name for name in VIEWS if name.startswith("channels")}


def test_views_by_threads(engine):
    wide = np.full((500, 150), 1, np.uint8)
    for view in (wide[:, :140], wide.T, wide[::2]):
        x = QTensor(view, QParams(0.25, 0, "uint8"))
        for threads in (1, 2, 3):
            same(engine, Problem("add", {"a": x, "b": x, "out": OUT, "activation": None, "threads": threads}))
            same(engine, Problem("sigmoid", {"x": x, "out": QParams(1 / 64, 1, "uint8"), "threads": threads}))


def test_random_strides(engine):
    """Gaps, steps, permutations and repetitions at random, of both operands; a loop that knows fewer rules fails it."""
    rng = np.random.default_rng(11)
    ways, joined = set(), 0
    for _ in range(300):
        shape = tuple(int(n) for n in rng.permutation([*rng.choice([65, 130], rng.integers(1, 3)), *rng.choice([1, 2, 3], rng.integers(0, 3))]))
        a, b = (_strided(rng, shape) for _ in "ab")
        if rng.random() < 0.4:
            b = a
        same(engine, Problem("add", {"a": QTensor(a, QParams(0.25, 0, "uint8")), "b": QTensor(b, QParams(0.25, 0, "uint8")), "out": OUT, "activation": None}))
        loop = loop_of(np.empty(shape, np.uint8), a, b)
        ways.add((loop.vectorized, loop.row == a.size, loop.row in shape))
        joined += loop.vectorized and loop.row < a.size
    assert len(ways) >= 4 and joined > 20, (ways, joined)


def _strided(rng, shape):
    order = rng.permutation(len(shape)) if rng.random() < 0.4 else np.arange(len(shape))
    strides, step = [0] * len(shape), int(rng.choice([1, 1, 1, 2]))
    for d in reversed(order):
        strides[d] = 0 if rng.random() < 0.1 else step
        step *= shape[d] + int(rng.choice([0, 0, 0, 3]))
    return np.lib.stride_tricks.as_strided(np.ones(step + 8, np.uint8), shape, strides)


LINES = (
    "avg_pool2d/fbgemm/n3c35h7w7-k3s2p1/neartie/seed=1", "adaptive_avg_pool2d/fbgemm/n5c13h8w6-o3x2/neartie/seed=1", "adaptive_avg_pool2d/fbgemm/n4c70h5w9/neartie/seed=2",
    "group_norm/fbgemm/n2c48h9w9-g4/neartie/seed=3/affine", "instance_norm/fbgemm/n2c35h9w9/neartie/seed=4/affine", "mean/fbgemm/n9c35h4w5/neartie/seed=5",
    "max_pool2d/fbgemm/n3c35h9w7-k3s2p1/random/seed=6", "interpolate/fbgemm/n2c35h5w6-o8x9/neartie/seed=7/bilinear", "batch_norm/fbgemm/n3c35h5w6/neartie/seed=8",
    "layer_norm/fbgemm/m35n70/neartie/seed=9", "softmax/fbgemm/n3c35h5w6/neartie/seed=10", "prelu/fbgemm/n3c35h5w6/neartie/seed=11", "requantize/fbgemm/n3c35h5w6/neartie/seed=12",
    "conv2d/fbgemm/n2c16h9w9-oc16k3p1/neartie/seed=13", "linear/fbgemm/m35k70n17/neartie/seed=14", "quantize/fbgemm/n3c35h5w6/edges/seed=15", "dequantize/fbgemm/n3c35h5w6/random/seed=16",
    "add_scalar/fbgemm/n3c35h5w6/neartie/seed=17", "clamp/fbgemm/n3c35h5w6/neartie/seed=18",
)  # fmt: skip


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.partition("/")[0])
def test_other_operators(engine, line):
    problem, asked = build(line), 0
    key = "q" if "q" in problem.arguments else "x"
    x = problem[key]
    for name, view in VIEWS.items():
        values = x.values if isinstance(x, QTensor) else x
        if values.ndim < 4 and name.startswith("channels"):
            continue
        changed = Problem(problem.op, {**problem.arguments, key: QTensor(view(values), x.qparams) if isinstance(x, QTensor) else view(values)})
        if engine.supports(changed) is None:
            theirs, ours = engine.run(changed), oracle(changed, engine.profile)
            assert compare(theirs, ours).exact, name
            asked += 1
    assert asked > 7


def test_what_pytorch_mixes_up_is_not_asked(engine):
    image = QTensor(np.ones((5, 7, 3), np.uint8).transpose(2, 0, 1)[None], QParams(1.0, 0, "uint8"))
    assert "another order" in engine.supports(Problem("max_pool2d", {"x": image, "kernel_size": 2}))
    pixel = QTensor(np.ones((2, 3, 1, 1), np.uint8), QParams(1.0, 0, "uint8"))
    assert "another order" in engine.supports(Problem("interpolate", {"x": pixel, "size": (2, 2), "mode": "nearest"}))
    assert engine.supports(Problem("adaptive_avg_pool2d", {"x": pixel, "output_size": 1})) is None
    assert "uninitialized" in engine.supports(Problem("instance_norm", {"x": pixel, "eps": 1e-5, "out": OUT}))


SLICES = {
    "dense": lambda x: x, "transposed": lambda x: x.swapaxes(-1, -2), "columns": lambda x: x[..., 1:], "rows": lambda x: x[::2], "steps": lambda x: x[..., ::2],
    "turned": lambda x: x.swapaxes(0, 1), "channels last": lambda x: np.moveaxis(x, -1, 1), "channels": lambda x: np.moveaxis(x, -1, 1)[:, :5],
}  # fmt: skip


@pytest.mark.parametrize("cut", SLICES)
@pytest.mark.parametrize("dim", (0, 1, 2, 3))
@pytest.mark.filterwarnings("ignore")
def test_qnnpacks_softmax_reads_rows_in_a_line(cut, dim):
    """The engine itself, its defect and what is meant; these two differ where gaps or turned axes lie between side-by-side rows."""
    values = SLICES[cut](np.random.default_rng(dim).integers(0, 60, (4, 6, 5, 8)).astype(np.uint8))
    x, out = QTensor(values, QParams(0.1, 3, "uint8")), QParams(1 / 256, 0, "uint8")
    from refquant.backends.torch_tensors import engine, quantized

    with engine("qnnpack"):
        laid = quantized(x)
        theirs = torch.ops.quantized.softmax(laid, dim, 1 / 256, 0).int_repr().numpy()
    assert laid.stride() == values.strides
    as_it_is, meant = (softmax(x, dim, out=out, numerics=name).values for name in ("qnnpack+softmax_in_a_line", "qnnpack"))
    assert np.array_equal(theirs, as_it_is)
    in_a_line = values.strides[dim] == 1 and cut not in ("dense", "channels last")
    assert (as_it_is != meant).any() == in_a_line


def test_memory_behind_a_tensor_is_not_read():
    x = QTensor(np.broadcast_to(np.arange(8, dtype=np.uint8), (3, 8)), QParams(0.1, 3, "uint8"))
    with pytest.raises(UnsupportedError, match="memory behind it"):
        softmax(x, 1, out=QParams(1 / 256, 0, "uint8"), numerics="qnnpack+softmax_in_a_line")


@pytest.mark.parametrize("op", ["add", "mul", "sigmoid", "hardswish", "gelu", "prelu", "cat", "avg_pool2d", "mean", "softmax", "interpolate", "group_norm", "quantize"])
def test_views_of_default_cases(engine, op):
    asked = 0
    for case in islice(case_stream(op, engine.profile, seed=3), 90):
        if any(case.has(name) for name in WORDS):
            trial = try_case(engine, case)
            assert trial.outcome.status in (Status.EXACT, Status.UNTRUSTED), (case, trial.outcome)
            asked += trial.outcome.status is Status.EXACT
    assert asked >= 5


def test_qnnpacks_softmax_looks_up_a_negative_axis():
    problem = build("softmax/qnnpack/n1c3h5w7/telling/seed=9/transposed")
    with pytest.raises(IndexError):
        backends.load("qnnpack").run(problem)
    assert "count it from the front" in backends.load("qnnpack").supports(problem)
