"""What the fields of `refquant.numerics.special_forms` say, in words."""

__all__ = ["SPECIAL_WORDS"]


def _fused(what):
    return {"fma": f"rounds {what} once (fused)", "none": f"rounds {what} twice"}


def _pairs(where):
    return {"none": f"rounds both products of a pair, in {where}", **{k: f"fuses the {k} product of a pair into its sum, in {where}" for k in ("first", "second")}}


_MULTIPLIERS = {
    "reals": "dequantizes and quantizes",
    "gemmlowp": "scales codes by an integer of 31 bits, rounding twice half away from zero (gemmlowp)", "half_up": "scales codes by an integer of 31 bits, rounding twice half up",
    "byte": "scales codes by an integer of 8 binary places",
}

SPECIAL_WORDS = {
    "DynamicForm": {
        "parameters": {
            "aten": "chooses parameters in double, as ATen does", "decomposed": "chooses parameters in float32, as quantized_decomposed does",
            "specification": "chooses parameters as DynamicQuantizeLinear, scale 1/255 for zeros", "runtime": "chooses parameters as DynamicQuantizeLinear, scale 1 for zeros",
            "span": "quantizes by the width of the range, not by the scale",
        },
        "reduced": {"halved": "halves the codes for reduce_range", "ignored": "ignores reduce_range", "refused": "knows no reduce_range"},
        "linear_input": {"quantize": "quantizes a dynamic layer's input as any tensor", "reciprocals": "quantizes a dynamic layer's input by a reciprocal of a reciprocal"},
    },
    "RequantizeForm": {"body": _MULTIPLIERS, "tail": {k: f"{v}, in the tail" for k, v in _MULTIPLIERS.items()}},
    "ScalarForm": {"multiplier": {"x*(1/y)": "multiplies by f(s * f(1/s'))", "x/y": "multiplies by f(s/s')"}},
    "BatchNormForm": {"contraction": _fused("the line of a channel")},
    "NormForm": {
        "variance": _fused("the variance"), "contraction": _fused("the line"), "tail_contraction": _fused("the line in the tail"),
    },
    "MeanForm": {
        "inner": {"raw": "averages raw codes", "centred": "averages codes less the zero point"},
        "images": {"inner": "averages images as any last axes", "global": "averages images as A * f(s / f(s*n)), then z"},
    },
    "SoftmaxForm": {"style": {
        "real": "takes softmax of real numbers", "table": "takes integer exponentials from a table", "raw_table": "reads rows from memory in a line, whatever the strides are", "float64": "takes softmax in float64, rounded once",
        "mlas": "takes exponentials from a table and divides in float64 (MLAS)", "gemmlowp": "takes softmax in integers alone (gemmlowp)",
        "lookup": "takes exponentials from a table and multiplies by the inverse of their sum",
    }},
    "RealsForm": {"order": {
        "aten": "adds real numbers in the order of PyTorch's float kernels", "runtime": "adds real numbers in the order of ONNX Runtime's float kernels", "numpy": "adds real numbers in the order of NumPy's mean",
        "float64": "adds real numbers in float64",
    }},
    "CodeBilinearForm": {"style": {
        "ten_bits": "interpolates codes with weights of 10 bits, half away from zero", "eleven_bits": "interpolates codes with weights of 11 bits, half up",
        "truncated": "interpolates codes in float32 and cuts off what is behind the point",
    }},
    "MultiplierForm": {"multiply": {k: _MULTIPLIERS[k] for k in ("gemmlowp", "half_up")}},
    "FixedMeanForm": {
        "general": {"centred": "averages centred codes by an integer multiplier", "float": "averages codes in float32"},
        "images": {
            "centred": "averages images as centred codes by an integer multiplier", "raw": "averages images as raw codes by an integer multiplier",
            "float": "averages images as codes in float32",
        },
    },
    "BilinearForm": {
        "contiguous": _pairs("contiguous images"), "body": _pairs("whole steps of channels"), "tail": _pairs("the last channels"),
        "index": _fused("where points of channels-last images lie"),
    },
    "BoxPoolForm": {"body": {"product": "averages boxes as A*m rounded, then z", "fused": "averages boxes as fma(A, m, z)"}},
    "SummedPoolForm": {},
    "RowDynamicForm": {"style": {
        "tensor_utils": "quantizes each row as TensorFlow Lite's hybrid kernels do", "xnnpack": "quantizes each row as XNNPACK does",
    }},
    "EmbeddingForm": {"order": {"bias_first": "adds a row's bias before its codes", "row_first": "adds whole rows"}},
}  # fmt: skip
