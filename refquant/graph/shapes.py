"""Shape rules: from the shapes of the inputs to the shape of the output. A dimension may be None: not known yet."""

import math

from refquant.errors import ShapeError

__all__ = ["same", "conv", "linear", "per_channel", "add", "pool", "adaptive_pool", "flatten", "reshape", "cat", "layer_norm", "matmul", "permute", "pair", "check_windows"]


def pair(value, dims):
    """Return `value` as a tuple of `dims` items."""
    return tuple(value) if isinstance(value, (tuple, list)) else (value,) * dims


def _refuse(node, rule):
    raise ShapeError(f"node {node.name!r} ({node.op}): {rule}")


def same(node, x):
    """Whatever comes in."""
    return x


def per_channel(node, x):
    """The same shape, with as many channels as the parameters have."""
    channels = node.params["weight"].shape[0]
    if len(x) < 2 or x[1] not in (None, channels):
        _refuse(node, f"x has shape {_text(x)} but the parameters have {channels} channels; axis 1 of x must be {channels}")
    return x


def conv(node, x):
    """(N, OC, *spatial) of a convolution."""
    w, a = node.params["weight"].shape, node.attrs
    dims = len(w) - 2
    if len(x) != dims + 2:
        _refuse(node, f"x has shape {_text(x)} but w {_text(w)}; x must have {dims + 2} dimensions, (N, IC, ...)")
    if x[1] not in (None, w[1] * a["groups"]) or w[0] % a["groups"]:
        _refuse(node, f"x {_text(x)} has IC={x[1]} but w {_text(w)} with groups={a['groups']} wants IC={w[1] * a['groups']}")
    sides = zip(x[2:], w[2:], *(pair(a[k], dims) for k in ("stride", "padding", "dilation")))
    return (x[0], w[0], *(_windows(node, n, k, s, p, d, False) for n, k, s, p, d in sides))


def linear(node, x):
    """(..., OC) of a fully connected layer."""
    w = node.params["weight"].shape
    if not x or x[-1] not in (None, w[1]):
        _refuse(node, f"x has shape {_text(x)} but w {_text(w)}; the last axis of x must be {w[1]}")
    return (*x[:-1], w[0])


def _windows(node, n, k, s, p, d, ceil_mode):
    if n is None:
        return None
    if s < 1 or d < 1:
        _refuse(node, f"stride {s} and dilation {d} must be at least 1; set them so")
    room = n + 2 * p - d * (k - 1) - 1
    if room < 0:
        _refuse(node, f"a window of {k} with dilation {d} is larger than the padded input {n} + 2*{p}; enlarge the input or its padding")
    size = (-(-room // s) if ceil_mode else room // s) + 1
    return size - 1 if ceil_mode and (size - 1) * s >= n + p else size


def check_windows(node, x):
    """Refuse pools whose input is not (N, C, H, W)."""
    if len(x) != 4:
        _refuse(node, f"x has shape {_text(x)} but must be (N, C, H, W)")


def pool(node, x):
    """(N, C, OH, OW) of a pool."""
    check_windows(node, x)
    a = node.attrs
    stride = a["kernel_size"] if a["stride"] is None else a["stride"]
    sides = zip(x[2:], *(pair(v, 2) for v in (a["kernel_size"], stride, a["padding"], a.get("dilation", 1))))
    return (*x[:2], *(_windows(node, n, k, s, p, d, a["ceil_mode"]) for n, k, s, p, d in sides))


def adaptive_pool(node, x):
    """(N, C, *output_size)."""
    check_windows(node, x)
    return (*x[:2], *(n if o is None else o for n, o in zip(x[2:], pair(node.attrs["output_size"], 2))))


def add(node, a, b):
    """The common shape; no broadcasting, as quantized engines have none here."""
    if len(a) != len(b) or any(n != m and None not in (n, m) for n, m in zip(a, b)):
        _refuse(node, f"inputs have shapes {_text(a)} and {_text(b)}; they must be equal")
    return tuple(m if n is None else n for n, m in zip(a, b))


def flatten(node, x):
    """Axes from start_dim on merged."""
    start = node.attrs["start_dim"]
    if not 0 <= start < max(len(x), 1):
        _refuse(node, f"start_dim={start} but x has shape {_text(x)}; choose 0 … {len(x) - 1}")
    return (*x[:start], None if None in x[start:] else math.prod(x[start:]))


def reshape(node, x):
    """The shape asked for: None keeps the size of that axis, one -1 is worked out."""
    asked = tuple(node.attrs["shape"])
    if len(asked) > len(x) and None in asked[len(x) :]:
        _refuse(node, f"shape {_text(asked)} keeps axes that x {_text(x)} does not have; give their sizes")
    shape = tuple(x[i] if n is None else n for i, n in enumerate(asked))
    if None in x:
        return _open_reshape(asked, x)
    known = math.prod(n for n in shape if n != -1)
    if shape.count(-1) > 1 or (math.prod(x) % known if -1 in shape and known else math.prod(x) != known):
        _refuse(node, f"x has shape {_text(x)} ({math.prod(x)} elements), which cannot become {_text(shape)}")
    return tuple(math.prod(x) // known if n == -1 else n for n in shape)


def _open_reshape(asked, x):
    """With an unknown batch: where all else is known and fits, -1 is worked out from it or is the batch itself."""
    rest, kept = math.prod(n for n in x[1:] if n is not None), asked[:1] == (None,)
    if None in x[1:]:
        return tuple(None if n in (-1, None) else n for n in asked)
    known = math.prod(n for n in asked[kept:] if n != -1)
    worked = rest // known if kept and known else None
    return tuple(None if n is None else worked if n == -1 else n for n in asked)


def cat(node, *shapes):
    """Equal but along dim, where they add up."""
    first, dim = shapes[0], node.attrs["dim"]
    if not -len(first) <= dim < len(first):
        _refuse(node, f"dim={dim} but inputs have shape {_text(first)}; choose {-len(first)} … {len(first) - 1}")
    dim %= len(first)
    for x in shapes[1:]:
        if len(x) != len(first) or any(n != m and d != dim and None not in (n, m) for d, (n, m) in enumerate(zip(x, first))):
            _refuse(node, f"inputs have shapes {_text(first)} and {_text(x)}; all axes but {dim} must agree")
    along = [x[dim] for x in shapes]
    return (*first[:dim], None if None in along else sum(along), *first[dim + 1 :])


def layer_norm(node, x):
    """The same shape, whose last axis has as many entries as the parameters."""
    w = node.params["weight"].shape
    if not x or x[-1] not in (None, w[0]):
        _refuse(node, f"x has shape {_text(x)} but the parameters {_text(w)}; the last axis of x must be {w[0]}")
    return x


def matmul(node, a, b):
    """(..., M, N) of (..., M, K) and (..., K, N)."""
    if len(a) < 2 or len(a) != len(b) or a[-1] != b[-2] or any(n != m and None not in (n, m) for n, m in zip(a[:-2], b[:-2])):
        _refuse(node, f"inputs have shapes {_text(a)} and {_text(b)}; they must be (..., M, K) and (..., K, N)")
    return (*a[:-1], b[-1])


def permute(node, x):
    """The axes in another order."""
    dims = node.attrs["dims"]
    if sorted(d % max(len(x), 1) for d in dims) != list(range(len(x))):
        _refuse(node, f"dims={tuple(dims)} but x has shape {_text(x)}; name each of its {len(x)} axes once")
    return tuple(x[d] for d in dims)


def _text(shape):
    return "(" + ", ".join("N" if n is None else str(n) for n in shape) + ")"
