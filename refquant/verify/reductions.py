"""The steps of `refquant.verify.shrink`: from a problem to simpler ones, fewer elements first, then plainer parameters, then quieter values."""

import numpy as np

from refquant.core.dtypes import int_type
from refquant.core.layout import laid_as
from refquant.core.qparams import QParams
from refquant.core.qtensor import QTensor
from refquant.verify.powers import exponent_of, power_of_two
from refquant.verify.problem import Problem

__all__ = ["REDUCTIONS"]

_LAYERS = ("linear", "conv1d", "conv2d", "conv3d")


def _with(problem, **arguments):
    return Problem(problem.op, {**problem.arguments, **arguments})


def _subsets(size):
    """Yield subsets of range(size): each half, quarter, …, alone and left out."""
    parts = 2
    while size > 1 and parts <= 2 * size:
        cuts = np.unique(np.linspace(0, size, min(parts, size) + 1).astype(int))
        pieces = [np.arange(a, b) for a, b in zip(cuts, cuts[1:])]
        yield from pieces
        if len(pieces) > 2:
            yield from (np.setdiff1d(np.arange(size), piece) for piece in pieces)
        parts *= 2


def _taken(value, axis, index):
    """Return a tensor, array or set of parameters with some positions of an axis."""
    if isinstance(value, QTensor):
        q = value.qparams
        if q.axis == axis:
            q = QParams(q.scale[index], q.zero_point[index], q.dtype, axis, quant_min=q.qmin, quant_max=q.qmax, unchecked=True)
        return QTensor(laid_as(np.take(value.values, index, axis), value.values), q)
    return np.take(np.asarray(value), index, axis)


def _inputs(problem):
    """Return the names of activations, whose axes may be cut together."""
    names = {"add": ("a", "b"), "dequantize": ("q",), "matmul_integer": ("a",)}.get(problem.op, ("x",))
    return tuple(n for n in names if n in problem.arguments)


def _fewer_outputs(problem):
    """Cut output channels of a product."""
    if problem.op in _LAYERS and problem.get("groups", 1) == 1:
        for index in _subsets(problem["w"].shape[0]):
            bias = problem.get("bias")
            yield _with(problem, w=_taken(problem["w"], 0, index), bias=None if bias is None else np.asarray(bias)[index])
    elif problem.op == "matmul_integer":
        for index in _subsets(problem["b"].shape[1]):
            zero = np.asarray(problem.get("b_zero_point", 0))
            yield _with(problem, b=_taken(problem["b"], 1, index), b_zero_point=zero[index] if zero.ndim else int(zero))


def _fewer_depth(problem):
    """Cut what products sum over: K, or input channels."""
    if problem.op == "linear":
        for index in _subsets(problem["w"].shape[1]):
            yield _with(problem, x=_taken(problem["x"], problem["x"].ndim - 1, index), w=_taken(problem["w"], 1, index))
    elif problem.op == "matmul_integer":
        for index in _subsets(problem["b"].shape[0]):
            yield _with(problem, a=_taken(problem["a"], problem["a"].ndim - 1, index), b=_taken(problem["b"], 0, index))
    elif problem.op in _LAYERS:
        yield from _fewer_channels(problem)


def _same_sum(problem):
    """Of a layer with one output: give the same sum by as few products as can be."""
    if problem.op not in _LAYERS:
        return
    x, w = problem["x"], problem["w"]
    if w.shape[0] != 1 or w.size != x.size or w.size < 2 or problem.get("padding") or problem.get("groups", 1) != 1:
        return
    zx, zw = x.qparams.zero_point, int(np.ravel(w.qparams.zero_point)[0])
    acc = int(((x.values.astype(np.int64).reshape(-1) - zx) * (w.values.astype(np.int64).reshape(-1) - zw)).sum())
    room_x, room_w = ([c - z for c in (np.iinfo(t.values.dtype).min, np.iinfo(t.values.dtype).max)] for t, z in ((x, zx), (w, zw)))
    pairs = _products(acc, room_x, room_w)
    if pairs is None or len(pairs) >= w.size:
        return
    shape = (1, len(pairs), *[1] * (w.ndim - 2))
    new_x, new_w = (np.array([p[i] + z for p in pairs]).astype(t.values.dtype) for i, (t, z) in enumerate(((x, zx), (w, zw))))
    new_x = new_x.reshape(shape if w.ndim > 2 else (*x.shape[:-1], len(pairs)))
    yield _with(problem, x=_tensor_like(x, new_x), w=_tensor_like(w, new_w.reshape(shape)))


def _products(total, room_x, room_w):
    """Return pairs (a, b) within their ranges whose products add up to a total: one if it has such factors, else greedily; None where that fails."""
    pairs = []
    while len(pairs) < 64:
        tries = [(a, min(max(int(total / a), room_w[0]), room_w[1])) for a in sorted(range(room_x[0], room_x[1] + 1), key=abs) if a]
        a, b = min(tries, key=lambda p: (abs(total - p[0] * p[1]), abs(p[0])), default=(0, 0))
        if not a * b:
            return None
        pairs.append((a, b))
        total -= a * b
        if not total:
            return pairs
    return None


