"""`Value`: what a node of a model under construction computes; its methods append nodes."""

from refquant.errors import ShapeError
from refquant.graph.shapes import pair
from refquant.graph.table import shape_text

__all__ = ["Value"]


class Value:
    """The value of a node of a model under construction; its methods append nodes.

    Examples
    --------
    A residual block:

    >>> from refquant.graph import Builder
    >>> def block(x, channels, stride=1):
    ...     y = x.conv2d(channels, 3, stride=stride, padding=1, bias=False).batch_norm().relu()
    ...     y = y.conv2d(channels, 3, padding=1, bias=False).batch_norm()
    ...     if stride != 1 or x.channels != channels:
    ...         x = x.conv2d(channels, 1, stride=stride, bias=False).batch_norm()
    ...     return (y + x).relu()
    >>> b = Builder(seed=1)
    >>> y = block(b.input(shape=(None, 16, 8, 8)), 32, stride=2)
    >>> y.shape, y.name
    ((None, 32, 4, 4), 'relu_1')
    """

    __slots__ = ("builder", "name", "shape")

    def __init__(self, builder, name, shape):
        self.builder, self.name, self.shape = builder, name, shape

    @property
    def channels(self):
        """The size of axis 1."""
        if len(self.shape) < 2 or self.shape[1] is None:
            raise ShapeError(f"Value {self.name!r}: shape {shape_text(self.shape)} has no known axis 1; state the input's shape")
        return self.shape[1]

    def _conv(self, dims, channels, kernel_size, geometry, bias, weight, name):
        shape = (channels, self.channels // geometry["groups"], *pair(kernel_size, dims))
        return self.builder.weighted(f"conv{dims}d", self, shape, geometry, weight, bias, name)

    def conv2d(self, channels, kernel_size, *, stride=1, padding=0, dilation=1, groups=1, bias=True, weight=None, name=None):
        """Append a convolution with `channels` outputs; `weight` and `bias` may be arrays, else the builder finds or draws them."""
        geometry = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        return self._conv(2, channels, kernel_size, geometry, bias, weight, name)

    def conv1d(self, channels, kernel_size, *, stride=1, padding=0, dilation=1, groups=1, bias=True, weight=None, name=None):
        """Append a one-dimensional convolution."""
        geometry = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        return self._conv(1, channels, kernel_size, geometry, bias, weight, name)

    def conv3d(self, channels, kernel_size, *, stride=1, padding=0, dilation=1, groups=1, bias=True, weight=None, name=None):
        """Append a three-dimensional convolution."""
        geometry = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        return self._conv(3, channels, kernel_size, geometry, bias, weight, name)

    def conv_transpose(
        self, channels, kernel_size, *, stride=1, padding=0, output_padding=0, dilation=1, groups=1, bias=True, weight=None, name=None
    ):  # fmt: skip
        """Append a transposed convolution over as many axes as this value has."""
        dims = len(self.shape) - 2
        attrs = {"stride": stride, "padding": padding, "output_padding": output_padding, "dilation": dilation, "groups": groups}
        shape = (self.channels, channels // groups, *pair(kernel_size, dims))
        return self.builder.weighted(f"conv_transpose{dims}d", self, shape, attrs, weight, bias, name, outputs=channels)

    def linear(self, features, *, bias=True, weight=None, name=None):
        """Append a fully connected layer with `features` outputs."""
        if not self.shape or self.shape[-1] is None:
            raise ShapeError(f"Value {self.name!r}: shape {shape_text(self.shape)} has no known last axis; state the input's shape")
        return self.builder.weighted("linear", self, (features, self.shape[-1]), {}, weight, bias, name)

    def embedding(self, count, width, *, weight=None, name=None):
        """Append a look-up of rows of a table of (count, width); this value holds indices."""
        return self.builder.weighted("embedding", self, (count, width), {}, weight, False, name)

    def batch_norm(self, *, eps=1e-5, params=None, name=None):
        """Append a batch norm; `params` may hold the arrays weight, bias, running_mean, running_var."""
        path = self.builder.path("batch_norm", name)
        params = params or self._parameters(path, "weight", "bias", "running_mean", "running_var")
        target = {2: "nn.BatchNorm1d", 3: "nn.BatchNorm1d", 4: "nn.BatchNorm2d", 5: "nn.BatchNorm3d"}[len(self.shape)]
        return self.builder.append("batch_norm", [self], {"eps": eps}, params, path=path, target=target)

    def group_norm(self, num_groups, *, eps=1e-5, name=None):
        """Append a group norm."""
        path = self.builder.path("group_norm", name)
        return self.builder.append("group_norm", [self], {"num_groups": num_groups, "eps": eps}, self._parameters(path, "weight", "bias"), path=path)

    def instance_norm(self, *, eps=1e-5, affine=False, name=None):
        """Append an instance norm, with a weight and a bias if `affine`."""
        path = self.builder.path("instance_norm", name)
        params = self._parameters(path, "weight", "bias") if affine else {}
        target = f"nn.InstanceNorm{len(self.shape) - 2}d"
        return self.builder.append("instance_norm", [self], {"eps": eps}, params, path=path, target=target)

    def layer_norm(self, *, axes=1, eps=1e-5, name=None):
        """Append a layer norm over the last axis, or the last `axes`."""
        path = self.builder.path("layer_norm", name)
        params = {key: self.builder.array(path, key, self.shape[-axes:]) for key in ("weight", "bias")}
        return self.builder.append("layer_norm", [self], {"eps": eps}, params, path=path)

    def local_response_norm(self, size, *, alpha=1e-4, beta=0.75, k=1.0, name=None):
        """Append a local response norm."""
        return self.builder.append("local_response_norm", [self], {"size": size, "alpha": alpha, "beta": beta, "k": k}, name=name)

    def _parameters(self, path, *keys):
        return {key: self.builder.array(path, key, (self.channels,)) for key in keys}

    def prelu(self, *, per_channel=False, name=None):
        """Append a PReLU with one slope, or one for each channel."""
        path = self.builder.path("prelu", name)
        params = {"weight": self.builder.array(path, "weight", (self.channels if per_channel else 1,))}
        return self.builder.append("prelu", [self], {}, params, path=path)

    def _plain(self, op, name, **attrs):
        return self.builder.append(op, [self], attrs, name=name)

    def relu(self, *, name=None):
        """Append a ReLU."""
        return self._plain("relu", name)

    def relu6(self, *, name=None):
        """Append a ReLU that ends at 6."""
        return self._plain("relu6", name)

    def hardtanh(self, min_val=-1.0, max_val=1.0, *, name=None):
        """Append limits."""
        return self._plain("hardtanh", name, min_val=min_val, max_val=max_val)

    def hardswish(self, *, name=None):
        """Append a hard swish."""
        return self._plain("hardswish", name)

    def hardsigmoid(self, *, name=None):
        """Append a hard sigmoid."""
        return self._plain("hardsigmoid", name)

    def sigmoid(self, *, name=None):
        """Append a sigmoid."""
        return self._plain("sigmoid", name)

    def tanh(self, *, name=None):
        """Append a hyperbolic tangent."""
        return self._plain("tanh", name)

    def silu(self, *, name=None):
        """Append a SiLU, also called swish."""
        return self._plain("silu", name)

    def elu(self, alpha=1.0, *, name=None):
        """Append an ELU."""
        return self._plain("elu", name, alpha=alpha)

    def leaky_relu(self, negative_slope=0.01, *, name=None):
        """Append a leaky ReLU."""
        return self._plain("leaky_relu", name, negative_slope=negative_slope)

    def gelu(self, approximate="none", *, name=None):
        """Append a GELU."""
        return self._plain("gelu", name, approximate=approximate)

    def softmax(self, dim=-1, *, name=None):
        """Append a softmax."""
        return self._plain("softmax", name, dim=dim)

    def log_softmax(self, dim=-1, *, name=None):
        """Append a logarithm of a softmax."""
        return self._plain("log_softmax", name, dim=dim)

    def _pool(self, kind, dims, name, **attrs):
        return self._plain(f"{kind}{dims}d", name, **attrs)

    def max_pool2d(self, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, *, name=None):
        """Append a maximum pool."""
        attrs = {"kernel_size": kernel_size, "stride": stride, "padding": padding, "dilation": dilation, "ceil_mode": ceil_mode}
        return self._pool("max_pool", 2, name, **attrs)

    def max_pool(self, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, *, name=None):
        """Append a maximum pool over all axes from the third on."""
        attrs = {"kernel_size": kernel_size, "stride": stride, "padding": padding, "dilation": dilation, "ceil_mode": ceil_mode}
        return self._pool("max_pool", len(self.shape) - 2, name, **attrs)

    def avg_pool2d(self, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, *, name=None):
        """Append an average pool."""
        attrs = {"kernel_size": kernel_size, "stride": stride, "padding": padding, "ceil_mode": ceil_mode, "count_include_pad": count_include_pad}
        return self._pool("avg_pool", 2, name, **attrs)

    def avg_pool(self, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, *, name=None):
        """Append an average pool over all axes from the third on."""
        attrs = {"kernel_size": kernel_size, "stride": stride, "padding": padding, "ceil_mode": ceil_mode, "count_include_pad": count_include_pad}
        return self._pool("avg_pool", len(self.shape) - 2, name, **attrs)

    def adaptive_avg_pool2d(self, output_size=1, *, name=None):
        """Append an average pool into `output_size` windows."""
        return self._pool("adaptive_avg_pool", 2, name, output_size=output_size)

    def adaptive_avg_pool(self, output_size=1, *, name=None):
        """Append an average pool into `output_size` windows, over all axes from the third on; 1 is the global average."""
        return self._pool("adaptive_avg_pool", len(self.shape) - 2, name, output_size=output_size)

    def mean(self, dim, keepdim=False, *, name=None):
        """Append an average over one axis or several."""
        return self._plain("mean", name, dim=dim, keepdim=keepdim)

    def flatten(self, start_dim=1, *, name=None):
        """Append a flattening of all axes from `start_dim` on."""
        return self.builder.append("flatten", [self], {"start_dim": start_dim}, name=name)

    def reshape(self, *shape, name=None):
        """Append a reshape."""
        return self.builder.append("reshape", [self], {"shape": tuple(shape)}, name=name)

    def permute(self, *dims, name=None):
        """Append a reordering of axes."""
        return self.builder.append("permute", [self], {"dims": tuple(dims)}, name=name)

    def transpose(self, dim0, dim1, *, name=None):
        """Append an exchange of two axes."""
        return self._plain("transpose", name, dim0=dim0, dim1=dim1)

    def squeeze(self, dim, *, name=None):
        """Append the removal of an axis of length 1."""
        return self._plain("squeeze", name, dim=dim)

    def unsqueeze(self, dim, *, name=None):
        """Append a new axis of length 1."""
        return self._plain("unsqueeze", name, dim=dim)

    def slice(self, dim, start=None, stop=None, step=1, *, name=None):
        """Append a part of one axis."""
        return self._plain("slice", name, dim=dim, start=start, stop=stop, step=step)

    def select(self, dim, index, *, name=None):
        """Append one entry of an axis, which vanishes."""
        return self._plain("select", name, dim=dim, index=index)

    def chunk(self, chunks, dim=1):
        """Append as many slices as there are parts, of equal length but perhaps the last, and return them."""
        size = self.shape[dim]
        return self.split(-(-size // chunks), dim)

    def split(self, size, dim=1):
        """Append slices of `size` entries of an axis, or of the sizes in a sequence, and return them."""
        total = self.shape[dim]
        sizes = [min(size, total - k) for k in range(0, total, size)] if isinstance(size, int) else list(size)
        ends = [sum(sizes[: k + 1]) for k in range(len(sizes))]
        return tuple(self.slice(dim, end - length, end) for length, end in zip(sizes, ends))

    def expand(self, *shape, name=None):
        """Append a repetition of axes of length 1; None keeps an axis."""
        return self._plain("expand", name, shape=tuple(shape))

    def pixel_shuffle(self, upscale_factor, *, name=None):
        """Append a larger image, of channels that become pixels."""
        return self._plain("pixel_shuffle", name, upscale_factor=upscale_factor)

    def pixel_unshuffle(self, downscale_factor, *, name=None):
        """Append a smaller image, whose pixels become channels."""
        return self._plain("pixel_unshuffle", name, downscale_factor=downscale_factor)

    def repeat(self, *sizes, name=None):
        """Append copies of the whole along each axis."""
        return self._plain("repeat", name, sizes=sizes)

    def repeat_interleave(self, repeats, dim, *, name=None):
        """Append copies of each entry of an axis."""
        return self._plain("repeat_interleave", name, repeats=repeats, dim=dim)

    def channel_shuffle(self, groups, *, name=None):
        """Append an exchange of channels between groups."""
        return self._plain("channel_shuffle", name, groups=groups)

    def pad(self, pad, value=0.0, *, name=None):
        """Append a border of a number; pairs from the last axis to the first."""
        return self._plain("pad", name, pad=tuple(pad), value=value)

    def interpolate(self, size=None, scale_factor=None, mode="nearest", align_corners=False, *, name=None):
        """Append a resizing of images."""
        return self._plain("interpolate", name, size=size, scale_factor=scale_factor, mode=mode, align_corners=align_corners)

    def dropout(self, *, name=None):
        """Append a dropout, which does nothing at inference."""
        return self.builder.append("dropout", [self], name=name)

    def cat(self, *others, dim=1, name=None):
        """Append the concatenation of this value and others."""
        return self.builder.append("cat", [self, *others], {"dim": dim}, name=name)

    def stack(self, *others, dim=0, name=None):
        """Append this value and others along a new axis."""
        return self.builder.append("stack", [self, *others], {"dim": dim}, name=name)

    def _with(self, op, other):
        if isinstance(other, Value):
            return self.builder.append(op, [self, other])
        if isinstance(other, (int, float)) and op in ("add", "mul"):
            return self.builder.append(f"{op}_scalar", [self], {"number": float(other)})
        return NotImplemented

    def __add__(self, other):
        return self._with("add", other)

    def __sub__(self, other):
        return self._with("sub", other)

    def __mul__(self, other):
        return self._with("mul", other)

    def __truediv__(self, other):
        return self._with("div", other)

    def __matmul__(self, other):
        return self._with("matmul", other)

    def __repr__(self):
        return f"<Value {self.name!r} {shape_text(self.shape)}>"
