"""The names that other people's code is written against: they exist, take what was promised, and do it. Everything else is free to change."""

import inspect

import numpy as np
import pytest

import refquant as rq
from refquant import errors, workflow
from refquant.cli.main import COMMANDS, parser_of
from refquant.data import load_split
from refquant.graph import Model
from refquant.testing import assert_bitexact

# What stands before `...` comes first, in this order and with these defaults; more may follow.
PROMISED = {
    "QParams": "scale, zero_point, dtype, axis=None, ...",
    "QTensor": "values, qparams, ...",
    "quantize": "x, qparams, *, numerics='fbgemm', ...",
    "dequantize": "q, *, numerics='fbgemm', ...",
    "fake_quantize": "x, qparams, *, numerics='fbgemm', ...",
    "set_num_threads": "n",
    "ops.linear": "x, w, bias=None, *, out=None, numerics='fbgemm', activation=None, isa=None, ...",
    "ops.conv2d": "x, w, bias=None, *, stride=1, padding=0, dilation=1, groups=1, out=None, numerics='fbgemm', activation=None, isa=None, ...",
    "ops.add": "a, b, *, out, numerics='fbgemm', ...",
    "ops.matmul_integer": "a, b, *, isa=None, ...",
    "ops.pack_weights": "w, ...",
    "numerics.names": "",
    "numerics.get": "numerics",
    "observers.HistogramObserver": "bins=2048, dtype='quint8', qscheme='per_tensor_affine', reduce_range=False, quant_min=None, quant_max=None, ...",
    "interop.from_onnx": "source, ...",
    "interop.from_torch": "module, example_inputs=None, ...",
    "workflow.QConfigMapping": "...",
    "workflow.get_default_qconfig_mapping": "backend='x86', ...",
    "workflow.prepare_fx": "model, qconfig_mapping, example_inputs, prepare_custom_config=None, backend_config=None, ...",
    "workflow.convert_fx": "prepared, ...",
    "workflow.X86InductorQuantizer": "...",
    "workflow.prepare_pt2e": "model, quantizer, ...",
    "workflow.convert_pt2e": "prepared, ...",
    "testing.assert_bitexact": "actual, expected, ...",
    "verify.diagnose": "op, *, actual, numerics='fbgemm', ...",
}

COMMANDS_PROMISED = (
    "verify --engine fbgemm --op linear --outputs 1000 --seed 1", "diagnose case.npz", "drift digits_resnet --data images.npz --html out.html",
    "simulate digits_resnet --machine zen5 --cores 4", "profiles", "profiles fbgemm onednn", "bench",
)  # fmt: skip


