"""A case: one line of text from which a problem can be built again, bit for bit."""

import re
from dataclasses import dataclass, replace

from refquant.errors import ArgumentError, choose
from refquant.verify.case_outputs import outputs_of

__all__ = ["Case", "Option", "OPTIONS", "STRATEGIES", "FIELDS"]

#: How the data of a case are chosen: on and beside rounding ties; the same with scales for which two ways to compute lie on two sides of a tie; at the ends of every range; products that saturate int16 in pairs; sums that
#: leave int32; a bias so large that float32 cannot hold the sums, which lie around a tie; at random; edge by edge: of codes the ends, the zero point and
#: their neighbours, so that a product with K = 1 has all pairs of them, of real numbers every edge of float32.
STRATEGIES = ("neartie", "telling", "saturate", "pairs", "wrap", "offset", "random", "edges")


class Option(str):
    """An option's name, and what it does as its ``help``."""

    def __new__(cls, name, help):
        option = super().__new__(cls, name)
        option.help = help
        return option


#: Every option of a case, in the order in which a line lists them.
OPTIONS = (
    Option("per_channel", "weights (or the tensor) have one scale a channel"),
    Option("asymmetric", "weights have zero points"),
    Option("int8", "activations and output are int8, not uint8"),
    Option("uint8", "weights are uint8, not int8"),
    Option("int32", "codes are int32"),
    Option("nobias", "no bias"),
    Option("intbias", "the bias is int32, in units of x.scale * w.scale"),
    Option("relu", "with a ReLU"),
    Option("leaky_relu", "with a leaky ReLU"),
    Option("hardtanh", "with limits on both sides"),
    Option("hardswish", "with a hard swish"),
    Option("tanh", "with a hyperbolic tangent"),
    Option("gelu", "with a gelu"),
    Option("swish", "with a swish"),
    Option("other", "a second tensor is added before the activation"),
    Option("float", "the output is float32 (out=None)"),
    Option("channels_last", "strides of activations are channels last"),
    Option("mixed", "strides of the first input alone are channels last"),
    Option("sliced", "rows in memory lie behind one element and with gaps between them"),
    Option("stepped", "every other element of memory"),
    Option("transposed", "the two innermost axes lie in memory in the other order"),
    Option("expanded", "the first input is one element along the innermost axis (stride 0)"),
    Option("threads", "the engine runs on three threads"),
    Option("rescale", "the output has parameters of its own"),
    Option("ceil", "ceil_mode"),
    Option("nopad", "padding is not counted (count_include_pad=False)"),
    Option("divisor", "the divisor is overridden"),
    Option("equal", "inputs have the output's parameters"),
    Option("narrow", "codes keep to a narrower range (quant_min, quant_max; reduce_range)"),
    Option("bits4", "4-bit codes"),
    Option("bits2", "2-bit codes"),
    Option("weighted", "each row has a weight of its own (per_sample_weights)"),
    Option("lastoffset", "the last offset is the end of the last bag (include_last_offset)"),
    Option("alone", "each index is a bag (no offsets)"),
    Option("bilinear", "lines between points (mode=bilinear)"),
    Option("exact", "the nearest point's centre (mode=nearest-exact)"),
    Option("corners", "corners are one (align_corners)"),
    Option("factor", "sizes are given by factors"),
    Option("affine", "with weight and bias"),
    Option("keepdim", "axes of length one stay"),
    Option("first", "along axis 1, not the last"),
    Option("fromend", "axes are counted from the end, the last one first"),
    Option("symmetric", "without zero points (symmetric=True)"),
    Option("middle", "over the two axes between the first and the last"),
    Option("masked", "some keys are left out (mask)"),
    Option("causal", "later keys are left out (causal)"),
    Option("reverse", "from the last step to the first (direction=reverse)"),
    Option("bidirectional", "in both directions (direction=bidirectional)"),
    Option("broadcast", "an operand has length one along some axes"),
    Option("far", "scales, zero points, codes or biases lie where no network has them"),
)

# No side of a shape, and no seed, has more.
_DIGITS = 18

_PRODUCT = {"k": 1, "s": 1, "p": 0, "d": 1, "g": 1}

