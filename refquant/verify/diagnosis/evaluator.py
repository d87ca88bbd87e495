"""Outputs of any call: integer products by `Products`, elementwise operators on the chosen elements, the rest as a whole."""

import numpy as np

from refquant.core.affine import dequantize_codes
from refquant.core.layout import is_channels_last, laid_as
from refquant.core.qparams import QParams
from refquant.core.qtensor import QTensor
from refquant.core.wrap import saturate
from refquant.errors import UnsupportedError
from refquant.numerics.add_forms import AddForm
from refquant.numerics.profile import section_types
from refquant.ops.arguments import any_width
from refquant.verify.diagnosis.call import PRODUCTS, Call
from refquant.verify.diagnosis.product import Products

__all__ = ["Evaluator"]

_ALL_TAIL = 1 << 40
_QUANTIZE_SECTIONS = tuple(name for name in section_types() if name.startswith("quantize"))


class Evaluator:
    """Computes calls at chosen places.

    Parameters
    ----------
    call : Call
        The undisturbed one.
    base : Numerics
    shape : tuple of int
        Of the output.

    Attributes
    ----------
    products : Products or None
    whole : bool
        Whether the operator itself is asked for everything, because its answer is not that of the parts put together here.
    """

    def __init__(self, call, base, shape):
        self.base, self.shape = base, shape
        self.products = Products(call, base, shape) if call.op in PRODUCTS else None
        self.whole = False
        self._masks = {}

    def values(self, call, index, level=None):
        """Return the outputs of a call at flat positions in logical order.

        Parameters
        ----------
        call : Call
        index : ndarray of int
        level : str, optional
            The name of `index`, if it comes again.
        """
        moved = call.quirks.get("moved")
        if moved is not None:
            if moved not in self._masks:
                self._masks[moved] = moved(self.shape)
            index = self._masks[moved][index]
            level = None if level is None else (level, moved)
        if self.whole:
            return self._whole(call, index)
        if self.products is not None:
            return self.products.values(call, index, level)
        if call.op == "add" and call["a"].shape == call["b"].shape:
            return self._add(call, index)
        if call.op in ("quantize", "fake_quantize", "dequantize"):
            return self._elements(call, index)
        return self._whole(call, index)

    def real(self, call, index, level=None):
        """Return what the output scale divides, in float64, or None where there is no such thing."""
        if self.products is not None:
            return self.products.real(call, index, level)[0]
        if call.op == "add":
            return self.dequantized(call, "a", index) + self.dequantized(call, "b", index)
        if call.op == "mul":
            return self.dequantized(call, "a", index) * self.dequantized(call, "b", index)
        if call.op == "quantize":
            return call["x"].reshape(-1)[index].astype(np.float64)
        return None

    def dequantized(self, call, role, index):
        """Return the real values of an operand of a sum or a product at flat positions of the outputs, in float64."""
        q = call[role]
        return (np.broadcast_to(q.values, self.shape).reshape(-1)[index].astype(np.float64) - q.qparams.zero_point) * q.qparams.scale

    def _elements(self, call, index):
        if hasattr(call.form, "vector"):
            return self._whole(call, index)
        name = "x" if call.op != "dequantize" else "q"
        source = call[name]
        qparams = call["qparams"] if name == "x" else source.qparams
        values = call.codes("x") if name == "q" else source
        if qparams.per_channel:
            channel = np.unravel_index(index, values.shape)[qparams.axis]
            qparams = QParams(
                qparams.scale[channel], qparams.zero_point[channel], qparams.dtype, axis=0, quant_min=qparams.qmin, quant_max=qparams.qmax, unchecked=True
            )  # fmt: skip
        flat = values.reshape(-1)[index]
        if name == "q":
            y = call.but(q=QTensor(flat, qparams)).run(self.base)
        else:
            y = _limited(call.but(x=flat, qparams=qparams), "qparams", self.base)
        for step in call.quirks.get("real", ()):
            y = step(y, call)
        return y

    def _add(self, call, index):
        form = call.form
        flat = call.but(a=_at(call["a"], index), b=_at(call["b"], index))
        if not getattr(form, "vector", 0):
            return _limited(flat, "out", self.base)
        body = self._body(call, form)[index]
        y = np.empty(index.size, call["out"].storage)
        for vector, mask in ((0, body), (_ALL_TAIL, ~body)):
            if mask.any():
                part = flat.but(a=_at(flat["a"], mask), b=_at(flat["b"], mask), threads=1, forms={"add": form.replace(vector=vector)})
                y[mask] = _limited(part, "out", self.base)
        return y

    def _body(self, call, form):
        """Return which elements, in logical order, the vector body takes: the operator is asked, with a tie that body and tail round apart."""
        last = tuple(is_channels_last(call[role].values) for role in "ab")
        key = type(form), form.vector, getattr(form, "grain", 0), call["threads"], call["a"].values.strides, call["b"].values.strides
        if key not in self._masks:
            self._masks[key] = self._asked_body(call, form) if isinstance(form, AddForm) else _blocks(form.vector, last, self.shape)
        return self._masks[key]

    def _asked_body(self, call, form):
        telling = form.replace(dequantize="sub_mul", tail_dequantize="sub_mul", scaling="divide", zero_point="after", tail_zero_point="before", rounding="half_even")
        a, b = (QTensor(laid_as(np.full(call[role].shape, code, call[role].values.dtype), call[role].values), QParams(1.0, 0, call[role].dtype)) for role, code in (("a", 1), ("b", 0)))
        asked = call.but(a=a, b=b, out=QParams(2.0, 1, call["out"].dtype), activation=None, forms={"add": telling})
        return asked.run(self.base).reshape(-1) == 1

    def _whole(self, call, index):
        if self.products is not None and call.quirks:
            raise UnsupportedError(f"diagnose[{call.op}]: this form's sums cannot be taken apart; only profiles and arguments are searched")
        y = _limited(call, "out", self.base) if call.arguments.get("out") is not None else call.run(self.base)
        if y.shape != self.shape:
            raise UnsupportedError(f"diagnose[{call.op}]: windows that change places give another shape, {y.shape} and not {self.shape}")
        y = y.reshape(-1)[index]
        for step in call.quirks.get("real", ()):
            y = step(y, call)
        return call.quirks["after"](y) if "after" in call.quirks else y


