"""Programs that TorchInductor compiles beside the oracle: what their layers read and compute, operators on special numbers, and that faults are found."""

import numpy as np
import pytest

from refquant.core.onednn_eltwise import onednn_gelu, onednn_swish
from refquant.errors import UnsupportedError
from refquant.ops import real

X = np.zeros((1, 2, 3, 4), np.float32)


@pytest.mark.parametrize(
    "compute",
    [
        lambda: real.conv2d(X, np.ones((1, 2, 1, 1), np.float32), order="inductor"),
        lambda: real.linear(X[0, 0], np.ones((1, 4), np.float32), order="inductor"),
        lambda: real.matmul(X, X.transpose(0, 1, 3, 2), order="inductor"),
        lambda: real.tanh(X, order="inductor"),
        lambda: real.gelu(X, "tanh", order="inductor"),
        lambda: real.interpolate(X, (6, 8), mode="bilinear", order="inductor"),
        lambda: real.layer_norm(X, np.ones(4, np.float32), np.ones(4, np.float32), order="inductor"),
        lambda: real.mean(X, (1, 2), order="inductor"),
        lambda: real.mean(np.zeros((2, 5000), np.float32), 1, order="inductor"),
    ],
)
def test_what_compiled_programs_compute_otherwise_is_refused(compute):
    with pytest.raises(UnsupportedError, match="not described"):
        compute()


def test_lanes_of_a_sum_are_added_crosswise():
    x = np.zeros((1, 16), np.float32)
    x[0, [0, 4, 1, 8]] = 2.0**24, -(2.0**24), 1, 1
    # Lane 0 holds 2**24 + 1, which rounds to 2**24; lane 4 takes it away before lane 1 comes.
    assert real.mean(x, 1, order="inductor").tolist() == [1 / 16]
    assert real.mean(x, 1, order="float64").tolist() == [2 / 16]


def test_chunks_of_a_long_sum_are_added_pairwise():
    x = np.zeros((1, 2, 8192 + 4096 + 1), np.float32)
    x[..., 0], x[..., 8191], x[..., 8192:] = 2.0**24, 1, 1
    ref = (np.float32(2.0**24) + np.float32(4096) + np.float32(1)) / np.float32(x.shape[2])
    comp = real.mean(np.ascontiguousarray(x.transpose(0, 2, 1)), 1, order="inductor")
    np.testing.assert_array_equal(comp, np.full((1, 2), ref))


torch = pytest.importorskip("torch")
pytest.importorskip("torchao")
pytestmark = pytest.mark.engine

from refquant.backends import torch_inductor  # noqa: E402
from refquant.backends.machine import profile_here  # noqa: E402
from refquant.backends.torch_module import to_torch  # noqa: E402
from refquant.cli import pt2e_parity  # noqa: E402
from refquant.cli.pt2e_networks import networks  # noqa: E402
from refquant.cli.pt2e_operators import OPERATORS, inputs_of, run_ours  # noqa: E402
from refquant.graph import Builder  # noqa: E402


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def prepared(name):
    model, batches = next(n for n in networks(40, 1) if n.name == name).build()
    return pt2e_parity._prepared(to_torch(model), model, batches, False, "float64", None), batches[-1]


@pytest.fixture(scope="module")
def digits():
    pair, x = prepared("digits_resnet")
    program = torch_inductor.run_compiled(pair[1], x)
    return pair, x, lambda theirs, inputs: program


def test_a_compiled_network(digits):
    """Its layers, sums taken in, and the average between them that generated C++ computes."""
    found = pt2e_parity.compare_layers(*digits, "inductor")
    assert found.verdict == "equal" and found.counts["layers"] == 9 and found.counts["sums"] == 3 and found.counts["numbers"] > 100_000, found


def test_another_order_of_sums_is_found(digits):
    found = pt2e_parity.compare_layers(*digits, "float64")
    assert found.verdict == "codes" and found.counts["differing"] > 0, found


