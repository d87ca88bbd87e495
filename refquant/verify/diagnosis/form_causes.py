"""Causes that a profile can say: another whole profile, or one field of a form. New profiles and fields join by themselves."""

from refquant import numerics as profiles
from refquant.core.levels import LEVEL_NAMES
from refquant.errors import UnsupportedError
from refquant.numerics.forms import form_choices
from refquant.numerics.profile import section_types
from refquant.verify.diagnosis.call import CONVOLUTIONS, forms_of
from refquant.verify.diagnosis.cause import Candidate, Cause
from refquant.verify.diagnosis.special_words import SPECIAL_WORDS
from refquant.verify.problem import Problem
from refquant.verify.saturation import product_of

__all__ = ["WORDS", "SCHEMES", "field_words", "field_candidates", "profile_candidates"]

_ROUNDING = {
    "half_even": "rounds half to even", "half_away": "rounds half away from zero", "half_up": "rounds half up", "half_down": "rounds half down",
    "half_to_zero": "rounds half toward zero", "truncate": "truncates in place of rounding", "floor": "rounds down (floor)", "ceil": "rounds up (ceiling)",
}  # fmt: skip
_ZERO = {
    "after": "adds the zero point after rounding", "before": "adds the zero point before rounding",
    "fma": "adds the zero point before rounding, fused with the scaling", "float_after": "adds the zero point after rounding, as a float",
}  # fmt: skip
_OVERFLOW = {"saturate": "saturates huge values", "indefinite": "turns values beyond int32 into -2**31 (x86)"}
_SCALING = {
    "divide": "divides by the scale", "reciprocal": "multiplies by the float32 reciprocal of the scale",
    "reciprocal64": "multiplies by the reciprocal of the scale, taken in float64",
}  # fmt: skip
_DEQUANTIZE = {
    "sub_mul": "dequantizes as (q - z) * s", "sub_mul_wide": "dequantizes as (q - z) * s with the difference in int64", "sub_mul32": "dequantizes as (float(q) - float(z)) * s", "sub_mul64": "dequantizes as (q - z) * s with the scale in float64", "mul_add": "dequantizes as q * s + (-z * s), rounded twice",
    "fma": "dequantizes as a fused q * s + (-z * s)",
}  # fmt: skip
_SCALES = {
    name: {"direct": f"takes the scale of {whose} as it is", "reciprocals": f"takes the scale of {whose} as the reciprocal of a reciprocal"}
    for name, whose in (("x_scale", "the input"), ("w_scale", "the weights"), ("y_scale", "the output"))
}
_POOLS = {
    "scaled": "A*m + z", "vector": "A*m rounded, then z, in whole blocks of channels", "adaptive_vector": "fma(A, m, z) in whole blocks of channels",
    "raw_mean": "the mean of raw codes", "global": "A * f(sx / f(sy*n)), then z", "global_area": "A * f(sx / f(sy*n)) with the kernel's whole area as n",
    "sequential": "dequantized values summed in float32", "spec": "dequantized values averaged in float64", "raw_integer": "the integer mean of raw codes, half away from zero",
    "mean_centred": "a fixed-point mean of centred codes", "mean_raw": "a fixed-point mean of raw codes", "mean_float": "a float32 mean of centred codes",
}  # fmt: skip

_POST = {"post": {"vectorized": "takes oneDNN's vectorized post-operations", "reference": "takes oneDNN's post-operations by the C library"}}

