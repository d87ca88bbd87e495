"""`BackendConfig`: what an engine can quantize and what is fused before, as a table of patterns that can be read, printed and changed."""

from typing import NamedTuple

from refquant.errors import ArgumentError, choose
from refquant.graph.match import ANY, parse_pattern

__all__ = ["OWN", "SHARE", "BY_TENSORS", "NOT_OBSERVED", "DTypeWithConstraints", "DTypeConfig", "BackendPatternConfig", "BackendConfig", "as_constraints"]

OWN = "own"
"""The output gets an observer of its own."""
SHARE = "share"
"""The output, and all inputs, share the observer of the first input: values pass through without new parameters."""
BY_TENSORS = "by tensors"
"""`OWN` for two tensors, `SHARE` for a tensor and a number."""
NOT_OBSERVED = "none"
"""The operation returns no tensor."""

_OBSERVATIONS = (OWN, SHARE, BY_TENSORS, NOT_OBSERVED)


class DTypeWithConstraints(NamedTuple):
    """A dtype, and what an engine asks of the observer that quantizes to it.

    Attributes
    ----------
    dtype : str or None
        None takes any.
    quant_min, quant_max : int, optional
        The observer's codes must lie within.
    scale_min : float, optional
        The observer's least scale (its ``eps``) must not be smaller.
    scale, zero_point : float and int, optional
        The observer must be a `FixedQParamsObserver` with just these.
    """

    dtype: str = None
    quant_min: int = None
    quant_max: int = None
    scale_min: float = None
    scale: float = None
    zero_point: int = None

    def allows(self, observer):
        """Whether an observer keeps the constraints; its dtype is not looked at."""
        if self.dtype is None or getattr(observer, "dtype", None) != self.dtype:
            return True
        least, most, eps = (getattr(observer, name, None) for name in ("quant_min", "quant_max", "eps"))
        if self.quant_min is not None and (least is None or most is None or least < self.quant_min or most > self.quant_max):
            return False
        if self.scale_min is not None and (eps is None or eps < self.scale_min):
            return False
        if self.scale is not None:
            # A fake-quantize class with fixed parameters holds such an observer.
            fixed = getattr(observer, "activation_post_process", observer)
            if not type(fixed).__name__.startswith("FixedQParams"):
                return False
            return (fixed.scale, fixed.zero_point) == (self.scale, self.zero_point)
        return True

    def __str__(self):
        parts = [self.dtype or "any"]
        if self.quant_min is not None:
            parts.append(f"{self.quant_min} … {self.quant_max}" if self.scale is None else "")
        if self.scale_min is not None:
            parts.append(f"scale ≥ {self.scale_min:g}")
        if self.scale is not None:
            parts.append(f"fixed at scale {self.scale:g}, zero {self.zero_point}")
        return " ".join(filter(None, parts))


def as_constraints(dtype):
    """Return a dtype's name as `DTypeWithConstraints`."""
    return dtype if isinstance(dtype, DTypeWithConstraints) else DTypeWithConstraints(dtype)


class DTypeConfig(NamedTuple):
    """One combination of dtypes that an engine has kernels for.

    Attributes
    ----------
    input, output, weight : DTypeWithConstraints
    bias : str or None
    is_dynamic : bool
        Whether the input is quantized at run time.
    """

    input: DTypeWithConstraints = DTypeWithConstraints()
    output: DTypeWithConstraints = DTypeWithConstraints()
    weight: DTypeWithConstraints = DTypeWithConstraints()
    bias: str = None
    is_dynamic: bool = False

    def __str__(self):
        weight = "" if self.weight.dtype is None else f" × {self.weight}"
        return f"{'dynamic ' if self.is_dynamic else ''}{self.input}{weight} → {self.output}"


class BackendPatternConfig(NamedTuple):
    """A line of the table.

    Attributes
    ----------
    pattern : str
        The expression that is matched, of targets such as ``"nn.ReLU(nn.Conv2d)"``; ``*`` stands for any value.
    dtype_configs : tuple of DTypeConfig
    observation : {OWN, SHARE, BY_TENSORS, NOT_OBSERVED}
        Where observers go.
    fused : str, optional
        What the pattern is called after it was made one node, before observers are placed. None: it stays as it is.
    weighted : bool
        Whether the operation's weight is quantized by an observer of its own when the layer becomes a reference layer.
    """

    pattern: str
    dtype_configs: tuple = ()
    observation: str = OWN
    fused: str = None
    weighted: bool = False

    @property
    def fixed(self):
        """The output's fixed parameters as a DTypeWithConstraints, or None."""
        return next((c.output for c in self.dtype_configs if c.output.scale is not None), None)


