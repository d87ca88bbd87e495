"""`Problem`: one call of an operator, without saying whose arithmetic; and its answer by the oracle."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from inspect import signature
from types import MappingProxyType

import numpy as np

from refquant.core.embedding import pack_embedding
from refquant.core.layout import is_channels_last, is_dense_channels_last, steps_of, to_channels_last, with_steps
from refquant.core.qparams import QParams
from refquant.core.qtensor import QTensor
from refquant.errors import ArgumentError, choose

__all__ = ["Problem", "oracle", "answer", "to_plain", "from_plain"]


@dataclass(frozen=True, eq=False)
class Problem:
    """One call of ``refquant.ops.<op>`` without its ``numerics``: what an engine and the oracle are both asked.

    Attributes
    ----------
    op : str
        The operator's name in `refquant.ops`.
    arguments : mapping
        Every argument by its keyword: QTensor, QParams, arrays, numbers, tuples, None.

    Examples
    --------
    >>> x = QTensor(np.array([3, 9], np.uint8), QParams(1.0, 5, "uint8"))
    >>> problem = Problem("relu", {"x": x})
    >>> oracle(problem, "fbgemm")
    array([5, 9], dtype=uint8)
    """

    op: str
    arguments: Mapping

    def __post_init__(self):
        if not isinstance(self.op, str) or not isinstance(self.arguments, Mapping):
            raise ArgumentError(f"Problem: op={self.op!r} must be an operator's name and arguments a mapping, not {type(self.arguments).__name__}; give Problem('relu', {{'x': x}})")
        object.__setattr__(self, "arguments", MappingProxyType(dict(self.arguments)))

    def __getitem__(self, name):
        return self.arguments[name]

    def get(self, name, default=None):
        """Return an argument, or `default` where the problem leaves it out."""
        return self.arguments.get(name, default)

    def quantized(self):
        """Yield whatever has a quantized dtype: every QTensor and QParams among the arguments."""
        for value in self.arguments.values():
            for item in value if isinstance(value, (tuple, list)) else (value,):
                if isinstance(item, (QTensor, QParams)):
                    yield item

    def __reduce__(self):
        return Problem, (self.op, dict(self.arguments))


# Elements that a described view may span in memory.
_MOST_SPAN = 1 << 28


def oracle(problem, numerics, *, reference=False):
    """Return what refquant computes for a problem: codes, or float32 numbers.

    Parameters
    ----------
    problem : Problem
    numerics : str or Numerics
    reference : bool
        Ask the readable NumPy reference in place of the fast kernels.

    Returns
    -------
    ndarray
    """
    from refquant import numerics as profiles
    from refquant import ops
    from refquant.ops.pairing import saturating_level

    if not isinstance(problem, Problem):
        raise ArgumentError(f"oracle: problem is a {type(problem).__name__} but must be a Problem; build one, or write Problem('relu', {{'x': x}})")
    table = {op.name: op for op in ops.OPS}
    op = table[choose("oracle", "op", problem.op, table)]
    arguments = dict(problem.arguments)
    _check_names(op.name, op.fast, arguments)
    if op.name not in _WITHOUT_NUMERICS:
        arguments["numerics"] = numerics
    elif op.name == "matmul_integer":
        arguments.setdefault("isa", saturating_level(profiles.get(numerics)))
    return answer(op.name, (op.reference if reference else op.fast)(**arguments))


@lru_cache(maxsize=256)
def _names(function):
    """Return the names of a function's arguments, and of those that it cannot do without."""
    parameters = signature(function).parameters
    return tuple(parameters), tuple(name for name, p in parameters.items() if p.default is p.empty)


def _check_names(op, function, arguments):
    known, needed = _names(function)
    for name in arguments:
        choose(f"oracle: {op}", "argument", name, known)
    missing = [name for name in needed if name not in arguments]
    if missing:
        raise ArgumentError(f"oracle: the problem of {op} lacks {', '.join(missing)}; give every argument that has no usual value")


_WITHOUT_NUMERICS = ("matmul_integer", "conv_integer", "quantize_embedding", "reshape", "flatten")
# Operators that choose the parameters of their output, which are part of the answer.
_WITH_PARAMETERS = ("quantize_dynamic", "add_scalar", "mul_scalar")


