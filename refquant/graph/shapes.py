"""Shape rules: from the shapes of the inputs to the shape of the output. A dimension may be None: not known yet."""

import math

from refquant.errors import ShapeError

__all__ = [
    "same", "constant", "embedding", "conv", "conv_transpose", "linear", "per_channel", "prelu", "group_norm", "layer_norm", "broadcast", "pool", "adaptive_pool", "mean",
    "flatten", "reshape", "cat", "stack", "matmul", "permute", "transpose", "squeeze", "unsqueeze", "slice_axis", "select", "expand", "channel_shuffle", "pixel_shuffle", "pixel_unshuffle", "repeat", "repeat_interleave", "pad", "interpolate", "pair",
]  # fmt: skip


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


def conv(node, x, *other):
    """(N, OC, *spatial) of a convolution."""
    w, a = node.params["weight"].shape, node.attrs
    dims = len(w) - 2
    if len(x) != dims + 2:
        _refuse(node, f"x has shape {_text(x)} but w {_text(w)}; x must have {dims + 2} dimensions, (N, IC, ...)")
    if x[1] not in (None, w[1] * a["groups"]) or w[0] % a["groups"]:
        _refuse(node, f"x {_text(x)} has IC={x[1]} but w {_text(w)} with groups={a['groups']} wants IC={w[1] * a['groups']}")
    sides = zip(x[2:], w[2:], *(pair(a[k], dims) for k in ("stride", "padding", "dilation")))
    return (x[0], w[0], *(_windows(node, n, k, s, p, d, False) for n, k, s, p, d in sides))


def linear(node, x, *other):
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


def conv_transpose(node, x):
    """(N, OC, *spatial) of a transposed convolution, whose weights are (IC, OC / groups, …)."""
    w, a = node.params["weight"].shape, node.attrs
    dims = len(w) - 2
    if len(x) != dims + 2 or x[1] not in (None, w[0]) or w[0] % a["groups"]:
        _refuse(node, f"x has shape {_text(x)} but w {_text(w)} with groups={a['groups']}; x must be (N, {w[0]}, ...) with {dims + 2} dimensions")
    sides = zip(x[2:], w[2:], *(pair(a[k], dims) for k in ("stride", "padding", "dilation", "output_padding")))
    return (x[0], w[1] * a["groups"], *(None if n is None else (n - 1) * s - 2 * p + d * (k - 1) + o + 1 for n, k, s, p, d, o in sides))


def constant(node):
    """The array's."""
    return tuple(node.params["value"].shape)


def embedding(node, x):
    """(..., width) of indices (...)."""
    return (*x, node.params["weight"].shape[1])


def prelu(node, x):
    """The same shape; one slope, or one for each channel."""
    slopes = node.params["weight"].shape
    if slopes != (1,) and (len(x) < 2 or x[1] not in (None, slopes[0])):
        _refuse(node, f"x has shape {_text(x)} but there are {slopes[0]} slopes; give one, or one for each of axis 1")
    return x


def group_norm(node, x):
    """The same shape, with as many channels as the parameters have and groups divide."""
    groups = node.attrs.get("num_groups", 1)
    if len(x) < 2 or (x[1] is not None and x[1] % groups):
        _refuse(node, f"x has shape {_text(x)} but num_groups={groups} must divide axis 1; choose a divisor")
    return per_channel(node, x) if node.params.get("weight") is not None else x


def pool(node, x):
    """(N, C, *spatial) of a pool."""
    dims, a = int(node.op[-2]), node.attrs
    _check_windows(node, x, dims)
    stride = a["kernel_size"] if a["stride"] is None else a["stride"]
    sides = zip(x[2:], *(pair(v, dims) for v in (a["kernel_size"], stride, a["padding"], a.get("dilation", 1))))
    return (*x[:2], *(_windows(node, n, k, s, p, d, a["ceil_mode"]) for n, k, s, p, d in sides))


def adaptive_pool(dims):
    """Return the rule of adaptive pools over so many axes: (N, C, *output_size)."""

    def rule(node, x):
        _check_windows(node, x, dims)
        return (*x[:2], *(n if o is None else o for n, o in zip(x[2:], pair(node.attrs["output_size"], dims))))

    return rule


def _check_windows(node, x, dims):
    if len(x) != dims + 2:
        _refuse(node, f"x has shape {_text(x)} but must be (N, C, {', '.join('DHW'[3 - dims :])})")