#: ``{form: {field: {value: words}}}``; a field or value that is missing here is named by itself.
WORDS = {
    "QuantizeForm": {
        "scaling": _SCALING, "zero_point": _ZERO, "rounding": _ROUNDING,
        "overflow": {
            "saturate": "saturates huge values", "indefinite": "turns values beyond int32 into -2**31 (x86)",
            "int64": "turns values beyond int64 into its minimum",
        },
        "nan": {
            "qmin": "turns NaN into the lowest code", "qmax": "turns NaN into the highest code", "zero": "turns NaN into code 0",
            "indefinite": "turns NaN into -2**31, cut to the dtype's bits", "overflow": "turns NaN into what a huge value becomes",
        },
    },
    "DequantizeForm": {"formula": _DEQUANTIZE},
    "VectorDequantizeForm": {"formula": _DEQUANTIZE, "tail": {k: f"{v} in the tail" for k, v in _DEQUANTIZE.items()}},
    "UnaryForm": {"style": {"aten": "takes PyTorch's vector and scalar loops", "lookup": "takes a table of dequantized and quantized codes", "float": "takes PyTorch's float32 kernels between dequantized and quantized codes", "onnxruntime": "takes ONNX Runtime's float functions, rational ones for sigmoid and tanh, x times 1/6 for hard sigmoid", "qnnpack": "takes QNNPACK's tables, with the zero point inside of the rounding"}},
    "ProductForm": {
        "accumulator": {"exact": "adds up exactly", "fbgemm_depthwise": "saturates pairs of taps to int16 as FBGEMM's depthwise kernels do"},
        "arithmetic": {
            "float32": "scales in float32", "float64": "scales in float64", "fixed_gemmlowp": "scales by an integer multiplier, rounding twice half away from zero (gemmlowp)",
            "fixed_half_up": "scales by an integer multiplier, rounding twice half up",
        },
        "multiplier": {
            "(xw)/y": "multiplies once by f(f(sx*sw)/sy)", "(xw)*(1/y)": "multiplies once by f(f(sx*sw)*f(1/sy))", "x*(w/y)": "multiplies once by f(sx*f(sw/sy))",
            "x,w,1/y": "multiplies in three steps: sx, sw, f(1/sy)", "x,w,/y": "multiplies by sx, then sw, and divides by sy", "(xw),/y": "multiplies by f(sx*sw) and divides by sy", "(xw),1/y": "multiplies by f(sx*sw), then by f(1/sy)",
            "double": "multiplies by sx*sw/sy from float64", "f64(xw)/y": "multiplies by f(sx*sw)/sy, divided in float64",
            "f64(xw)/y, double": "multiplies by f(sx*sw)/sy, divided in float64, per channel by sx*sw/sy from float64",
        },
        **_SCALES,
        "bias": {
            "before": "adds the bias in units of the accumulator, as a float", "after": "adds the bias as a float, after scaling", "int32": "rounds the bias to int32",
            "int32_reciprocal": "rounds the bias to int32, by way of a reciprocal",
        },
        "zero_point": _ZERO, "rounding": _ROUNDING,
        "overflow": _OVERFLOW,
        "relu": {"real": "applies the ReLU before the output scale", "code": "applies the ReLU to codes"}, **_POST,
    },
    "RealForm": {
        "multiplier": {"(xw)": "multiplies once by f(sx*sw)", "x,w": "multiplies by sx, then by sw"},
        **_SCALES,
        "bias": {"fma": "adds the bias fused with the scaling", "add": "adds the bias after scaling, rounded apart", "int32": "rounds the bias to int32"}, **_POST,
    },
    "AddForm": {
        "dequantize": _DEQUANTIZE, "tail_dequantize": {k: f"{v} in the tail" for k, v in _DEQUANTIZE.items()}, "scaling": _SCALING,
        "zero_point": _ZERO, "tail_zero_point": {k: f"{v} in the tail" for k, v in _ZERO.items()}, "rounding": _ROUNDING,
    },
    "FoldedAddForm": {
        "contraction": {"fma": "fuses the products of the sum", "none": "rounds every step of the sum"},
        "lone": {"as_given": "adds one-element tensors in the order given", "swapped": "swaps one-element tensors before it adds them"}, "rounding": _ROUNDING,
        "overflow": _OVERFLOW,
    },
    "FixedAddForm": {"rounding": _ROUNDING},
    "GemmlowpAddForm": {"body": {"gemmlowp": "rounds every product twice, half away from zero (gemmlowp)", "neon": "rounds products half up (NEON form)"}},
    "MaxPoolForm": {"outside": {"ignored": "leaves out what lies outside of the image", "nearest": "takes the nearest pixel for a tap outside of the image"}},
    "PoolForm": {
        "contiguous": {k: f"averages contiguous tensors as {v}" for k, v in _POOLS.items()},
        "channels_last": {k: f"averages channels-last tensors as {v}" for k, v in _POOLS.items()}, "rounding": _ROUNDING,
    },
    "CatForm": {
        "contiguous": {"quantize": "dequantizes and quantizes", "copy": "copies codes"}, "channels_last": {"quantize": "dequantizes and quantizes", "vector": "takes PyTorch's channels-last vector body"},
        "copy_equal": {True: "copies inputs that have the output's parameters", False: "converts inputs that have the output's parameters"},
    },
    **{form: {**fields, **({"rounding": _ROUNDING} if form in ("ScalarForm", "BatchNormForm", "BoxPoolForm", "SummedPoolForm") else {})} for form, fields in SPECIAL_WORDS.items()},
}  # fmt: skip
WORDS["FlushedQuantizeForm"] = WORDS["QuantizeForm"]
WORDS["VectorQuantizeForm"] = {**WORDS["QuantizeForm"], "tail": {"body": "quantizes its last elements like all others", "float64": "quantizes its last elements in float64, half away from zero"}}
WORDS["DepthwiseTailForm"] = {
    **WORDS["ProductForm"],
    "tail": {"fixed_gemmlowp": "rounds the last channels of a depthwise convolution twice half away from zero (gemmlowp)", "fixed_half_up": "rounds the last channels of a depthwise convolution twice half up"},
}
WORDS["NarrowProductForm"] = {**WORDS["ProductForm"], "narrow": {"int16": "goes on with 16 bits in its vector body, where sums with the zero point wrap", "none": "keeps scaled products in 32 bits"}}
WORDS["SignedProductForm"] = {**WORDS["ProductForm"], "accumulator": {"exact": "adds up exactly", "converted": "turns sums beyond int32 into -2**31 (x86)"}}
WORDS["TransposedForm"] = {
    **WORDS["ProductForm"],
    "accumulator": {
        "exact": "adds up exactly", "fbgemm_direct": "saturates pairs of channels to int16 as FBGEMM's direct kernel does",
        "fbgemm_direct_rows": "sets one row of the kernel below the other as FBGEMM's direct kernel does", "onednn_blocks": "takes the weights' blocks in another order",
    },
}  # fmt: skip
WORDS["TransposedTailForm"] = {**WORDS["TransposedForm"], "tail": {k: v.replace("depthwise", "transposed") for k, v in WORDS["DepthwiseTailForm"]["tail"].items()}}
WORDS["PostForm"] = {"other_scale": {k: v.replace("the input", "the addend") for k, v in _SCALES["x_scale"].items()}}
WORDS["FixedUnaryForm"] = {
    **{f: {r: f"{words} in {f}'s table" for r, words in _ROUNDING.items()} for f in ("sigmoid", "elu", "gelu")}, "zero_point": _ZERO,
    "logistic": {"float32": "rounds every step of the logistic function", "float64": "rounds the logistic function once"},
    "leaky_relu": {"gemmlowp": "scales leaky_relu's codes by gemmlowp's multiplier", "eighths": "scales leaky_relu's codes by multiples of 1/256"},
}  # fmt: skip
WORDS["CodeFunctionForm"] = {
    "table": {r: f"{words} in the table of exp and log" for r, words in _ROUNDING.items()}, "sqrt": {r: f"{words} after a root" for r, words in _ROUNDING.items()},
}  # fmt: skip
WORDS["RangeForm"] = {
    "shift": {"product": "shifts by a product with the step", "quotient": "shifts by a quotient"},
    "contraction": {"none": "rounds every step", "fma": "fuses the product with the shift"},
    "reduced": {True: "leaves a shift of zero out", False: "adds a shift of zero too"},
}
WORDS["RangeSoftmaxForm"] = WORDS["RangeForm"]
WORDS["RangeProductForm"] = {
    "zero_point": {"sum": "adds the zero point to the scaled sum", "range": "takes the zero point from the ends of the range"},
    "bias": {"sum": "adds the bias to the sum", "shift": "adds the bias to the shift"},
    "contraction": {"none": "rounds every step of the sum's scaling", "fma": "fuses the product and the shift of the sum"},
    "plain": {"kept": "scales plain sums like all others", "multiply": "scales plain sums once", "divide": "divides plain sums by the reciprocal of the step"},
    "drift": {True: "keeps what the ends of the range have drifted by", False: "takes the range as its scale says"},
    "float_sums": {"none": "sums integers alone", "signed": "sums signed codes in float32"},
}

