"""Pools and means."""

from refquant import ops
from refquant.core.qtensor import QTensor
from refquant.errors import UnsupportedError
from refquant.graph import shapes
from refquant.graph.opset.graph_op import GraphOp, REQUIRED, on_codes_or_reals
from refquant.ops import real
from refquant.ops.avg_pool import bind_global_avg_pool2d

__all__ = ["POOLS"]


def _pool(name, dims, attrs, order):
    attrs = {"kernel_size": REQUIRED, "stride": None, "padding": 0, **attrs}
    if name == "avg_pool1d":
        run = _as_images(ops.avg_pool2d, real.avg_pool1d)
    else:
        run = on_codes_or_reals(getattr(ops, name), getattr(real, name), *attrs, out=name == "avg_pool2d", order=order)
    attrs = {**attrs, "out": None} if name == "avg_pool2d" else attrs
    kind = "MaxPool" if name.startswith("max") else "AvgPool"
    return GraphOp(name, (1, 1), attrs, {}, (f"nn.{kind}{dims}d", f"F.{name}", f"torch.{name}"), run, shapes.pool)


def _as_images(quantized, function):
    """A pool of sequences: PyTorch takes codes as images of height 1."""

    def run(ctx, node, x):
        if not isinstance(x, QTensor):
            return function(x, **node.attrs, order=ctx.real)
        flat = {k: v[0] if isinstance(v, (tuple, list)) and len(v) == 1 else v for k, v in node.attrs.items()}
        attrs = {**flat, "kernel_size": (1, flat["kernel_size"]), "padding": (0, flat["padding"])}
        if flat["stride"] is not None:
            attrs["stride"] = (1, flat["stride"])
        y = quantized(QTensor(x.values[:, :, None], x.qparams), **attrs, numerics=ctx.numerics)
        return QTensor(y.values[:, :, 0], y.qparams)

    return run


def _adaptive_avg_pool(dims):
    def run(ctx, node, x):
        size = shapes.pair(node.attrs["output_size"], dims)
        size = tuple(n if o is None else o for n, o in zip(x.shape[2:], size))
        if not isinstance(x, QTensor):
            return getattr(real, f"adaptive_avg_pool{dims}d")(x, size, order=ctx.real)
        if dims == 1:
            y = ops.adaptive_avg_pool2d(QTensor(x.values[:, :, None], x.qparams), (1, *size), numerics=ctx.numerics)
            return QTensor(y.values[:, :, 0], y.qparams)
        if dims == 2:
            return ops.adaptive_avg_pool2d(x, size, out=node.attrs["out"], numerics=ctx.numerics)
        return ops.adaptive_avg_pool3d(x, size, numerics=ctx.numerics)

    def bind(ctx, node, x):
        if isinstance(x, QTensor) and shapes.pair(node.attrs["output_size"], 2) == (1, 1):
            return bind_global_avg_pool2d(x, out=node.attrs["out"], numerics=ctx.numerics)
        return None

    targets = f"nn.AdaptiveAvgPool{dims}d", f"F.adaptive_avg_pool{dims}d", *(("torch.adaptive_avg_pool1d",) if dims == 1 else ())
    attrs = {"output_size": REQUIRED, **({"out": None} if dims == 2 else {})}
    return GraphOp(f"adaptive_avg_pool{dims}d", (1, 1), attrs, {}, targets, run, shapes.adaptive_pool(dims), bind if dims == 2 else None)


def _adaptive_max_pool2d(ctx, node, x):
    size = tuple(n if o is None else o for n, o in zip(x.shape[2:], shapes.pair(node.attrs["output_size"], 2)))
    if isinstance(x, QTensor):
        raise UnsupportedError("adaptive_max_pool2d has no form on codes; put a dequantize node before it")
    return real.adaptive_max_pool2d(x, size)


_AVERAGE = {"ceil_mode": False, "count_include_pad": True}

POOLS = (
    *(_pool(f"max_pool{d}d", d, {"dilation": 1, "ceil_mode": False}, False) for d in (1, 2, 3)),
    *(_pool(f"avg_pool{d}d", d, {**_AVERAGE, **({} if d == 1 else {"divisor_override": None})}, True) for d in (1, 2, 3)),
    *(_adaptive_avg_pool(d) for d in (1, 2, 3)),
    GraphOp("adaptive_max_pool2d", (1, 1), {"output_size": REQUIRED}, {}, ("nn.AdaptiveMaxPool2d", "F.adaptive_max_pool2d"),
            _adaptive_max_pool2d, shapes.adaptive_pool(2)),
    GraphOp("mean", (1, 1), {"dim": REQUIRED, "keepdim": False}, {}, (".mean", "torch.mean"),
            on_codes_or_reals(ops.mean, real.mean, "dim", "keepdim", order=True), shapes.mean),
)  # fmt: skip
"""All take codes but adaptive_max_pool2d, and hand the parameters of their input on unless ``out`` says otherwise. ``stride`` is the kernel's size unless given; an
``output_size`` of None keeps the side; 1 is a global pool. ``mean`` averages over one axis or several."""