def test_a_planted_fault_in_what_a_layer_reads_is_found(digits):
    pair, x, run = digits
    y, layers = run(None, None)
    read = layers[4].x.copy()
    read.reshape(-1)[7] ^= 1
    faulty = [*layers[:4], layers[4]._replace(x=read), *layers[5:]]
    found = pt2e_parity.compare_layers(pair, x, lambda theirs, inputs: (y, faulty), "inductor")
    assert (found.verdict, found.counts["differing"]) == ("codes", 1), found
    nudged = tuple(np.nextafter(v, np.float32(9)) for v in y)
    assert pt2e_parity.compare_layers(pair, x, lambda theirs, inputs: (nudged, layers), "inductor").verdict == "outputs"


def test_a_random_network_with_a_function_that_ends_in_float():
    """random-1: a swish whose float32 output is added to another layer's."""
    pair, x = prepared("random-1")
    found = pt2e_parity.compare_layers(pair, x, torch_inductor.run_lowered, "float64")
    assert found.verdict == "equal" and found.counts["layers"] == 6, found


def test_a_max_pool_on_codes_forgets_its_ceil_mode(monkeypatch):
    """What TorchInductor compiles makes 3 rows of 8 by a window of 3 and a stride of 2, where the graph says 4."""
    builder = Builder(seed=1)
    pool = builder.input("x", (None, 8, 8, 8)).conv2d(8, 1).max_pool2d(3, 2, ceil_mode=True)
    model = builder.build(pool.conv2d(8, 1))
    assert model.shapes()[model.outputs[0]] == (None, 8, 4, 4)
    batch = np.random.default_rng(0).standard_normal((2, 8, 8, 8)).astype(np.float32)
    found = pt2e_parity.compare_compiled(to_torch(model), model, [batch])
    assert found.verdict == "equal" and found.counts["layers"] == 2, found
    monkeypatch.setattr(pt2e_parity, "DEFECTS", ())
    assert pt2e_parity.compare_compiled(to_torch(model), model, [batch]).verdict == "shapes"


@pytest.mark.parametrize("name", ["sum of codes", "silu", "gelu", "batch_norm", "adaptive_avg_pool2d 1", "mean of rows", "softmax of channels"])
def test_operators_on_special_numbers(name):
    operator = next(o for o in OPERATORS if o.name == name)
    inputs = inputs_of(operator, 3)
    comp = torch_inductor.compiled(operator.theirs(torch), *inputs)
    np.testing.assert_array_equal(run_ours(operator, inputs), comp)
    if name != "sum of codes":
        wide = {"batch_norm": None, "silu": lambda x: real.silu(x, order="float64"), "gelu": lambda x: real.gelu(x, order="float64")}.get(name)
        if wide is not None:
            with np.errstate(all="ignore"):
                assert (wide(*inputs) != comp).any()


@pytest.mark.parametrize("name, function", [("swish", onednn_swish), ("gelu", onednn_gelu)])
def test_functions_of_onednn_after_a_product(name, function):
    """Accumulators are 0, so that the bias is what the function sees."""
    if name == "gelu" and "@" not in profile_here("inductor"):
        pytest.skip("this processor has no kernel of AVX2 that would be taken")
    rng = np.random.Generator(np.random.PCG64(0))
    bias = (rng.standard_normal(20_000) * 2.0 ** rng.integers(-4, 7, 20_000)).astype(np.float32)
    bias[:8] = 0, -0.0, -87.33655, -87.3366, 88.8, -200, 1e-45, -1e-30
    w = torch.ops.onednn.qlinear_prepack(torch.zeros((20_000, 16), dtype=torch.int8), None)
    ones, zeros = torch.ones(20_000), torch.zeros(20_000, dtype=torch.int64)
    x = torch.zeros((1, 16), dtype=torch.uint8)
    y = torch.ops.onednn.qlinear_pointwise.default(x, 0.5, 0, w, ones, zeros, torch.from_numpy(bias), 1.0, 0, torch.float32, name, [], "none")
    np.testing.assert_array_equal(function(bias)[None], y.numpy())
