"""Outputs of integer products, a chosen few at a time, under any variant of the sum and of the output stage.

For each chosen output the codes that it reads are gathered into a row of K, weights likewise, so that every variant of the
accumulation is a sum along rows::

    x     [output][k]   raw codes; padding as `pad`
    w     [output][k]   raw weights of the output's channel
    acc   = Σ x·w − zx·Σ w − zw·Σ x + K·zx·zw

`k` runs over input channels, then taps in raster order.
"""

import math

import numpy as np

from refquant.core import epilogue as E
from refquant.core.epilogue import apply_epilogue, to_int32
from refquant.core.fma import fma32
from refquant.core.qparams import QParams
from refquant.core.qtensor import QTensor
from refquant.core.rounding import Round, round_shift
from refquant.core.wrap import saturate, wrap_int32
from refquant.errors import UnsupportedError
from refquant.isa.products import Product
from refquant.numerics.forms import ProductForm, RealForm
from refquant.ops.arguments import any_width
from refquant.ops.output_stage import check_bias, output_stage, real_stage
from refquant.ops.post_operations import relu_of_reference
from refquant.verify.diagnosis.call import CONVOLUTIONS
from refquant.verify.diagnosis.sums import sum_of
from refquant.verify.problem import Problem
from refquant.verify.saturation import product_of

__all__ = ["Products"]

_CHUNK = 1 << 21
_STAGES_AT_ONCE = 1 << 22
# Accumulators whose sums stand in SUMS; others are left to the operator.
_SUMMED = ("exact", "fbgemm_depthwise")


