"""mul and the functions of one code against PyTorch's kernels: all codes, in the vector body and in the tail."""

import numpy as np
import pytest

import refquant as rq

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.engine


def tensor(q):
    return torch._make_per_tensor_quantized_tensor(torch.from_numpy(q.values), q.qparams.scale, q.qparams.zero_point)


def parameters(rng, dtype, hard):
    info = np.iinfo(dtype)
    scale = 2.0 ** int(rng.integers(-8, -1)) if hard else float(np.float32(rng.uniform(0.002, 0.2)))
    return rq.QParams(scale, int(rng.integers(info.min, info.max, endpoint=True)), dtype)


def codes(dtype, n):
    return np.resize(np.arange(256, dtype=np.uint8).view(dtype), n)


CALLS = {
    "sigmoid": (lambda t, o, p: torch.ops.quantized.sigmoid(t, o.scale, o.zero_point), ()),
    "hardswish": (lambda t, o, p: torch.ops.quantized.hardswish(t, o.scale, o.zero_point), ()),
    "elu": (lambda t, o, p: torch.ops.quantized.elu(t, o.scale, o.zero_point, p), (0.7,)),
    "leaky_relu": (lambda t, o, p: torch.ops.quantized.leaky_relu(t, p, False, o.scale, o.zero_point), (0.03,)),
    "tanh": (lambda t, o, p: torch.tanh(t), ()),
    "hardsigmoid": (lambda t, o, p: torch.nn.functional.hardsigmoid(t), ()),
    "gelu": (lambda t, o, p: torch.nn.functional.gelu(t), ()),
}
OWN_OUTPUT = ("tanh", "hardsigmoid", "gelu")


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("name", CALLS)
def test_unary(name, dtype):
    rng = np.random.default_rng(3)
    call, extra = CALLS[name]
    torch.set_num_threads(1)
    differing = total = 0
    for trial in range(400):
        x = rq.QTensor(codes(dtype, 256 + 63), parameters(rng, dtype, trial % 2))
        out = parameters(rng, dtype, trial % 3 == 0)
        with torch.no_grad():
            theirs = call(tensor(x), out, extra[0] if extra else None)
        kwargs = {} if name in OWN_OUTPUT else {"out": out}
        mine = getattr(rq.ops, name)(x, *extra, **kwargs)
        assert (mine.qparams.scale, mine.qparams.zero_point) == (theirs.q_scale(), theirs.q_zero_point())
        differing += np.count_nonzero(mine.values != theirs.int_repr().numpy())
        total += x.size
    # Where the C library rounds an exponential in the scalar loop otherwise than the nearest float32, a result beside a tie could move; none of these does.
    assert differing == 0, f"{differing} of {total}"


@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_mul(dtype, activation):
    rng = np.random.default_rng(4)
    call = torch.ops.quantized.mul_relu if activation else torch.ops.quantized.mul
    a, b = (v.reshape(-1) for v in np.meshgrid(codes(dtype, 256), codes(dtype, 256)))
    for trial in range(30):
        a_q = rq.QTensor(a[: len(a) - 5].copy(), parameters(rng, dtype, trial % 2))
        b_q = rq.QTensor(b[: len(b) - 5].copy(), parameters(rng, dtype, trial % 2))
        out = parameters(rng, dtype, trial % 2)
        theirs = call(tensor(a_q), tensor(b_q), out.scale, out.zero_point).int_repr().numpy()
        mine = rq.ops.mul(a_q, b_q, out=out, activation=activation)
        np.testing.assert_array_equal(mine.values, theirs)
        reference = next(op.reference for op in rq.ops.OPS if op.name == "mul")
        np.testing.assert_array_equal(mine.values, reference(a_q, b_q, out=out, activation=activation).values)


def test_concatenations_lie_in_memory_as_pytorchs_do():
    """One-channel tensors and 1x1 images count as channels last; a pool behind them rounds by the memory format."""
    import itertools

    from refquant.backends.torch_tensors import quantized
    from refquant.core.layout import is_channels_last, to_channels_last

    rng = np.random.default_rng(0)
    shapes = [(2, 4, 3, 3), (2, 1, 3, 3), (2, 4, 1, 1), (1, 4, 3, 3), (2, 1, 1, 1), (1, 1, 3, 3)]
    tried = 0
    for dim, a, b, *last in itertools.product(range(4), shapes, shapes, (False, True), (False, True)):
        if any(n != m for i, (n, m) in enumerate(zip(a, b)) if i != dim):
            continue
        codes = [rng.integers(0, 256, shape).astype(np.uint8) for shape in (a, b)]
        codes = [to_channels_last(c) if flag else c for c, flag in zip(codes, last)]
        tensors = [rq.QTensor(c, rq.QParams(0.01 * (i + 1), 3, "uint8")) for i, c in enumerate(codes)]
        ref = torch.ops.quantized.cat([quantized(t) for t in tensors], dim, 0.02, 5).int_repr().numpy()
        comp = rq.ops.cat(tensors, dim, out=rq.QParams(0.02, 5, "uint8")).values
        assert np.array_equal(ref, comp) and is_channels_last(ref) == is_channels_last(comp), (dim, a, b, last)
        tried += 1
    assert tried == 136