#: The letters of each operator's shape, and the value of those that may be left out; "-" joins the two halves.
FIELDS = {
    "quantize": ({}, {"n": None, "c": 0, "h": 0, "w": 0}),
    "dequantize": ({}, {"n": None, "c": 0, "h": 0, "w": 0}),
    "fake_quantize": ({}, {"n": None, "c": 0, "h": 0, "w": 0}),
    "add": ({}, {"n": None, "c": 0, "h": 0, "w": 0}),
    **{op: ({}, {"n": None, "c": 0, "h": 0, "w": 0}) for op in ("mul", "sub", "squared_difference")},
    **{op: ({}, {"n": None, "c": 0, "h": 0, "w": 0}) for op in ("relu", "sigmoid", "tanh", "hardsigmoid", "hardswish", "elu", "leaky_relu", "gelu", "exp", "log", "sqrt", "rsqrt", "abs")},
    "linear": ({}, {"m": None, "k": None, "n": None}),
    "matmul_integer": ({}, {"m": None, "k": None, "n": None}),
    "matmul": ({"b": 0}, {"m": None, "k": None, "n": None}),
    "gemm": ({}, {"m": None, "k": None, "n": None}),
    "attention": ({"n": None, "t": None, "c": None}, {"g": None, "o": None}),
    "lstm_dynamic": ({"t": None, "n": None, "c": None}, {"o": None}),
    "embed_layer_norm": ({}, {"n": None, "t": None, "c": None}),
    "where": ({}, {"n": None, "c": 0, "h": 0, "w": 0}),
    "conv1d": ({"n": None, "c": None, "w": None}, {"oc": None, **_PRODUCT}),
    "conv2d": ({"n": None, "c": None, "h": None, "w": None}, {"oc": None, **_PRODUCT}),
    "conv3d": ({"n": None, "c": None, "t": None, "h": None, "w": None}, {"oc": None, **_PRODUCT}),
    "conv_transpose1d": ({"n": None, "c": None, "w": None}, {"oc": None, **_PRODUCT, "op": 0}),
    "conv_transpose2d": ({"n": None, "c": None, "h": None, "w": None}, {"oc": None, **_PRODUCT, "op": 0}),
    "conv_transpose3d": ({"n": None, "c": None, "t": None, "h": None, "w": None}, {"oc": None, **_PRODUCT, "op": 0}),
    "max_pool2d": ({"n": None, "c": None, "h": None, "w": None}, {"k": None, "s": 0, "p": 0, "d": 1}),
    "avg_pool2d": ({"n": None, "c": None, "h": None, "w": None}, {"k": None, "s": 0, "p": 0}),
    "adaptive_avg_pool2d": ({"n": None, "c": None, "h": None, "w": None}, {"o": 1}),
    "cat": ({"n": None, "h": 0, "w": 0}, {"c": None}),
    **{op: ({}, {"n": None, "c": 0, "h": 0, "w": 0}) for op in ("quantize_dynamic", "requantize", "add_scalar", "mul_scalar", "relu6", "clamp", "hardtanh", "threshold", "celu")},
    **{op: ({}, {"n": None, "c": 0, "t": 0, "h": 0, "w": 0}) for op in ("prelu", "batch_norm", "softmax")},
    "linear_dynamic": ({}, {"m": None, "k": None, "n": None}),
    "conv1d_dynamic": ({"n": None, "c": None, "w": None}, {"oc": None, **_PRODUCT}),
    "conv2d_dynamic": ({"n": None, "c": None, "h": None, "w": None}, {"oc": None, **_PRODUCT}),
    "conv3d_dynamic": ({"n": None, "c": None, "t": None, "h": None, "w": None}, {"oc": None, **_PRODUCT}),
    "conv_integer": ({"n": None, "c": None, "t": 0, "h": 0, "w": None}, {"oc": None, **_PRODUCT}),
    "max_pool1d": ({"n": None, "c": None, "w": None}, {"k": None, "s": 0, "p": 0, "d": 1}),
    "max_pool3d": ({"n": None, "c": None, "t": None, "h": None, "w": None}, {"k": None, "s": 0, "p": 0, "d": 1}),
    "avg_pool3d": ({"n": None, "c": None, "t": None, "h": None, "w": None}, {"k": None, "s": 0, "p": 0}),
    "adaptive_avg_pool3d": ({"n": None, "c": None, "t": None, "h": None, "w": None}, {"o": 1}),
    "mean": ({"n": None, "c": 0, "h": 0, "w": 0}, {"r": 1}),
    "interpolate": ({"n": None, "c": None, "h": None, "w": None}, {"o": None}),
    "layer_norm": ({}, {"m": None, "n": None}),
    "group_norm": ({"n": None, "c": None, "h": 0, "w": None}, {"g": 1}),
    "instance_norm": ({}, {"n": None, "c": None, "h": 0, "w": None}),
    "quantize_embedding": ({}, {"m": None, "n": None}),
    "embedding_bag": ({"m": None, "n": None}, {"b": None, "l": None}),
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One line: ``operator/profile/shape/strategy/seed=N`` and options, each after a further slash.

    A shape is letters with numbers, ``3x5`` for several: N, C, H, W, OC of a convolution, its kernel K, stride S, padding P,
    dilation D, groups G and output padding OP; M, K, N of a product. Letters with their usual value may be left out.

    Attributes
    ----------
    op, profile : str
        The operator; the profile that the engine is held against.
    shape : tuple of (letter, value)
        In the operator's order; values are int or tuple of int.
    strategy : str
        One of `STRATEGIES`.
    seed : int
        Decides every random draw.
    options : tuple of str
        Some of `OPTIONS`.

    Examples
    --------
    >>> case = Case.parse("conv2d/onnxruntime/n1c16h14w14-oc32k3p1g1/neartie/seed=7/nobias")
    >>> str(case)
    'conv2d/onnxruntime/n1c16h14w14-oc32k3p1/neartie/seed=7/nobias'
    >>> case["oc"], case["s"], case.has("nobias")
    (32, 1, True)
    """

    op: str
    profile: str
    shape: tuple
    strategy: str
    seed: int
    options: tuple = ()

    def __post_init__(self):
        place = f"case {self.op}"
        choose("case", "operator", self.op, FIELDS)
        choose(place, "strategy", self.strategy, STRATEGIES)
        for option in self.options:
            choose(place, "option", option, OPTIONS)
        if not isinstance(self.seed, int) or self.seed < 0:
            raise ArgumentError(f"{place}: seed={self.seed!r} must be a non-negative integer")
        if not isinstance(self.profile, str) or not re.fullmatch(r"[\w*.+@-]+", self.profile):
            raise ArgumentError(f"{place}: profile={self.profile!r} must be one word without slashes; name the profile so")
        object.__setattr__(self, "options", tuple(str(o) for o in OPTIONS if o in self.options))
        object.__setattr__(self, "shape", _complete(place, self.op, dict(self.shape)))

    @classmethod
    def parse(cls, line):
        """Read a line.

        Raises
        ------
        ArgumentError
            What is wrong with it, and what it should look like.
        """
        parts = str(line).strip().split("/")
        if len(parts) < 5 or not re.fullmatch(r"seed=[0-9]{1,18}", parts[4]):
            raise ArgumentError(f"case {line!r} must read operator/profile/shape/strategy/seed=N[/option…], such as linear/fbgemm/m5k64n17/neartie/seed=0")
        op, profile, shape, strategy, seed, *options = parts
        choose("case", "operator", op, FIELDS)
        return cls(op=op, profile=profile, shape=_parse_shape(op, shape), strategy=strategy, seed=int(seed[5:]), options=tuple(options))

    def __str__(self):
        return "/".join([self.op, self.profile, _print_shape(self.op, dict(self.shape)), self.strategy, f"seed={self.seed}", *self.options])

    def __getitem__(self, letter):
        return dict(self.shape)[letter]

    def has(self, option):
        """Whether the option is set; an unknown one raises."""
        return choose("case", "option", option, OPTIONS) in self.options

    def replace(self, **changes):
        """Return a changed case."""
        return replace(self, **changes)

    @property
    def outputs(self):
        """The number of outputs, by the shape alone: nothing is built or solved.

        >>> Case.parse("conv2d/any/n2c3h9w11-oc5k3s2/random/seed=0").outputs
        200
        """
        return outputs_of(self)


def _letters(op):
    front, back = FIELDS[op]
    return {**front, **back}


def _several(op):
    """The letters of an operator that may have several numbers, one a side."""
    if op in ("cat", "matmul"):
        return ("c", "b")
    return ("k", "s", "p", "d", "op", "o") if op.startswith("conv") or "pool" in op or op == "interpolate" else ()


def _complete(place, op, given):
    letters = _letters(op)
    for letter in given:
        choose(place, "letter of the shape", letter, letters)
    missing = [letter for letter, usual in letters.items() if usual is None and letter not in given]
    if missing:
        raise ArgumentError(f"{place}: the shape lacks {', '.join(missing)}; give {''.join(f'{k}N' for k, v in letters.items() if v is None)} at least")
    for letter, value in given.items():
        sides = value if isinstance(value, tuple) else (value,)
        if not sides or any(isinstance(n, bool) or not isinstance(n, int) or n < 0 for n in sides):
            raise ArgumentError(f"{place}: {letter}={value!r} in the shape must be a number, or several, none of them negative")
        if len(sides) > 1 and letter not in _several(op):
            raise ArgumentError(f"{place}: {letter}={value!r} in the shape must be one number")
        if 0 in sides and (letters[letter] != 0 or (letter == "s" and len(sides) > 1)):
            raise ArgumentError(f"{place}: {letter}=0 in the shape leaves nothing to compare; give at least 1")
    return tuple((letter, given.get(letter, usual)) for letter, usual in letters.items())


def _parse_shape(op, text):
    pieces = re.findall(r"([a-z]+)([0-9]+(?:x[0-9]+)*)", text)
    if "".join(a + b for a, b in pieces) != text.replace("-", "") or not pieces or len(dict(pieces)) != len(pieces):
        raise ArgumentError(f"case {op}: shape {text!r} must be letters with numbers, each once, such as n1c16h14w14-oc32k3p1")
    if any(len(side) > _DIGITS for _, digits in pieces for side in digits.split("x")):
        raise ArgumentError(f"case {op}: shape {text[:80]!r} has numbers of more than {_DIGITS} digits; no machine holds that")
    values = {letter: tuple(int(v) for v in digits.split("x")) for letter, digits in pieces}
    return tuple((letter, v[0] if len(v) == 1 else v) for letter, v in values.items())


def _print_shape(op, shape):
    front, back = FIELDS[op]
    halves = []
    for letters in (front, back):
        shown = {k: shape[k] for k, usual in letters.items() if usual is None or shape[k] != usual}
        halves.append("".join(f"{k}{'x'.join(map(str, v)) if isinstance(v, tuple) else v}" for k, v in shown.items()))
    return "-".join(h for h in halves if h)