class Products:
    """Evaluates `linear`, convolutions and `matmul_integer`."""

    def __init__(self, call, base, shape):
        self.base, self.shape = base, shape
        self.channels = call.codes("w").shape[0]
        self.depth = math.prod(call.codes("w").shape[1:])
        self.geometry = _Geometry(call, shape) if call.op in CONVOLUTIONS else None
        self._cache, self._epoch = {}, call.memo.epoch
        self._most_stages = max(64, _STAGES_AT_ONCE // max(self.channels, 1))

    def channel(self, index):
        """Return the output channel of flat positions."""
        spatial = math.prod(self.shape[2:]) if self.geometry else 1
        return index // spatial % self.channels

    def values(self, call, index, level=None):
        """Return the outputs at flat positions; a `level` names a set of positions that comes again, to be remembered."""
        if call.forms and (type(call.form) not in (ProductForm, RealForm) or getattr(call.form, "accumulator", "exact") not in _SUMMED):
            return call.run(self.base).reshape(-1)[index]
        if level is None and index.size * self.depth > _CHUNK:
            parts = np.array_split(index, -(-index.size * self.depth // _CHUNK))
            return np.concatenate([self._finish(call, self.accumulator(call, part), part) for part in parts])
        if call.memo.epoch != self._epoch or len(self._cache) > self._most_stages:
            # Arrays live as long as something computed from them is kept.
            self._cache, self._epoch = {}, call.memo.epoch
        return self._finish(call, self.accumulator(call, index, level), index)

    # Accumulation

    def accumulator(self, call, index, level=None):
        """Return int64 accumulators, reduced as the call says."""
        quirks = call.quirks
        total, sum_x, sum_w, depth = self.sums(call, index, level)
        zx = int(call.zero("x")) + self._how(call)[2]
        zw = np.broadcast_to(call.zero("w"), (self.channels,)).astype(np.int64)[self.channel(index)] + quirks.get("w_shift", 0)
        missing, factor = quirks.get("without", ""), quirks.get("compensation", 1)
        reduce, early = quirks.get("reduce"), quirks.get("reduce_raw", False)
        acc = reduce(total) if reduce and early else total
        if "x" not in missing:
            acc = acc - factor * zx * sum_w
        if "w" not in missing:
            acc = acc - zw * sum_x
        if "c" not in missing:
            acc = acc + factor * depth * zx * zw
        if reduce and not early:
            acc = reduce(acc)
        acc = wrap_int32(acc).astype(np.int64)
        return np.maximum(acc, 0) if quirks.get("early_relu") else acc

    def sums(self, call, index, level=None):
        """Return (Σ x·w, Σ x, Σ w, K), of the codes as the engine's registers see them."""
        quirks = call.quirks
        x, w = call.codes("x"), call.codes("w")
        (name, skip, shift), w_shift, drop = self._how(call), quirks.get("w_shift", 0), quirks.get("drop")
        pad = quirks.get("pad", int(call.zero("x")))
        key = ("sums", level, id(x), id(w), pad, name, drop, shift, w_shift, skip)
        if level is not None and key in self._cache:
            return self._cache[key][0]
        rows_x, rows_w = self._rows(x, index, level, pad) + shift, self._weights(w, index) + w_shift
        taps = math.prod(w.shape[2:])
        if skip:
            inside = ~self.geometry.places(index, level, self.channels)[1].reshape(index.size, -1)
            rows_x, rows_w, depth = rows_x * inside, rows_w * inside, inside.sum(1)
        else:
            depth = self.depth
        if drop is None:
            total = sum_of(name, w.shape)(rows_x, rows_w, taps)
        else:
            kept = drop.kept(self.depth, taps)
            total = sum_of(name, w.shape)(rows_x, rows_w * kept, taps)
            if drop.sums:
                rows_x, rows_w, depth = rows_x * kept, rows_w * kept, int(kept.sum())
        result = total, rows_x.sum(1).astype(np.int64), rows_w.sum(1).astype(np.int64), depth
        if level is not None:
            self._cache[key] = (result, x, w)
        return result

    def _rows(self, x, index, level, pad):
        if self.geometry is None:
            flat = x.reshape(-1, x.shape[-1])
            return flat[index // self.channels].astype(np.float64)
        places, outside = self.geometry.places(index, level, self.channels)
        values = np.ascontiguousarray(x).reshape(-1)[places].astype(np.float64)
        return np.where(outside, pad, values).reshape(index.size, -1)

    def _weights(self, w, index):
        return w.reshape(w.shape[0], -1)[self.channel(index)].astype(np.float64)

    def _how(self, call):
        """Return (sum, whether the padding is skipped, shift of x): the call's own quirks, or what profile and form prescribe."""
        quirks = call.quirks
        own = quirks.get("sum") or self._own_sum(call)
        if isinstance(own, Product):
            return own, own.fill == "nothing" and not own.halved and self.geometry is not None, own.shift
        return own, quirks.get("skip_pad", False), quirks.get("x_shift", 0)

    def _own_sum(self, call):
        """Return the name of the sum that the form itself prescribes for this call, or the profile's `Product` on its processor level."""
        if self.base.isa is not None and call.op != "matmul_integer":
            if "product" not in self._cache:
                self._cache["product"] = product_of(Problem(call.op, call.arguments), self.base) or "exact"
            return self._cache["product"]
        if call.op not in CONVOLUTIONS or getattr(call.form, "accumulator", "") != "fbgemm_depthwise":
            return "exact"
        if "own sum" not in self._cache:
            self._cache["own sum"] = "pairs" if self._saturates(call) else "exact"
        return self._cache["own sum"]

    def _saturates(self, call):
        """Whether the operator saturates pairs for this geometry: it is asked, with the largest codes."""
        x, w = call["x"], call["w"]
        if x.dtype != "uint8" or w.dtype != "int8" or w.shape[1] != 1:
            return False
        x = QTensor(np.full((1, *x.shape[1:]), 255, np.uint8), QParams(1.0, 0, "uint8"))
        w = QTensor(np.full(w.shape, 127, np.int8), QParams(1.0, 0, "int8"))
        (section, form), = call.forms.items()
        plain = form.replace(arithmetic="float64", multiplier="(xw)/y", zero_point="after", rounding="half_even")
        asked = call.but(x=x, w=w, bias=None, activation=None, out=QParams(1.0, 0, "int32"), forms={section: plain})
        exact = asked.with_field(section, "accumulator", "exact")
        with any_width():
            return not np.array_equal(asked.run(self.base), exact.run(self.base))

    # Output stage

    def _finish(self, call, acc, index):
        if call.op == "matmul_integer":
            return acc.astype(np.int32)
        channel = self.channel(index)
        out = call["out"]
        ep = _gathered(self.epilogue(call), channel)
        if out is None:
            cut = call["activation"] == "relu" and call.form.post == "reference"
            v = relu_of_reference(apply_epilogue(acc, ep._replace(flags=ep.flags & ~E.RELU), np.float32)) if cut else apply_epilogue(acc, ep, np.float32)
            for step in call.quirks.get("real", ()):
                v = step(v, call)
            return v
        steps, between = call.quirks.get("steps", ()), call.quirks.get("between", ())
        stage = _rounded_once if call.quirks.get("rounded_once") else apply_epilogue
        if not steps and not between and not call.quirks.get("wrap"):
            return stage(acc, ep, out.storage)
        ep = _unlimited(ep, call)
        codes = _through_real(acc, ep, between) if between else stage(acc, ep, np.int64)
        for step in steps:
            codes = step(codes, call, channel)
        if not call.quirks.get("wrap"):
            codes = saturate(codes, out._type.qmin, out._type.qmax)
        return codes.astype(out.storage)

    def epilogue(self, call):
        """Return the output stage of a call, all channels."""
        x, w, out, bias = call.qparams("x"), call.qparams("w"), call["out"], call["bias"]
        form, steps = call.form, call.quirks.get("epilogue", ())
        key = ("epilogue", form, id(x), id(w), id(out), id(bias), call["activation"], steps)
        if key not in self._cache:
            checked = check_bias(bias, self.channels, "diagnose")
            if out is None:
                ep = real_stage(form, x, w, checked, self.channels, call["activation"], "diagnose")
            else:
                ep = output_stage(form, x, w, out, checked, self.channels, call["activation"], "diagnose")
            for step in steps:
                ep = step(ep, call)
            self._cache[key] = (ep, x, w, out, bias)
        return self._cache[key][0]

    def real(self, call, index, level=None):
        """Return (acc · sx · sw + bias) in float64 and (sx · sw): what an output scale is solved from."""
        channel = self.channel(index)
        unit = np.float64(call.qparams("x").scale) * np.broadcast_to(call.qparams("w").scale, (self.channels,))[channel]
        bias = check_bias(call["bias"], self.channels, "diagnose")
        v = self.accumulator(call, index, level) * unit
        if bias is not None:
            v = v + (bias[channel] * unit if bias.dtype == np.int32 else bias[channel])
        return v, unit


_VECTORS = ("bias_i", "pre_b", "s2", "b", "m64", "mult", "shift")


def _gathered(ep, channel):
    return ep._replace(**{name: getattr(ep, name)[channel] for name in _VECTORS})


def _unlimited(ep, call):
    """Return the stage without its limits, except a ReLU's."""
    relu = call["activation"] == "relu" and not ep.flags & E.RELU
    low = ep.qlo if relu else -(2**31)
    return ep._replace(qlo=low, qhi=2**31 - 1, lo=np.float32(-(2.0**31)), hi=np.float32(2147483520.0))


def _rounded_once(acc, ep, dtype):
    """Carry out a fixed-point stage with one rounding, half up, in place of two: TFLite built with TFLITE_SINGLE_ROUNDING."""
    left = wrap_int32(acc.astype(np.int64) + ep.bias_i).astype(np.int64) << np.maximum(ep.shift, 0)
    q = round_shift(left * ep.mult, 31 + np.maximum(-ep.shift, 0), Round.HALF_UP)
    return saturate(q + ep.zi, ep.qlo, ep.qhi).astype(dtype)


def _through_real(acc, ep, between):
    """Carry out a float32 stage with `between` done to the real numbers before the output scale: the steps of `apply_epilogue` from there on."""
    if ep.kind != E.FLOAT32:
        raise UnsupportedError("diagnose: this stage has no real numbers to stop at; only float32 arithmetic has")
    v = apply_epilogue(acc, ep, np.float32)
    for step in between:
        v = step(v)
    v = fma32(v, ep.d, ep.zf) if ep.flags & E.DST_FMA else v
    v = v * ep.d if ep.flags & E.DST_MUL else v / ep.d if ep.flags & E.DST_DIV else v
    v = v + ep.zf if ep.flags & E.ZERO_FLOAT else v
    v = np.clip(np.where(np.isnan(v), ep.lo, v), ep.lo, ep.hi) if ep.flags & E.CLAMP else v
    return saturate(to_int32(v, list(Round)[ep.rounding]) + ep.zi, ep.qlo, ep.qhi)


class _Geometry:
    """Where a convolution's outputs read."""

    def __init__(self, call, shape):
        self.dims = int(call.op[4])
        self.shape = shape
        self.in_shape = call.codes("x").shape
        self.kernel = call.codes("w").shape[2:]
        self.per_group = call.codes("w").shape[1]
        self.groups = call["groups"]
        self.steps = [_sides(call[name], self.dims) for name in ("stride", "padding", "dilation")]
        self._cache = {}

    def places(self, index, level, channels):
        """Return flat positions of x, (outputs, channels of the group, taps), and which of them lie in the padding."""
        if level in self._cache:
            return self._cache[level]
        n, oc, *out = np.unravel_index(index, self.shape)
        taps = np.indices(self.kernel).reshape(self.dims, -1)
        spatial, outside = 0, False
        for o, tap, size, s, p, d in zip(out, taps, self.in_shape[2:], *self.steps):
            at = o[:, None] * s - p + tap * d
            outside = outside | (at < 0) | (at >= size)
            spatial = spatial * size + np.clip(at, 0, size - 1)
        first = oc // max(channels // self.groups, 1) * self.per_group
        channel = n[:, None] * self.in_shape[1] + first[:, None] + np.arange(self.per_group)
        places = channel[:, :, None] * math.prod(self.in_shape[2:]) + np.asarray(spatial)[:, None, :]
        result = places, np.broadcast_to(outside[:, None, :], places.shape)
        if level is not None:
            self._cache[level] = result
        return result


def _sides(value, dims):
    return tuple(value) if isinstance(value, (tuple, list, np.ndarray)) else (value,) * dims