def mean(node, x):
    """Without the averaged axes, or with a 1 for each."""
    axes = {_axis(node, d, len(x)) for d in pair(node.attrs["dim"], 1)}
    if node.attrs["keepdim"]:
        return tuple(1 if i in axes else n for i, n in enumerate(x))
    return tuple(n for i, n in enumerate(x) if i not in axes)


def _axis(node, dim, count, name="dim"):
    if not -count <= dim < count:
        _refuse(node, f"{name}={dim} but x has {count} dimensions; choose {-count} … {count - 1}")
    return dim % count


def broadcast(node, a, b):
    """The common shape, by NumPy's rules of broadcasting."""
    wide, narrow = (a, b) if len(a) >= len(b) else (b, a)
    narrow = (1,) * (len(wide) - len(narrow)) + tuple(narrow)
    if any(n != m and None not in (n, m) and 1 not in (n, m) for n, m in zip(wide, narrow)):
        _refuse(node, f"inputs have shapes {_text(a)} and {_text(b)}; they must be equal, or 1 where they differ")
    return tuple(m if n == 1 or n is None and m not in (1, None) else n for n, m in zip(wide, narrow))


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


def stack(node, *shapes):
    """Equal, with a new axis as long as there are inputs."""
    first = shapes[0]
    dim = _axis(node, node.attrs["dim"], len(first) + 1)
    for x in shapes[1:]:
        if len(x) != len(first) or any(n != m and None not in (n, m) for n, m in zip(x, first)):
            _refuse(node, f"inputs have shapes {_text(first)} and {_text(x)}; all axes must agree")
    return (*first[:dim], len(shapes), *first[dim:])


def layer_norm(node, x):
    """The same shape, whose last axes are those of the parameters."""
    w = node.params["weight"].shape
    if len(x) < len(w) or any(n not in (None, m) for n, m in zip(x[len(x) - len(w) :], w)):
        what = f"the last axis of x must be {w[0]}" if len(w) == 1 else f"the last axes of x must be {_text(w)}"
        _refuse(node, f"x has shape {_text(x)} but the parameters {_text(w)}; {what}")
    return x


def matmul(node, a, b):
    """(..., M, N) of (..., M, K) and (..., K, N); axes before those broadcast."""
    if len(a) < 2 or len(b) < 2 or None not in (a[-1], b[-2]) and a[-1] != b[-2]:
        _refuse(node, f"inputs have shapes {_text(a)} and {_text(b)}; they must be (..., M, K) and (..., K, N)")
    return (*broadcast(node, a[:-2], b[:-2]), a[-2], b[-1])


def permute(node, x):
    """The axes in another order."""
    dims = node.attrs["dims"]
    if sorted(d % max(len(x), 1) for d in dims) != list(range(len(x))):
        _refuse(node, f"dims={tuple(dims)} but x has shape {_text(x)}; name each of its {len(x)} axes once")
    return tuple(x[d] for d in dims)


def transpose(node, x):
    """Two axes exchanged."""
    i, j = (_axis(node, node.attrs[name], len(x), name) for name in ("dim0", "dim1"))
    shape = list(x)
    shape[i], shape[j] = shape[j], shape[i]
    return tuple(shape)


def squeeze(node, x):
    """Without an axis, or several, of length 1; of another length it stays."""
    axes = {_axis(node, d, len(x)) for d in pair(node.attrs["dim"], 1)}
    return tuple(n for i, n in enumerate(x) if i not in axes or n != 1)


def unsqueeze(node, x):
    """With a new axis of length 1."""
    dim = _axis(node, node.attrs["dim"], len(x) + 1)
    return (*x[:dim], 1, *x[dim:])


def slice_axis(node, x):
    """A part of one axis."""
    a = node.attrs
    dim = _axis(node, a["dim"], len(x))
    if a["step"] < 1:
        _refuse(node, f"step={a['step']} must be at least 1")
    size = None if x[dim] is None else len(range(*slice(a["start"], a["stop"], a["step"]).indices(x[dim])))
    return (*x[:dim], size, *x[dim + 1 :])


def select(node, x):
    """Without the axis of which one index is taken."""
    dim, index = _axis(node, node.attrs["dim"], len(x)), node.attrs["index"]
    if x[dim] is not None and not -x[dim] <= index < x[dim]:
        _refuse(node, f"index={index} but axis {dim} of x {_text(x)} has {x[dim]} entries; choose {-x[dim]} … {x[dim] - 1}")
    return (*x[:dim], *x[dim + 1 :])