def _fewer_channels(problem):
    x, w, groups = problem["x"], problem["w"], problem.get("groups", 1)
    if groups == 1:
        for index in _subsets(w.shape[1]):
            yield _with(problem, x=_taken(x, 1, index), w=_taken(w, 1, index))
        return
    outputs, bias = w.shape[0] // groups, problem.get("bias")
    for index in _subsets(groups):
        rows = (index[:, None] * outputs + np.arange(outputs)).reshape(-1)
        channels = (index[:, None] * w.shape[1] + np.arange(w.shape[1])).reshape(-1)
        yield _with(problem, x=_taken(x, 1, channels), w=_taken(w, 0, rows), bias=None if bias is None else np.asarray(bias)[rows], groups=len(index))


def _free_axes(problem):
    """Return the axes of activations along which outputs are independent, or windows slide."""
    tensor = problem[_inputs(problem)[0]]
    ndim = np.ndim(getattr(tensor, "values", tensor))
    if problem.op in ("linear", "matmul_integer"):
        return range(ndim - 1)
    return [0, *range(2, ndim)] if problem.op in _LAYERS else range(ndim)


def _smaller_inputs(problem):
    """Cut batches, rows, channels and sides of activations."""
    if problem.op == "cat":
        yield from _smaller_cat(problem)
        return
    names, qparams = _inputs(problem), problem.get("qparams")
    for axis in _free_axes(problem):
        size = np.shape(getattr(problem[names[0]], "values", problem[names[0]]))[axis]
        for index in _subsets(size):
            changes = {name: _taken(problem[name], axis, index) for name in names}
            if qparams is not None and qparams.axis == axis:
                changes["qparams"] = QParams(qparams.scale[index], qparams.zero_point[index], qparams.dtype, axis, quant_min=qparams.qmin, quant_max=qparams.qmax, unchecked=True)
            yield _with(problem, **changes)


def _smaller_cat(problem):
    tensors = problem["tensors"]
    dim = problem.get("dim", 1) % tensors[0].ndim
    if len(tensors) > 1:
        yield from (_with(problem, tensors=(t,)) for t in tensors)
    for i, tensor in enumerate(tensors):
        for index in _subsets(tensor.shape[dim]):
            yield _with(problem, tensors=(*tensors[:i], _taken(tensor, dim, index), *tensors[i + 1 :]))
    for axis in range(tensors[0].ndim):
        if axis != dim:
            yield from (_with(problem, tensors=tuple(_taken(t, axis, index) for t in tensors)) for index in _subsets(tensors[0].shape[axis]))


_GEOMETRY = {"stride": 1, "padding": 0, "dilation": 1}
_PLAIN = {**_GEOMETRY, "activation": None, "bias": None, "ceil_mode": False, "count_include_pad": True, "divisor_override": None, "threads": 1}


def _plainer_arguments(problem):
    """Leave out bias, ReLU and whatever has a usual value; shrink the kernel."""
    geometry = {name: usual for name, usual in {**_GEOMETRY, "kernel_size": 1}.items() if name in problem.arguments}
    if any(not _is(problem[name], usual) for name, usual in geometry.items()):
        yield _with(problem, **geometry)
    for name, usual in _PLAIN.items():
        if name in problem.arguments and not _is(problem[name], usual):
            yield _with(problem, **{name: usual})
    if problem.op in _LAYERS and problem.op != "linear":
        for axis in range(2, problem["w"].ndim):
            yield from (_with(problem, w=_taken(problem["w"], axis, index)) for index in _subsets(problem["w"].shape[axis]))
    kernel = problem.get("kernel_size")
    if kernel is not None:
        yield from (_with(problem, kernel_size=k) for k in (1, 2, 3) if not _is(kernel, k) and k < max(np.atleast_1d(kernel)))


def _is(value, usual):
    return value is None if usual is None else value is not None and np.all(np.asarray(value) == usual)


def _plainer_parameters(problem):
    """Set zero points to 0 or the middle, scales to 1, powers of two or few digits, all at once and each alone; per tensor in place of per channel."""
    for scale in (lambda s: 1.0, lambda s: float(power_of_two(exponent_of(s)))):
        every = {name: _rescaled(value, scale) for name, value in problem.arguments.items()}
        if any(every[name] is not value for name, value in problem.arguments.items()):
            yield _with(problem, **every)
    for name, value in problem.arguments.items():
        q = value.qparams if isinstance(value, QTensor) else value
        if isinstance(q, QParams):
            for plain in _plainer(q):
                yield _with(problem, **{name: QTensor(value.values, plain) if isinstance(value, QTensor) else plain})
    for i, tensor in enumerate(problem.get("tensors") or ()):
        for plain in _plainer(tensor.qparams):
            others = problem["tensors"]
            yield _with(problem, tensors=(*others[:i], QTensor(tensor.values, plain), *others[i + 1 :]))