_NUMBERS = {
    "vector": lambda n: f"takes {n} elements a step in its vector body, the rest in a tail" if n else "takes all elements in its vector body",
    "grain": lambda n: f"cuts tensors of more than {n:,} elements among threads" if n else "never cuts a tensor among threads",
    "bits": lambda n: f"multiplies by integers of {n + 1} bits",
}  # fmt: skip
#: What an engine does whose form is of another type.
SCHEMES = {
    "RangeForm": "quantizes by the ends of the range, as a FakeQuantize does (OpenVINO)",
    "RangeSoftmaxForm": "takes softmax of real numbers and quantizes it by the ends of the range (OpenVINO)",
    "RangeProductForm": "quantizes sums by the ends of the range, divided by the scales (OpenVINO)",
    "ProductForm": "multiplies codes less their zero points, and scales once",
    "FlushedQuantizeForm": "quantizes with subnormal numbers as zero (XNNPACK)",
    "DequantizeForm": "dequantizes every element alike",
    "VectorDequantizeForm": "dequantizes in a vector body and a scalar tail",
    "AddForm": "computes by way of real numbers",
    "FoldedAddForm": "adds raw codes, with all zero points in one constant inside of the rounding",
    "FixedAddForm": "adds with two integer multipliers and one shift",
    "GemmlowpAddForm": "adds with integer multipliers, inputs shifted left by 20 bits (TFLite)",
}
# Fields that are seldom what is wrong.
_SURPRISE = {"arithmetic": 0.1, "accumulator": 0.05, "vector": 0.05, "grain": 0.05, "bits": 0.05, "x_scale": 0.03, "w_scale": 0.03, "y_scale": 0.03}
_BLOCKS = (0, 4, 8, 16, 32, 64, 128)