def expand(node, x):
    """Axes of length 1 repeated; -1 keeps an axis."""
    asked = tuple(node.attrs["shape"])
    padded = (1,) * (len(asked) - len(x)) + tuple(x)
    if len(asked) < len(x) or any(w not in (-1, None, n) and n not in (1, None) for w, n in zip(asked, padded)):
        _refuse(node, f"x has shape {_text(x)}, which does not expand to {_text(asked)}; only axes of length 1 are repeated")
    return tuple(n if w in (-1, None) else w for w, n in zip(asked, padded))


def channel_shuffle(node, x):
    """The same shape, of as many channels as groups divide."""
    groups = node.attrs["groups"]
    if len(x) < 3 or groups < 1 or (x[1] is not None and x[1] % groups):
        _refuse(node, f"x has shape {_text(x)} but groups={groups} must divide axis 1; choose a divisor")
    return x


def pixel_shuffle(node, x):
    """Images that are as many times larger as a factor says, with fewer channels."""
    r = node.attrs["upscale_factor"]
    if len(x) != 4 or r < 1 or (x[1] is not None and x[1] % r**2):
        _refuse(node, f"x has shape {_text(x)} but must be (N, C, H, W) with channels that {r}² divides; choose another upscale_factor")
    n, c, h, w = x
    return (n, None if c is None else c // r**2, *(None if side is None else side * r for side in (h, w)))


def pixel_unshuffle(node, x):
    """Images that are as many times smaller as a factor says, with more channels."""
    r = node.attrs["downscale_factor"]
    if len(x) != 4 or r < 1 or any(side is not None and side % r for side in x[2:]):
        _refuse(node, f"x has shape {_text(x)} but must be (N, C, H, W) with sides that {r} divides; choose another downscale_factor")
    n, c, h, w = x
    return (n, None if c is None else c * r**2, *(None if side is None else side // r for side in (h, w)))


def repeat(node, x):
    """Each axis as many times as its size says; sizes may have more axes, before the others."""
    sizes = tuple(node.attrs["sizes"])
    if len(sizes) < len(x) or any(k < 0 for k in sizes):
        _refuse(node, f"sizes={sizes} must be one number, from 0 on, for each of {len(x)} axes or more; correct them")
    x = (1,) * (len(sizes) - len(x)) + tuple(x)
    return tuple(None if side is None else side * k for side, k in zip(x, sizes))


def repeat_interleave(node, x):
    """One axis, each entry of which comes several times in a row."""
    dim = _axis(node, node.attrs["dim"], len(x))
    if node.attrs["repeats"] < 0:
        _refuse(node, f"repeats={node.attrs['repeats']} must be from 0 on; correct it")
    return (*x[:dim], None if x[dim] is None else x[dim] * node.attrs["repeats"], *x[dim + 1 :])


def pad(node, x):
    """Axes, from the last on, longer by a pair of numbers each."""
    pads = node.attrs["pad"]
    if len(pads) % 2 or len(pads) > 2 * len(x):
        _refuse(node, f"pad={tuple(pads)} must be pairs of numbers, from the last axis on, for {len(x)} axes at most")
    shape = list(x)
    for i in range(len(pads) // 2):
        if shape[-1 - i] is not None:
            shape[-1 - i] += pads[2 * i] + pads[2 * i + 1]
            if shape[-1 - i] < 0:
                _refuse(node, f"pad={tuple(pads)} cuts more off x {_text(x)} than there is; cut less")
    return tuple(shape)


def interpolate(node, x):
    """(N, C, *size)."""
    size, factor = node.attrs["size"], node.attrs["scale_factor"]
    if len(x) < 3 or (size is None) == (factor is None):
        _refuse(node, f"x has shape {_text(x)}, size={size} and scale_factor={factor}; x must be (N, C, ...) and one of the two given")
    if size is not None:
        return (*x[:2], *pair(size, len(x) - 2))
    return (*x[:2], *(None if n is None else math.floor(n * f) for n, f in zip(x[2:], pair(factor, len(x) - 2))))


def _text(shape):
    return "(" + ", ".join("N" if n is None else str(n) for n in shape) + ")"