def _blocks(vector, last, shape):
    """Return which elements lie in whole blocks of memory."""
    size = int(np.prod(shape))
    mask = np.arange(size) < size // vector * vector
    return np.moveaxis(mask.reshape(shape[0], *shape[2:], shape[1]), -1, 1).reshape(-1) if all(last) else mask


def _limited(call, out, base):
    """Run the operator, and carry out the call's own steps on codes that have not been limited yet."""
    steps, wrap = call.quirks.get("steps", ()), call.quirks.get("wrap")
    if not steps and not wrap:
        return call.run(base)
    q = call[out]
    if call.op == "fake_quantize":
        return _limited_grid(call, base, steps)
    wide = QParams(q.scale, q.zero_point, "int32", q.axis, unchecked=True)
    forms = dict.fromkeys(_QUANTIZE_SECTIONS, call.form) if call.op == "quantize" else None
    with any_width():
        codes = call.but(**{out: wide}, forms=forms).run(base).astype(np.int64)
    for step in steps:
        codes = step(codes, call, None)
    if not wrap:
        codes = saturate(codes, q._type.qmin, q._type.qmax)
    return codes.astype(q.storage)


def _limited_grid(call, base, steps):
    q = call["qparams"]
    wide = QParams(q.scale, q.zero_point, "int32", q.axis, unchecked=True)
    forms = dict.fromkeys(_QUANTIZE_SECTIONS, call.form)
    codes = Call("quantize", {"x": call["x"], "qparams": wide}, forms, {}, call.memo).run(base).astype(np.int64)
    for step in steps:
        codes = step(codes, call, None)
    return dequantize_codes(codes, *q.along(1), "sub_mul")


def _at(q, index):
    return QTensor(q.values.reshape(-1)[index], q.qparams)