def field_words(form, field, value):
    """Return what an engine does whose form has that value.

    Examples
    --------
    >>> from refquant import numerics
    >>> field_words(numerics.get("onnx").linear, "rounding", "half_away")
    'rounds half away from zero'
    """
    value = getattr(value, "value", value)
    if isinstance(value, int) and not isinstance(value, bool) and field in _NUMBERS:
        return _NUMBERS[field](value)
    return WORDS.get(type(form).__name__, {}).get(field, {}).get(value, f"has {type(form).__name__}.{field}={value!r}")


def _values(form, field, allowed):
    if isinstance(allowed, tuple):
        return allowed
    if allowed is bool:
        return (False, True)
    used = set(_BLOCKS) if field == "vector" else {getattr(form, field) + d for d in (-1, 1)} if field == "bits" else set()
    for profile in profiles.PROFILES:
        for section in section_types():
            other = getattr(profile, section)
            if type(other) is type(form):
                used.add(getattr(other, field))
    return tuple(sorted(v for v in used if v >= 0))


def field_candidates(call):
    """Return a candidate for each other value of each field of the forms in force."""
    candidates = []
    for section, form in call.forms.items():
        for field, allowed in form_choices(type(form)).items():
            now = getattr(form, field)
            values = [v for v in _values(form, field, allowed) if v != now]
            candidates += [_field_candidate(section, form, field, v, i) for i, v in enumerate(values)]
    return candidates


def _field_candidate(section, form, field, value, position):
    kind = type(form)

    def apply(call, key):
        if type(call.forms.get(section)) is not kind or getattr(call.forms[section], field) == value:
            return None
        return call.with_field(section, field, value)

    cause = Cause(f"{section}.{field}", field_words(form, field, value), f"{section}.{field}", (), apply, (), _SURPRISE.get(field, 0.0) + 0.001 * position)
    return Candidate(cause, str(getattr(value, "value", value)))


def profile_candidates(call, base):
    """Return a candidate for each other set of forms that a profile has for the operation, with the names of all that have it."""
    if base.isa is not None and call.op in ("linear", *CONVOLUTIONS):
        return _level_candidates(call, base)
    names = {}
    for profile in profiles.PROFILES if base.isa is None else [profiles.get(f"{name}@{base.isa}") for name in profiles.names()]:
        forms = forms_of(call, profile)
        if profile.name != base.name and forms is not None and forms != call.forms:
            names.setdefault(tuple(forms.items()), []).append(profile.name)
    return [*(_profile_candidate(dict(forms), tuple(who)) for forms, who in names.items()), *_level_candidates(call, base)]


def _profile_candidate(forms, who):
    words = f"computes as the profile {who[0]} does" if len(who) == 1 else f"computes as the profiles {', '.join(who[:-1])} and {who[-1]} do"
    return Candidate(Cause("profile", words, "profile", (), lambda call, key: call.but(forms=forms), (), 0.15), who[0])


def _level_candidates(call, base):
    """Return a candidate for each other way in which the profile's engine computes the call on some processor, and others on its own."""
    name = base.name.partition("@")[0]
    if call.op not in ("linear", *CONVOLUTIONS) or name not in (*profiles.names(), *profiles.variant_names()):
        return []
    others = [f"{other}@{base.isa}" for other in profiles.names()] if base.isa is not None else []
    now, seen = _on(call, base.name), {}
    for other in (name, *(f"{name}@{level}" for level in (*LEVEL_NAMES[1:], LEVEL_NAMES[0])), *others):
        found = _on(call, other)
        if found is not None and found != now:
            seen.setdefault(found, other)
    return [_level_candidate(who, product, dict(forms)) for (product, forms), who in seen.items()]


def _on(call, name):
    """Return (product, forms) of a call under a profile of that name, or None where it does not compute it."""
    profile = profiles.get(name)
    try:
        forms, product = forms_of(call, profile), product_of(Problem(call.op, call.arguments), profile)
    except UnsupportedError:
        return None
    return None if forms is None else (product, tuple(forms.items()))


def _level_candidate(name, product, forms):
    profile, _, level = name.partition("@")
    pairs = "" if product is None else ", where sums of neighbouring products saturate to int16"
    words = f"computes as {profile} does on a CPU of the level {level}{pairs}" if level else f"computes as {profile} does on the CPU that it describes"
    change = lambda call, key: call.but(forms=forms, quirks={"sum": product or "exact"})  # noqa: E731
    return Candidate(Cause("profile", words, "profile", (), change, (), -0.01), name)