def answer(op, y):
    """Return an operator's result as one array: codes or numbers; with the output's parameters, as float64, where the operator chooses them.

    Examples
    --------
    >>> answer("mul_scalar", QTensor(np.array([3, 9], np.uint8), QParams(0.5, 5, "uint8")))
    array([3. , 9. , 0.5, 5. ])
    """
    if op == "quantize_embedding":
        return pack_embedding(y)
    if isinstance(y, QParams):
        return np.array([y.scale, y.zero_point], np.float64)
    if op == "lstm_dynamic":
        return np.concatenate([part.reshape(-1) for part in y])
    if op in _WITH_PARAMETERS:
        return np.concatenate([y.values.reshape(-1).astype(np.float64), answer(op, y.qparams)])
    return y.values if isinstance(y, QTensor) else np.asarray(y)


def to_plain(problem):
    """Split a problem into a JSON-able description and a list of arrays, which together give it back bit for bit."""
    arrays = []
    described = {name: _describe(value, arrays, name) for name, value in problem.arguments.items()}
    return {"op": problem.op, "arguments": described}, arrays


def from_plain(description, arrays):
    """Rebuild the problem that `to_plain` took apart.

    Examples
    --------
    >>> x = QTensor(np.array([3, 9], np.uint8), QParams(0.1, 5, "uint8"))
    >>> again = from_plain(*to_plain(Problem("relu", {"x": x})))
    >>> again["x"].qparams == x.qparams, again["x"].values.tolist()
    (True, [3, 9])
    """
    try:
        return Problem(description["op"], {name: _rebuild(value, arrays) for name, value in description["arguments"].items()})
    except (KeyError, TypeError, IndexError) as error:
        raise ArgumentError(f"problem: the description lacks or garbles {error}; write it with refquant.verify.to_plain") from error


def _describe(value, arrays, name):
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, QTensor):
        return {"qtensor": _describe(value.values, arrays, name), "qparams": _describe(value.qparams, arrays, name)}
    if isinstance(value, QParams):
        return {
            "scale": np.asarray(value.scale).tolist(), "zero_point": np.asarray(value.zero_point).tolist(), "dtype": value.dtype,
            "axis": value.axis, "quant_min": value.qmin, "quant_max": value.qmax,
        }  # fmt: skip
    if isinstance(value, (np.bool_, np.integer, np.floating)):
        return value.item()
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        arrays.append(np.ascontiguousarray(value))
        described = {"array": len(arrays) - 1, "channels_last": is_channels_last(value)}
        dense = value.flags.c_contiguous or is_dense_channels_last(value)
        return described if dense or steps_of(value) is None else {**described, "strides": list(steps_of(value))}
    if isinstance(value, (tuple, list)):
        return [_describe(v, arrays, name) for v in value]
    raise ArgumentError(f"problem: argument {name} is a {type(value).__name__}, which cannot be stored; use arrays, QTensor, QParams or numbers")


def _rebuild(value, arrays):
    if isinstance(value, list):
        return tuple(_rebuild(v, arrays) for v in value)
    if not isinstance(value, dict):
        return value
    if "qtensor" in value:
        return QTensor(_rebuild(value["qtensor"], arrays), _rebuild(value["qparams"], arrays))
    if "array" in value:
        array = arrays[value["array"]]
        if "strides" in value:
            return _strided(array, value["strides"])
        return to_channels_last(array) if value["channels_last"] else array
    return QParams(**value)


def _strided(array, steps):
    """Return an array with described strides, which must not take it beyond the memory that a file may ask for."""
    if not isinstance(steps, (list, tuple)) or len(steps) != array.ndim or any(type(s) is not int or not 0 <= s <= _MOST_SPAN for s in steps):
        raise ArgumentError(f"problem: strides={steps!r} of an array {array.shape} must be {array.ndim} numbers of elements, none negative; write the problem with refquant.verify.to_plain")
    span = sum((n - 1) * s for n, s in zip(array.shape, steps))
    if span > _MOST_SPAN:
        raise ArgumentError(f"problem: strides={steps!r} of an array {array.shape} span {span:,} elements, but at most {_MOST_SPAN:,} are laid out; cut the problem down")
    laid = with_steps(array, steps)
    if laid is None:
        raise ArgumentError(f"problem: strides={steps!r} of an array {array.shape} make elements one that differ; write the problem with refquant.verify.to_plain")
    return laid
