"""`BatchNormState`: a batch norm in training: it normalizes by the statistics of the batch, and its running statistics follow."""

import numpy as np

from refquant.errors import ShapeError

__all__ = ["BatchNormState"]

_D = np.float64


class BatchNormState:
    """The parameters of a batch norm, and what a pass in training does to them; nothing is trained, weight and bias stay.

    Parameters
    ----------
    params : dict of str to ndarray of float32, (C,)
        weight, bias, running_mean and running_var; copied.
    eps, momentum : float

    Attributes
    ----------
    params : dict

    Notes
    -----
    ``y = x · a + (bias - mean · a)``, ``a = weight / sqrt(var + eps)``, mean and variance of the batch, which is divided by its size; then
    ``running = momentum · batch + (1 - momentum) · running``, where the variance is divided by the size less one.

    Exactness: all in float64, y and the running statistics rounded once to float32: in which order PyTorch sums a batch in float32 depends on the processor.

    Source: PyTorch 2.13, ATen/native/Normalization.cpp, ``batch_norm_cpu_update_stats_template`` and ``batch_norm_cpu_transform_input_template``.

    Examples
    --------
    >>> one = np.ones(1, np.float32)
    >>> norm = BatchNormState({"weight": one, "bias": 0 * one, "running_mean": 0 * one, "running_var": one}, eps=0.0)
    >>> norm(np.float32([[1], [3]])).tolist(), norm.params["running_mean"].tolist(), norm.params["running_var"].tolist()
    ([[-1.0], [1.0]], [0.20000000298023224], [1.100000023841858])
    """

    def __init__(self, params, eps=1e-5, momentum=0.1):
        self.params, self.eps, self.momentum = {k: np.array(v) for k, v in params.items()}, eps, momentum

    def __call__(self, x):
        """Normalize a batch, (N, C, ...), by its own statistics, and let the running ones follow."""
        axes, size = (0, *range(2, x.ndim)), x.size // x.shape[1] if x.ndim > 1 and x.shape[1] else 0
        if size < 2:
            raise ShapeError(f"batch_norm in training: a batch of shape {x.shape} has {size} values a channel but must have more than one; give more images, or call eval()")
        wide = x.astype(_D)
        mean = wide.mean(axes)
        squares = np.square(wide - mean.reshape(1, -1, *[1] * (x.ndim - 2))).sum(axes)
        scale = self.params["weight"] / np.sqrt(squares / size + self.eps)
        column = lambda v: v.reshape(1, -1, *[1] * (x.ndim - 2))  # noqa: E731
        y = wide * column(scale) + column(self.params["bias"] - mean * scale)
        for name, value in (("running_mean", mean), ("running_var", squares / (size - 1))):
            self.params[name] = (self.momentum * value + (1 - self.momentum) * self.params[name].astype(_D)).astype(np.float32)
        return y.astype(np.float32)

    def factor(self):
        """Return ``weight / sqrt(running_var + eps)``, each step rounded to float32: by how much the norm scales the layer before it."""
        return self.params["weight"] / np.sqrt(self.params["running_var"] + np.float32(self.eps))