def broken_promise(function, promised):
    """Return what a signature lacks of the promised one, None where it keeps it."""
    more = promised.endswith("...")
    expected = list(inspect.signature(eval(f"lambda {promised.removesuffix('...').rstrip(', ')}: None")).parameters.values())
    found = inspect.signature(function).parameters
    for p in expected:
        kept = found.get(p.name)
        if kept is None or kept.default != p.default:
            return f"{p} is not there"
        if p.kind is p.POSITIONAL_OR_KEYWORD and (kept.kind is not p.kind or list(found)[expected.index(p)] != p.name):
            return f"{p.name} has another place"
    extra = [p for name, p in found.items() if name not in [e.name for e in expected] and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if any(p.default is p.empty for p in extra) or (extra and not more):
        return f"{extra[0].name} is asked for besides"
    return None


@pytest.mark.parametrize("name", PROMISED)
def test_a_public_name_takes_what_was_promised(name):
    function = rq
    for part in name.split("."):
        function = getattr(function, part)
    assert broken_promise(function, PROMISED[name]) is None


@pytest.mark.parametrize("function", [lambda x: None, lambda y, x=1: None, lambda x, *, y=2: None, lambda x, y=1, *, z: None, lambda x, *, y=1: None])
def test_a_broken_promise_is_found(function):
    assert broken_promise(lambda x, y=1, z=0: None, "x, y=1, ...") is None
    assert broken_promise(function, "x, y=1, ...")


@pytest.mark.parametrize("line", COMMANDS_PROMISED)
def test_a_command_understands_what_was_promised(line):
    name, *arguments = line.split()
    assert parser_of({c.name: c for c in COMMANDS}[name])[1].parse(arguments) is not None


@pytest.mark.parametrize("name, base", [("ArgumentError", ValueError), ("ShapeError", ValueError), ("RangeError", ValueError), ("UnsupportedError", NotImplementedError), ("BackendMissing", ImportError)])
def test_errors_are_what_callers_catch(name, base):
    assert issubclass(getattr(errors, name), base) and issubclass(getattr(errors, name), errors.RefquantError)


def test_operators_give_what_was_promised():
    rng = np.random.default_rng(0)
    x, bias = rng.standard_normal((4, 32)).astype(np.float32), rng.standard_normal(8).astype(np.float32)
    qp = rq.QParams(scale=0.05, zero_point=128, dtype="uint8")
    xq = rq.quantize(x, qp, numerics="fbgemm")
    assert (xq.values.dtype, xq.qparams, rq.dequantize(xq, numerics="fbgemm").dtype) == (np.uint8, qp, np.float32)
    np.testing.assert_array_equal(rq.fake_quantize(x, qp, numerics="fbgemm"), rq.dequantize(xq, numerics="fbgemm"))
    wq = rq.QTensor(rng.integers(-127, 128, (8, 32)).astype(np.int8), rq.QParams(np.full(8, 0.01), np.zeros(8, int), "int8", axis=0))
    y = rq.ops.linear(xq, wq, bias, out=qp, numerics="fbgemm", activation="relu")
    assert (y.values.dtype, y.shape, rq.ops.linear(xq, wq, bias, out=None, numerics="fbgemm").dtype) == (np.uint8, (4, 8), np.float32)
    image = rq.quantize(x.reshape(1, 2, 8, 8), qp)
    kernel = rq.QTensor(rng.integers(-127, 128, (3, 2, 3, 3)).astype(np.int8), rq.QParams(0.02, 0, "int8"))
    assert rq.ops.conv2d(image, kernel, None, stride=1, padding=1, dilation=1, groups=1, out=qp, numerics="onednn").shape == (1, 3, 8, 8)
    assert rq.ops.add(xq, xq, out=qp, numerics="onnxruntime").qparams == qp
    a, b = xq.values, np.ascontiguousarray(wq.values.T)
    np.testing.assert_array_equal(rq.ops.matmul_integer(a, b), a.astype(np.int64) @ b)
    np.testing.assert_array_equal(rq.ops.matmul_integer(a, rq.ops.pack_weights(b)), rq.ops.matmul_integer(a, b))
    full = np.full((1, 2), 255, np.uint8), np.full((2, 1), 127, np.int8)
    assert int(rq.ops.matmul_integer(*full, isa="avx2")[0, 0]) == 32767 and int(rq.ops.matmul_integer(*full)[0, 0]) == 2 * 255 * 127
    mine = rq.numerics.get("fbgemm").replace(rounding="half_away")
    assert mine.quantize.rounding is mine.linear.rounding is rq.Round.HALF_AWAY and len(rq.numerics.names()) >= 12


def test_observers_workflows_and_the_oracle_give_what_was_promised():
    x = load_split("digits", "calibration")[0][:8]
    observer = rq.observers.HistogramObserver(dtype="uint8", reduce_range=True)
    observer(x)
    assert observer.calculate_qparams().dtype == "uint8"
    model = rq.zoo.load("digits_resnet")
    (y,) = model(x)
    assert isinstance(model, Model) and len({n.name for n in model.nodes}) == len(model.nodes) and "hooks" in inspect.signature(model.run).parameters
    prepared = workflow.prepare_fx(model, workflow.get_default_qconfig_mapping("x86"), example_inputs=(x,))
    prepared(x)
    (codes,) = workflow.convert_fx(prepared)(x)
    assert codes.shape == y.shape
    quantizer = workflow.X86InductorQuantizer().set_global(workflow.get_default_x86_inductor_quantization_config())
    prepared = workflow.prepare_pt2e(model, quantizer)
    prepared(x)
    assert workflow.convert_pt2e(prepared)(x)[0].shape == y.shape
    q = rq.quantize(x[0, 0], rq.QParams(0.05, 128, "uint8"))
    assert_bitexact(q.values, q.values.copy())
    with pytest.raises(AssertionError):
        assert_bitexact(q.values, q.values ^ 1)
    found = rq.verify.diagnose("quantize", actual=q.values, x=x[0, 0], qparams=q.qparams, numerics="fbgemm")
    assert found.explained and not found.causes and isinstance(found.numerics, rq.numerics.Numerics)


def test_a_backend_for_onnx_is_there():
    base = pytest.importorskip("onnx.backend.base")
    assert issubclass(rq.interop.RefquantBackend, base.Backend) and all(callable(getattr(rq.interop.RefquantBackend, name)) for name in ("prepare", "run_model", "run_node"))