def _rescaled(value, scale):
    if isinstance(value, tuple):
        items = tuple(_rescaled(v, scale) for v in value)
        return value if all(a is b for a, b in zip(items, value)) else items
    q = value.qparams if isinstance(value, QTensor) else value
    if not isinstance(q, QParams) or q.per_channel or scale(q.scale) == q.scale:
        return value
    plain = QParams(scale(q.scale), q.zero_point, q.dtype, quant_min=q.qmin, quant_max=q.qmax, unchecked=True)
    return QTensor(value.values, plain) if isinstance(value, QTensor) else plain


def _plainer(q):
    def changed(scale, zero, axis=q.axis):
        return QParams(scale, zero, q.dtype, axis, quant_min=q.qmin, quant_max=q.qmax, unchecked=True)

    scale, zero = np.asarray(q.scale), np.asarray(q.zero_point)
    if q.per_channel and len(scale):
        yield changed(float(scale[0]), int(zero[0]), None)
    kind = int_type(q.dtype)
    for plain in dict.fromkeys((0, (kind.qmin + kind.qmax + 1) >> 1)):
        if np.any(zero != plain):
            if not np.any(zero == 0):
                yield changed(q.scale, np.full_like(zero, plain)[()] if zero.ndim else plain)
    for plain in (np.ones_like(scale), power_of_two(exponent_of(scale)), *(_digits(scale, d) for d in (1, 2, 3, 4))):
        if not np.array_equal(plain, scale) and np.mean(_length(plain)) < np.mean(_length(scale)):
            yield changed(plain if scale.ndim else float(plain), q.zero_point)


def _digits(values, digits):
    return np.array([float(f"{v:.{digits - 1}e}") for v in values.reshape(-1)]).reshape(values.shape)


def _length(values):
    """How many characters numbers take, powers of two being short."""
    return [3 if np.frexp(v)[0] == 0.5 else len(repr(float(v))) for v in values.reshape(-1)]


def _fewer_values(problem):
    """Set codes to the zero point, weights and biases to 0: halves of them, quarters, …, single ones."""
    for name, value in problem.arguments.items():
        if isinstance(value, QTensor):
            zero = value.qparams.along(value.ndim)[1]
            yield from (_with(problem, **{name: _tensor_like(value, v)}) for v in _quieter(value.values, zero))
        elif isinstance(value, np.ndarray) and name in ("x", "a", "b", "bias"):
            quiet = np.asarray(problem.get(f"{name}_zero_point", 0))
            yield from (_with(problem, **{name: v}) for v in _quieter(value, quiet))
    for i, tensor in enumerate(problem.get("tensors") or ()):
        for values in _quieter(tensor.values, tensor.qparams.zero_point):
            others = problem["tensors"]
            yield _with(problem, tensors=(*others[:i], _tensor_like(tensor, values), *others[i + 1 :]))


def _tensor_like(tensor, values):
    return QTensor(laid_as(values, tensor.values), tensor.qparams)


def _quieter(values, quiet):
    quiet = np.broadcast_to(quiet, values.shape).astype(values.dtype)
    loud = np.flatnonzero((values != quiet).reshape(-1))
    pieces = [np.arange(loud.size)] if loud.size else []
    for index in (*pieces, *(_subsets(loud.size) if loud.size <= 4096 else ())):
        changed = np.ascontiguousarray(values).reshape(-1).copy()
        changed[loud[index]] = quiet.reshape(-1)[loud[index]]
        yield changed.reshape(values.shape)
    for i in loud if loud.size <= 8 else ():
        for simpler in _simpler(values.reshape(-1)[i], quiet.reshape(-1)[i]):
            changed = np.ascontiguousarray(values).reshape(-1).copy()
            changed[i] = simpler
            yield changed.reshape(values.shape)


def _simpler(value, quiet):
    """Return codes nearer to the quiet one, or real numbers of fewer digits."""
    if value.dtype.kind == "f":
        texts = [float(f"{value:.{d}e}") for d in range(4)]
        return [v for v in texts if np.isfinite(v) and len(repr(v)) < len(repr(float(str(value))))]
    near, far, limits = int(quiet), int(value), np.iinfo(value.dtype)
    codes = dict.fromkeys((near + 1, near - 1, near + ((far - near) >> 1)))
    return [c for c in codes if abs(c - near) < abs(far - near) and limits.min <= c <= limits.max]


#: Each yields problems simpler than a given one, boldest first.
REDUCTIONS = (_fewer_outputs, _smaller_inputs, _fewer_depth, _same_sum, _plainer_arguments, _plainer_parameters, _fewer_values)