class BackendConfig:
    """A table of patterns.

    Parameters
    ----------
    name : str
    configs : iterable of BackendPatternConfig
        A pattern that stands twice takes the later line, at the place of the first.

    Examples
    --------
    >>> own = BackendConfig("own", [BackendPatternConfig("nn.ReLU(nn.Linear)", fused="nni.LinearReLU")])
    >>> own = own.set_backend_pattern_config(BackendPatternConfig("nn.MaxPool2d", (DTypeConfig(as_constraints("uint8"), as_constraints("uint8")),), SHARE))
    >>> print(own)
    own: 2 patterns, 1 fused
    pattern              fused into      observer  dtypes
    ------------------------------------------------------------
    nn.ReLU(nn.Linear)   nni.LinearReLU  own
    nn.MaxPool2d                         share     uint8 → uint8
    """

    def __init__(self, name="", configs=()):
        self.name = name
        self._by_pattern = {}
        for config in configs:
            self._by_pattern[_checked(config, name).pattern] = config

    @property
    def configs(self):
        """The lines, as a tuple."""
        return tuple(self._by_pattern.values())

    @property
    def fusions(self):
        """The lines that fuse."""
        return tuple(c for c in self.configs if c.fused)

    def find(self, pattern):
        """Return the line of a pattern or of a fused target, or None."""
        return self._by_pattern.get(pattern)

    def set_backend_pattern_config(self, config):
        """Return a table with one more line, or with one line changed."""
        return BackendConfig(self.name, (*self.configs, config))

    def set_name(self, name):
        """Return the table under another name."""
        return BackendConfig(name, self.configs)

    def fused_parts(self, target):
        """Return the targets of the modules that a fused layer is made of, for rules by object type; empty for others."""
        for config in self.configs:
            if config.fused == target and target.startswith("nni."):
                parts = [t for t in reversed(parse_pattern(config.pattern).targets) if t != ANY]
                return tuple(_module_name(t) for t in parts if t not in ("operator.add", "torch.add") and ("BatchNorm" not in t or "Bn" in target) or t == parts[0])
        return ()

    def __eq__(self, other):
        return isinstance(other, BackendConfig) and (self.name, self.configs) == (other.name, other.configs)

    def __repr__(self):
        return f"<BackendConfig {self.name!r}: {len(self.configs)} patterns>"

    def __str__(self):
        rows = [("pattern", "fused into", "observer", "dtypes")]
        for c in self.configs:
            kind = c.observation if c.fixed is None else f"fixed {c.fixed.scale:g}, {c.fixed.zero_point}"
            rows.append((c.pattern, c.fused or "", kind, "; ".join(map(str, c.dtype_configs))))
        widths = [max(len(row[i]) for row in rows) + (1 if i == 0 else 0) for i in range(3)]
        lines = ["  ".join((*(cell.ljust(w) for cell, w in zip(row, widths)), row[3])).rstrip() for row in rows]
        return "\n".join([f"{self.name}: {len(self.configs)} patterns, {len(self.fusions)} fused", lines[0], "-" * max(map(len, lines)), *lines[1:]])


def _checked(config, table):
    place = f"BackendConfig {table!r}"
    if not isinstance(config, BackendPatternConfig):
        raise ArgumentError(f"{place}: {config!r} is a {type(config).__name__}; lines must be BackendPatternConfig")
    parse_pattern(config.pattern)
    choose(place, "observation", config.observation, _OBSERVATIONS)
    if any(not isinstance(c, DTypeConfig) for c in config.dtype_configs):
        raise ArgumentError(f"{place}: dtype_configs of {config.pattern!r} must be a tuple of DTypeConfig")
    return config


def _module_name(target):
    """PyTorch makes a module of a function that it fuses."""
    return "nn.ReLU" if target == "F.relu" else target
