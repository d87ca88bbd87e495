"""`FakeQuantize`: an observer that hands on what its batch becomes on the grid it has found: INT8 simulated in float32."""

import numpy as np

from refquant import numerics as profiles
from refquant.core.affine import dequantize_codes, quantize_real
from refquant.core.fma import fma32
from refquant.core.qparams import QParams
from refquant.core.rounding import Round, round_real
from refquant.errors import ArgumentError, RangeError, ShapeError
from refquant.observers.moving_average_min_max_observer import MovingAverageMinMaxObserver
from refquant.observers.observer_base import ObserverBase, ObserverFactory, as_batch
from refquant.observers.qparams_from_range import quant_limits

__all__ = ["FakeQuantize"]

_F = np.float32


class FakeQuantize(ObserverBase):
    """Observe, and round to the grid: ``(clip(round(x / scale) + zero_point, quant_min, quant_max) - zero_point) * scale``.

    Parameters
    ----------
    observer : observer class or factory
        Finds scale and zero point.
    quant_min, quant_max : int, optional
        The codes; the observer's unless both are given.
    is_dynamic : bool
        Given to the observer.
    **observer_kwargs
        Of the observer.

    Attributes
    ----------
    activation_post_process : ObserverBase
        The observer, whose ``quant_min`` and ``quant_max`` bound the grid.
    scale, zero_point : ndarray
        Of the grid: float32 and int64, one number each or one a channel; 1 and 0 before anything is observed.
    observer_enabled, fake_quant_enabled : bool
        Whether batches are observed, and whether they are moved onto the grid.

    Raises
    ------
    ArgumentError, RangeError
        What the observer refuses; codes outside of the dtype.

    Notes
    -----
    Exactness: bit-exact. The product with ``f(1 / scale)`` and the rounding stand before the zero point, in float32; see
    `refquant.ops.fake_quantize`. A float zero point (``"per_channel_affine_float_qparams"``) is added before the
    rounding, by a fused multiply-add, and the way back is computed in double.

    Source: PyTorch 2.13, ``torch/ao/quantization/fake_quantize.py``, ``FakeQuantize``; ATen/native/quantized/cpu/kernels/QuantizedOpKernels.cpp.

    Examples
    --------
    >>> fake = FakeQuantize(quant_min=0, quant_max=3)
    >>> fake(np.float32([0, 0.4, 1.2, 3]))
    array([0., 0., 1., 3.], dtype=float32)
    >>> fake.disable_observer()
    >>> fake(np.float32([9])), float(fake.scale[0])
    (array([3.], dtype=float32), 1.0)
    """

    def __init__(self, observer=MovingAverageMinMaxObserver, quant_min=None, quant_max=None, is_dynamic=False, **observer_kwargs):
        place = type(self).__name__
        if quant_min is not None and quant_max is not None:
            held = observer.arguments if isinstance(observer, ObserverFactory) else {}
            quant_limits(held.get("dtype", observer_kwargs.get("dtype", "quint8")), quant_min, quant_max, place=place)
            observer_kwargs = {**observer_kwargs, "quant_min": quant_min, "quant_max": quant_max}
        try:
            made = observer(**observer_kwargs, is_dynamic=is_dynamic)
        except TypeError as error:
            raise ArgumentError(f"{place}: observer={observer!r} does not take these arguments ({error}); pass an observer class and its arguments") from error
        if not isinstance(made, ObserverBase) or not hasattr(made, "qscheme"):
            raise ArgumentError(f"{place}: observer={observer!r} makes a {type(made).__name__}, which finds no scale; pass a class such as MovingAverageMinMaxObserver")
        super().__init__(made.dtype, is_dynamic)
        self.activation_post_process, self.qscheme = made, made.qscheme
        self.quant_min, self.quant_max = made.quant_min, made.quant_max
        self.ch_axis = getattr(made, "ch_axis", -1)
        self.scale, self.zero_point = np.ones(1, _F), np.zeros(1, np.float64 if "float_qparams" in self.qscheme else np.int64)
        self.observer_enabled = self.fake_quant_enabled = True

    @property
    def is_per_channel(self):
        """Whether there is a scale for each channel."""
        return self.qscheme.startswith("per_channel")

    def enable_observer(self, enabled=True):
        """Observe batches from now on, or not."""
        self.observer_enabled = bool(enabled)

    def disable_observer(self):
        """Observe no more: scale and zero point stay."""
        self.enable_observer(False)

    def enable_fake_quant(self, enabled=True):
        """Move batches onto the grid from now on, or not."""
        self.fake_quant_enabled = bool(enabled)

    def disable_fake_quant(self):
        """Hand batches on as they are."""
        self.enable_fake_quant(False)

    def calculate_qparams(self):
        """Return what the observer has found."""
        return self.activation_post_process.calculate_qparams()

    def __call__(self, x):
        """Observe `x`, if that is enabled, and return it on the grid, if that is enabled."""
        x = self._batch(x)
        if self.observer_enabled:
            self.activation_post_process(x)
            q = self.calculate_qparams()
            self.scale, self.zero_point = np.atleast_1d(np.asarray(q.scale, _F)), np.atleast_1d(np.asarray(q.zero_point))
        return self._on_grid(x) if self.fake_quant_enabled else x

    def _batch(self, x):
        x = as_batch(x, type(self).__name__)
        if x.dtype != np.float32:
            raise ArgumentError(f"{type(self).__name__}: the batch has dtype {x.dtype} but must be float32; convert it with x.astype(np.float32)")
        return x

    def _on_grid(self, x):
        place, profile = type(self).__name__, profiles.get("fbgemm")
        scale, zero = self.scale.astype(np.float64), self.zero_point
        if self.is_per_channel:
            if not -x.ndim <= self.ch_axis < x.ndim or x.shape[self.ch_axis] != scale.size:
                raise ShapeError(f"{place}: a batch of shape {x.shape} but {scale.size} scales along axis {self.ch_axis}; observe such a tensor first")
            along = [-1 if d == self.ch_axis % x.ndim else 1 for d in range(x.ndim)]
            scale, zero = scale.reshape(along), zero.reshape(along)
        else:
            scale, zero = scale[0], zero[0]
        form = profile.fake_quantize_channel if self.is_per_channel else profile.fake_quantize
        if zero.dtype.kind == "f":
            return _on_float_grid(x, scale.astype(_F), zero.astype(_F), self.quant_min, self.quant_max)
        codes = quantize_real(
            x, scale, zero, self.quant_min, self.quant_max,
            scaling=form.scaling, add=form.zero_point, rounding=form.rounding, overflow=form.overflow, nan=form.nan,
        )  # fmt: skip
        return dequantize_codes(codes, scale, zero, "sub_mul")

    def grid(self):
        """Return the QParams that batches are rounded with now, which may not be what `calculate_qparams` gives.

        Raises
        ------
        RangeError
            The zero point is no integer.
        """
        if self.zero_point.dtype.kind == "f":
            raise RangeError(f"{type(self).__name__}: the grid has float zero points, which QParams have not; ask calculate_qparams")
        limits = {"quant_min": self.quant_min, "quant_max": self.quant_max}
        if not self.is_per_channel:
            return QParams(self.scale[0], int(self.zero_point[0]), self.dtype, **limits)
        return QParams(self.scale, self.zero_point, self.dtype, axis=max(self.ch_axis, 0), **limits)

    def __repr__(self):
        return (
            f"{type(self).__name__}(observer={self.activation_post_process!r}, observer_enabled={self.observer_enabled},"
            f" fake_quant_enabled={self.fake_quant_enabled}, scale={self.scale.tolist()}, zero_point={self.zero_point.tolist()})"
        )


def _on_float_grid(x, scale, zero, qmin, qmax):
    """A fused multiply-add, rounded to int64, which NaN and what is too large leave at its low end; the way back in double, rounded once."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        q = round_real(fma32(x, np.broadcast_to(_F(1) / scale, x.shape), np.broadcast_to(zero, x.shape)), Round.HALF_EVEN).astype(np.float64)
        q = np.where(np.abs(q) < 2.0**63, np.clip(q, qmin, qmax), qmin)
    return ((q - zero.astype(np.float64)) * scale.astype(np.float64)).astype(_F)
