"""What a profile's ticks in the table of operators rest on: conditions, and operators that an engine lacks. Two tables; a line is a fact.

The table itself is made from the profiles' forms (`refquant.ops.support`); these lines add what a form cannot say.
"""

from typing import NamedTuple

__all__ = ["Note", "NOT_OFFERED", "CONDITIONS", "LIBM_COUNTS", "LIBM_SETS", "absence", "conditions"]

_ATEN = "fbgemm onednn x86"
_TORCH = _ATEN + " qnnpack"
_TFLITE = "tflite_ref tflite_opt xnnpack"
_CONVOLUTIONS = "conv1d conv2d conv3d"
_TRANSPOSED = "conv_transpose1d conv_transpose2d conv_transpose3d"
_SMOOTH = "sigmoid tanh elu gelu"
_OPENVINO = "between DequantizeLinear and QuantizeLinear with INFERENCE_PRECISION_HINT=f32"
_POSTS = ("linear tanh", "linear gelu", "linear swish")
# Operators on codes that TensorFlow Lite alone has.
_LITERT = "sub squared_difference exp log sqrt rsqrt abs"
_FUNCTIONS = _SMOOTH + " hardsigmoid hardswish leaky_relu"


class Note(NamedTuple):
    """What holds for some operators of some profiles.

    Attributes
    ----------
    ops, profiles : str
        Names, separated by blanks; a section of a profile's stands for the part of an operator that reads it.
    text : str
        Half a sentence: why the engine lacks it, or where the profile's bits hold.
    """

    ops: str
    profiles: str
    text: str


#: Operators that an engine does not have. Whatever form a profile shares with others, asking for these is an `UnsupportedError`.
NOT_OFFERED = (
    Note("conv3d", _TFLITE, "CONV_3D has float kernels alone"),
    Note("conv_transpose3d", _TFLITE, "CONV_3D_TRANSPOSE has float kernels alone"),
    Note(_TRANSPOSED, "onnx onnx_reference onnxruntime", "ConvTranspose has float kernels alone; dequantize, compute and quantize"),
    Note(_TRANSPOSED, "inductor", "a transposed convolution stays between dequantize and quantize, in float"),
    Note("post", "fbgemm x86 qnnpack", "nothing but a ReLU follows a product; oneDNN alone has post-operations"),
    Note("fake_quantize", _TFLITE, "FAKE_QUANT takes a range, which it shifts until a code is zero, and no scale and zero point"),
    Note("conv_real", _TORCH, "a quantized convolution writes codes; give out"),
    Note("conv_real", "onnxruntime", "ConvInteger writes int32, which float operators scale; give out"),
    Note("linear_real conv_real", _TFLITE, "int8 activations give int8, and hybrid kernels quantize real activations themselves; give out"),
    Note("linear_real conv_real", "openvino", "a product without a QuantizeLinear behind it runs in float32; give out"),
    Note("quantize_int32", f"onnx onnx_reference onnxruntime openvino {_TFLITE}", "codes are of 16 bits at most"),
    Note("max_pool3d", "qnnpack", "PyTorch refuses it under this engine"),
    Note("conv1d_dynamic conv2d_dynamic conv3d_dynamic", "inductor onnx onnx_reference onnxruntime", "DynamicQuantizeLinear with ConvInteger gives int32, which float operators scale"),
    Note("threshold celu batch_norm layer_norm group_norm instance_norm", "onnx onnx_reference onnxruntime", "ONNX has float operators alone, between DequantizeLinear and QuantizeLinear"),
    Note("layer_norm group_norm instance_norm", "inductor", "X86InductorQuantizer annotates no normalization: it stays in float32"),
    Note("batch_norm layer_norm group_norm instance_norm", f"openvino {_TFLITE}", "normalization has float kernels alone; a converter folds that of batches into the layer before"),
    Note("embedding_bag", "inductor", "PT2E's quantizer for x86 leaves embeddings in float32"),
    Note("embedding_bag", "onnx onnx_reference onnxruntime", "there are no bags: Gather takes codes, and the sum of rows has float kernels alone"),
    Note("embedding_bag", f"openvino {_TFLITE}", "sums of looked-up rows have float kernels alone"),
    Note("add_scalar mul_scalar", f"inductor onnx onnx_reference onnxruntime openvino {_TFLITE}", "PyTorch's alone: the parameters move with the number; elsewhere a number is a tensor of add or mul"),
    Note("choose_qparams quantize_dynamic", _TFLITE, "hybrid kernels quantize rows inside of themselves, and show neither codes nor parameters"),
    Note("conv1d_dynamic conv2d_dynamic", _TFLITE, "hybrid convolutions give real numbers, PyTorch's operator numbers on the grid of its input"),
    Note("conv3d_dynamic", _TFLITE, "CONV_3D has float kernels alone"),
    Note("linear_dynamic", "openvino", "MatMulInteger runs in float32; what is called dynamic quantization there takes groups of K of float activations to compressed weights, and wants VNNI"),
    Note("conv1d_dynamic conv2d_dynamic conv3d_dynamic", "openvino", "ConvInteger runs in float32, and FullyConnected alone has dynamic quantization"),
    Note("clamp", _TFLITE, "RELU6, RELU_N1_TO_1 and RELU_0_TO_1 have limits of their own; others are MINIMUM and MAXIMUM with codes that a converter chooses"),
    Note("avg_pool3d adaptive_avg_pool3d", _TFLITE, "TFLite pools images alone"),
    Note("elu", "tflite_ref", "BUILTIN_REF has no ELU"),
    Note("threshold celu", f"openvino {_TFLITE}", "there is no such operator; a converter writes several others for it"),
    Note("matmul", _TORCH, "no product of two tensors of codes: quantized::matmul dequantizes, multiplies in float32, quantizes"),
    Note("matmul gemm", "inductor", "products of two activations stay in float32"),
    Note(_LITERT, "onnx onnx_reference onnxruntime", "there is no quantized node: integers have no scale, and between DequantizeLinear and QuantizeLinear it is a float operator"),
    Note(_LITERT, _TORCH, "no kernel takes quantized tensors"),
    Note(_LITERT, "inductor", "X86InductorQuantizer annotates none: it stays in float32"),
    Note(_LITERT, "openvino", "no low precision transformation takes it: it stays in float32"),
    Note("gemm", f"{_TORCH} openvino {_TFLITE}", "nobody scales a product and adds int32 of any shape but ONNX's Gemm; a bias goes with linear"),
    Note("attention lstm_dynamic embed_layer_norm", "onnx onnx_reference", "com.microsoft is no part of the specification"),
    Note("attention embed_layer_norm", f"{_TORCH} inductor openvino {_TFLITE}", "ONNX Runtime's own layer; elsewhere its steps are operators of their own"),
    Note("lstm_dynamic", f"{_TORCH} inductor openvino {_TFLITE}", "ONNX Runtime's DynamicQuantizeLSTM; what this engine has of recurrent layers is not described"),
    Note("gemm", "onnx_reference", "there is no such node; what onnx.reference makes of MatMulInteger and those behind it is the profile onnx"),
    Note("where", _TORCH, "aten::where has no kernel for quantized tensors"),
    Note("where", "inductor", "X86InductorQuantizer annotates no choice: it stays in float32"),
    Note("where", _TFLITE, "SELECT copies codes, so all parameters are the same and there is nothing to compute"),
    Note("hardsigmoid", _TFLITE, "TFLite has no hard sigmoid; a converter writes HARD_SWISH or float operators"),
)

#: Differing outputs of `refquant.verify.libm_sweep` with its defaults, on torch 2.13.0, onnx 1.23, onnxruntime 1.32.0, OpenVINO 2026.4 and LiteRT 2.1: (operator, engine): (differing, outputs).
LIBM_COUNTS = {
    ("sigmoid", "fbgemm"): (0, 2_457_600),
    ("tanh", "fbgemm"): (0, 1_228_800),
    ("elu", "fbgemm"): (0, 1_228_800),
    ("gelu", "fbgemm"): (0, 1_228_800),
    ("sigmoid", "onnxruntime"): (0, 1_228_800),
    ("tanh", "onnxruntime"): (0, 1_228_800),
    ("elu", "onnxruntime"): (0, 1_228_800),
    ("gelu", "onnxruntime"): (0, 2_457_600),
    ("sigmoid", "openvino"): (0, 1_228_800),
    ("tanh", "openvino"): (0, 1_228_800),
    ("elu", "openvino"): (0, 1_228_800),
    ("gelu", "openvino"): (0, 2_457_600),
    ("sigmoid", "inductor"): (0, 614_400),
    ("tanh", "inductor"): (0, 614_400),
    ("elu", "inductor"): (0, 307_200),
    ("gelu", "inductor"): (0, 614_400),
    ("sigmoid", "tflite_ref"): (0, 153_600),
    ("tanh", "tflite_ref"): (0, 153_919),
    ("gelu", "tflite_ref"): (0, 307_200),
    ("sigmoid", "tflite_opt"): (0, 153_600),
    ("tanh", "tflite_opt"): (0, 153_919),
    ("elu", "tflite_opt"): (0, 153_600),
    ("gelu", "tflite_opt"): (0, 307_200),
    ("sigmoid", "xnnpack"): (0, 153_600),
    ("tanh", "xnnpack"): (0, 153_919),
    ("elu", "xnnpack"): (0, 153_600),
    ("gelu", "xnnpack"): (0, 307_200),
    **{(op, engine): (0, 153_600) for op in ("exp", "log") for engine in _TFLITE.split()},
    ("linear tanh", "onednn"): (0, 2_457_600),
    ("linear tanh", "inductor"): (0, 2_457_600),
    ("linear gelu", "inductor"): (0, 2_457_600),
    ("linear swish", "inductor"): (0, 2_457_600),
    ("conv2d swish", "inductor"): (0, 2_457_600),
    ("celu", "fbgemm"): (0, 307_200),
    ("sigmoid", "onnx_reference"): (0, 122_880),
    ("tanh", "onnx_reference"): (0, 122_880),
    ("elu", "onnx_reference"): (0, 122_880),
    ("gelu", "onnx_reference"): (0, 122_880),
    ("sigmoid", "qnnpack"): (0, 1_843_200),
    ("tanh", "qnnpack"): (0, 1_228_800),
    ("softmax", "fbgemm"): (0, 1_208_104),
    ("softmax", "inductor"): (0, 113_157),
    ("softmax", "onnx_reference"): (0, 58_620),
    ("softmax", "openvino"): (0, 1_208_104),
    ("softmax", "qnnpack"): (0, 1_208_104),
    ("softmax", "onnxruntime"): (0, 1_208_104),
    ("softmax", "tflite_opt"): (0, 299_847),
    ("softmax", "xnnpack"): (0, 299_847),
}

#: Sets of parameters in the sweep of an engine's functions of one code, or of one operator on it, where each set takes a model of its own and fewer must do.
LIBM_SETS = {("celu", "fbgemm"): 1000, ("softmax", "onnx_reference"): 400, ("softmax", "inductor"): 400, "onnx_reference": 400, "inductor": 1000, "tflite_ref": 1000, "tflite_opt": 1000, "xnnpack": 1000}


def _counted(engine, ops=tuple(_SMOOTH.split())):
    """The counts of an engine, as a note states them: of functions of one code, or of others that are named."""
    parts = [f"{op} {differing:,} of {outputs:,}" for (op, name), (differing, outputs) in LIBM_COUNTS.items() if name == engine and op in ops]
    domain = f" of all 256 codes under {LIBM_SETS.get((ops[0], engine), LIBM_SETS.get(engine, 4000)):,} sets of parameters" if set(ops) <= {*_SMOOTH.split(), "celu", "exp", "log"} else ""
    return f"outputs that differ in a sweep{domain}: " + ", ".join(parts)


def _counted_softmax(engine):
    differing, outputs = LIBM_COUNTS["softmax", engine]
    return f"{differing:,} of {outputs:,} outputs of random codes differ"


#: Where the bits of a cell hold.
CONDITIONS = (
    Note(f"linear {_CONVOLUTIONS}", "fbgemm onednn x86 inductor onnxruntime", "on a CPU with AVX512-VNNI; without it, pairs of products saturate to int16, as the profile on that level (isa=) says"),
    Note(_TRANSPOSED, "onednn", "on a CPU with AVX512-VNNI, or with isa='avx2' on one of that level; what is meant, where groups' numbers of input and output channels differ: the engine gives onednn+shuffled_transpose; some shapes take another kernel, onednn+gemm_transpose, which below AVX-512 the profile on that level chooses itself, for one thread; there without a zero point of the input where strides in height or depth exceed the kernel by two or more: the engine adds unwritten memory to outputs in gaps"),
    Note(_TRANSPOSED, "x86", "on a CPU with AVX512-VNNI, or with isa='avx2' on one of that level; what is meant: the engine gives x86+defective_transpose; some shapes take another kernel, x86+gemm_transpose"),
    Note("conv_transpose2d", "fbgemm", "on a CPU with AVX512-VNNI, or with isa='avx2' on one of that level; what is meant, for a kernel 2x1 to 2x6 with a vertical stride of 2: the engine gives fbgemm+overlapping_transpose"),
    Note("conv_transpose1d conv_transpose3d", "fbgemm", "on a CPU with AVX512-VNNI; without it, pairs of products saturate to int16, as the profile on that level (isa=) says"),
    Note("conv_transpose3d", "qnnpack", "what is meant: the engine takes the volume for an image, computes one slice and reads whatever lies behind its weights in memory"),
    Note("add mul cat " + _FUNCTIONS, _ATEN, "ATen's AVX2 or AVX-512 build, and as many `threads` as are asked for; ATEN_CPU_CAPABILITY=default rounds elsewhere"),
    Note("add mul cat relu6 clamp hardtanh hardswish hardsigmoid leaky_relu prelu", "inductor", "as the exported graph computes them, between dequantize and quantize; TorchInductor's generated C++ computes the same (refquant pt2e --operators)"),
    Note("mean batch_norm avg_pool2d adaptive_avg_pool2d softmax", "inductor", "as the exported graph computes them, between dequantize and quantize; TorchInductor's generated C++ adds and divides in an order of its own, which graphs have as real='inductor' (refquant pt2e --operators)"),
    Note("interpolate avg_pool3d adaptive_avg_pool3d celu threshold", "inductor", "as the exported graph computes them, between dequantize and quantize; TorchInductor's generated C++ is not asked"),
    Note("mean adaptive_avg_pool2d adaptive_avg_pool3d", "inductor", "on one thread; means over axes that lie side by side in memory"),
    Note("softmax", "inductor", f"ATen's AVX-512 build, or by the profile on that level the one for AVX2; libm: as under fbgemm; {_counted_softmax('inductor')}"),
    Note("interpolate", "inductor", "lines between points: images of at most 128 rows and columns together, or channels-last ones of four channels and more"),
    Note("prelu", "onnx onnx_reference", "as dequantize, PRelu, quantize"),
    Note("mean avg_pool3d adaptive_avg_pool3d", "onnx", "as dequantize, the mean in float64 rounded once, quantize"),
    Note("avg_pool2d avg_pool3d", "onnx_reference", "padding does not count"),
    Note("softmax", "onnx onnx_reference", f"as dequantize, softmax in float64 rounded once, quantize; libm: the text leaves the last bit open, and onnx.reference takes NumPy's float32 exponential; {_counted_softmax('onnx_reference')}"),
    Note("interpolate", "onnx onnx_reference", "as dequantize, Resize to a size in float64, rounded once, quantize; half_pixel, align_corners, and asymmetric for the nearest point"),
    Note("prelu mean", "onnxruntime", "between DequantizeLinear and QuantizeLinear, which do not fuse"),
    Note("matmul", "onnxruntime", "QLinearMatMul, and MatMulIntegerToFloat where there is no out; on a CPU with AVX512-VNNI, on another as linear on that level"),
    Note("gemm", "onnxruntime", "QGemm; on a CPU with AVX512-VNNI, on another as linear on that level; K of 1 and more"),
    Note("where", "onnxruntime", "QLinearWhere"),
    Note("matmul", _TFLITE, "BATCH_MATMUL of two tensors of codes, without a bias, per tensor"),
    Note("matmul", "openvino", f"{_OPENVINO}, zero points of 0, the second factor int8, per tensor, without a bias: all else runs in float32; held on a CPU with AVX2, by the profile on that level"),
    Note("where", "openvino", _OPENVINO),
    Note("attention", "onnxruntime", "QAttention by MLAS's kernels for AVX2 and FMA, with heads of two numbers and more; without past keys"),
    Note("lstm_dynamic", "onnxruntime", "DynamicQuantizeLSTM on a CPU with FMA; without peepholes, clipping and lengths of sequences"),
    Note("embed_layer_norm", "onnxruntime", "QEmbedLayerNormalization"),
    Note("matmul where", "onnx onnx_reference", "as the operator's expansion, as onnx.reference computes it; the nodes' own QuantizeLinear wraps in the reference implementation beyond int32"),
    Note("gemm", "onnx", "as nodes of their own, product and bias in integers, as onnx.reference computes them; the nodes' own QuantizeLinear wraps in the reference implementation beyond int32"),
    Note("mean", "onnxruntime", "over the last axes or the first; QLinearReduceMean has no kernel"),
    Note("softmax", "onnxruntime", f"QLinearSoftmax, whose table is the C library's exponential in float64, which Python calls too; {_counted_softmax('onnxruntime')}"),
    Note("interpolate", "onnxruntime", "Resize of codes, with modes half_pixel, align_corners, and asymmetric for the nearest point; it cuts off what lies behind the point"),
    Note("adaptive_avg_pool3d", "onnxruntime", "the global pool alone; ONNX has no other"),
    Note("elu leaky_relu gelu", "qnnpack", "ATen's own kernel, as under fbgemm; sigmoid, tanh, hardsigmoid and hardswish are QNNPACK's tables for uint8 and ATen's for int8"),
    Note("sigmoid tanh", "qnnpack", f"libm: QNNPACK's tables for uint8, by glibc's expf and tanhf, as they are up to 2.40; for int8 as under fbgemm; {_counted('qnnpack', ('sigmoid', 'tanh'))}"),
    Note("linear", "onednn", f"tanh behind it by oneDNN's polynomials, for int8 activations on AVX-512 by the C library's, held there by its bfloat16 outputs on AVX2 alone; {_counted('onednn', ('linear tanh',))}"),
    Note("linear", "inductor", f"functions behind it by oneDNN's vectorized code, gelu on AVX-512 as its source has it, held on AVX2 alone; for int8 activations on AVX-512 by the C library, held by the bfloat16 outputs of that kernel on AVX2; {_counted('inductor', _POSTS)} on AVX2"),
    Note("conv2d", "inductor", f"the post-operation swish: {_counted('inductor', ('conv2d swish',))} on AVX2"),
    Note("conv2d", "onednn", "weights packed anew for each post-operation: the engine goes on with the first one that packed weights were used with"),
    Note("clamp hardtanh relu6", "qnnpack", "what is meant: of uint8 images in channels-last memory the engine limits the codes as they lie there and takes them for channels-first ones"),
    Note("max_pool1d max_pool2d", "qnnpack", "what is meant, of uint8 with both padding and dilation and without ceil_mode: the engine gives qnnpack+nearest_pixels"),
    Note("add", "qnnpack", "QNNPACK's kernel for uint8; ATen's for int8, as under fbgemm: its AVX2 or AVX-512 build"),
    Note("avg_pool2d adaptive_avg_pool2d", "qnnpack", "QNNPACK's kernel for uint8, without ceil_mode and for parts of one size; ATen's for all else, as under fbgemm"),
    Note("mul cat", "qnnpack", "ATen's own kernel, as under fbgemm: its AVX2 or AVX-512 build"),
    Note("avg_pool2d adaptive_avg_pool2d", _ATEN, "ATen's AVX-512 build, whose channels-last kernels take 16 and 8 channels at a step; that for AVX2, by the profile on that level, takes 8"),
    Note(_SMOOTH, _ATEN, f"libm: the scalar loop alone, that is the last elements, which fill no step of 64, and elu of channels-last tensors: by glibc's expf, expm1f and tanhf, as they are up to 2.40, gelu in float64, rounded once; {_counted('fbgemm')}"),
    Note("sigmoid", "onnxruntime", f"MLAS's rational function on a CPU with FMA; {_counted('onnxruntime', ('sigmoid',))}"),
    Note("tanh gelu", "onnxruntime", f"between DequantizeLinear and QuantizeLinear, by MLAS's tanh and erf on a CPU with FMA; {_counted('onnxruntime', ('tanh', 'gelu'))}"),
    Note("elu", "onnxruntime", f"between DequantizeLinear and QuantizeLinear, by Eigen's exponential, on one thread; libm: the last elements, which fill no vector of four, are glibc's expf; {_counted('onnxruntime', ('elu',))}"),
    Note("hardsigmoid hardswish", "onnxruntime", "between DequantizeLinear and QuantizeLinear, which do not fuse"),
    Note("hardsigmoid hardswish leaky_relu", "onnx onnx_reference", "as dequantize, the function, quantize"),
    Note(_SMOOTH, "onnx onnx_reference", f"as dequantize, the function in float64 rounded once, quantize; libm: the text leaves the last bit open, and onnx.reference takes NumPy's float32 functions; {_counted('onnx_reference')}"),
    Note("sigmoid elu gelu", "inductor", f"between dequantize and quantize, by SLEEF's exponential and oneDNN's gelu, as eager PyTorch computes the exported graph; gelu on AVX-512 as its source has it, held on AVX2 alone; libm: the scalar loop alone, that is the last elements, which fill no step of 16: by glibc's expf and expm1f, as they are up to 2.40, gelu in float64, rounded once; {_counted('inductor', ('sigmoid', 'elu', 'gelu'))}"),
    Note("tanh", "inductor", f"libm: dequantize, the function in float64 rounded once, quantize, where ATen takes MKL's; {_counted('inductor', ('tanh',))}"),
    Note("avg_pool3d", _TORCH, "ATen's AVX-512 build, whose kernel takes 16 channels at a step; that for AVX2, by the profile on that level, takes 8"),
    Note("mean adaptive_avg_pool3d layer_norm group_norm instance_norm interpolate batch_norm", _TORCH, "ATen's AVX2 or AVX-512 build, on one thread"),
    Note("threshold", _ATEN, "ATen's AVX2 or AVX-512 build, on one thread"),
    Note("group_norm instance_norm", _TORCH, "what is meant, of channels-last tensors with more images than a group has elements: the engine reads behind a buffer"),
    Note("linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d linear_dynamic conv1d_dynamic conv2d_dynamic conv3d_dynamic", "qnnpack", "multipliers that are normal numbers, and a bias within int32 in units of x.scale * w.scale"),
    Note("add", "qnnpack", "ratios of the scales in [2**-14, 2**8), as QNNPACK demands"),
    Note("mean", _TORCH, "over axes that lie side by side in memory; other than the last ones not the densest"),
    Note("celu", _ATEN, f"libm: as elu; {_counted('fbgemm', ('celu',))}"),
    Note("softmax", _TORCH, f"ATen's AVX-512 build, or by the profile on that level the one for AVX2; libm: beside the densest axis the last entries, which fill no vector, are glibc's expf; {_counted_softmax('fbgemm')}"),
    Note("linear_dynamic conv1d_dynamic conv2d_dynamic conv3d_dynamic", _ATEN, "on a CPU with AVX512-VNNI; without it, pairs of products saturate to int16, as the profile on that level (isa=) says"),
    Note("linear_dynamic", "inductor", "quantized_decomposed.choose_qparams and onednn.qlinear_pointwise, as the exported graph calls them"),
    Note("linear_dynamic", "onnx onnx_reference", "DynamicQuantizeLinear, MatMulInteger, Cast, Mul and Add, as onnx.reference computes them"),
    Note("quantize_embedding embedding_bag", _TORCH, "finite rows; sums in mode 0, one row after another, as FBGEMM's generated kernels for AVX2 and AVX-512 add them"),
    Note("adaptive_avg_pool2d", "onnxruntime", "the global pool alone; ONNX has no other"),
    Note("sigmoid tanh", _TFLITE, "into the kernels' own output parameters, (1/256, -128) and (1/128, 0)"),
    Note("sigmoid tanh", "tflite_ref tflite_opt", f"libm: a table by glibc's expf and tanhf, as they are up to 2.40; {_counted('tflite_opt', ('sigmoid', 'tanh'))}"),
    Note("sigmoid tanh", "xnnpack", f"libm: a table, of sigmoid in float64, rounded once, of tanh by glibc's tanhf, as it is up to 2.40; {_counted('xnnpack', ('sigmoid', 'tanh'))}"),
    Note("elu", "tflite_opt xnnpack", f"with alpha=1; libm: a table by glibc's expm1f, as it is up to 2.40; {_counted('tflite_opt', ('elu',))}"),
    Note("gelu", _TFLITE, f"not approximated; libm: a table by glibc's erfcf, as it is up to 2.40; {_counted('tflite_opt', ('gelu',))}"),
    Note("exp log", _TFLITE, f"libm: tables by glibc's expf and logf, as they are up to 2.40; {_counted('tflite_opt', ('exp', 'log'))}"),
    Note("sqrt rsqrt", _TFLITE, "of codes from the zero point on: the kernels refuse negative numbers"),
    Note("relu6 hardtanh", _TFLITE, "as RELU6; as RELU_N1_TO_1 with limits -1 and 1, or RELU_0_TO_1 with 0 and 1"),
    *(
        Note(ops, profiles, "multipliers in [2**-30, 2**22), and limits of less than 2**31 steps: others shift, or take codes, out of int32, which C++ leaves undefined")
        for ops, profiles in (("requantize leaky_relu prelu mean matmul hardswish relu6 hardtanh sqrt rsqrt abs", _TFLITE), ("elu", "tflite_opt xnnpack"))
    ),
    Note("mean", "xnnpack", "what is meant, over the last axes of more than 8,192 elements: the kernel for AVX2 sums in 16 bits, which wrap"),
    Note("softmax", "tflite_opt xnnpack", f"libm: a table by glibc's expf; {_counted_softmax('tflite_opt')}"),
    Note("softmax", _TFLITE, "along the last axis, into scale 1/256 and zero point -128"),
    Note("conv_transpose1d", _TFLITE, "as TRANSPOSE_CONV of height 1"),
    Note("conv_transpose1d conv_transpose2d", _TFLITE, "one group, no dilation"),
    Note("linear_dynamic", _TFLITE, "int8 weights with zero point 0; each row quantized by itself"),
    Note("interpolate", _TFLITE, "to a size, with half_pixel_centers, or align_corners"),
    Note("cat", _TFLITE, "inputs with the output's parameters, which int8 demands"),
    Note("adaptive_avg_pool2d", _TFLITE, "as MEAN over height and width: the global pool alone"),
    Note("leaky_relu", "xnnpack", "where the delegate takes it: ratios of the scales in [2**-8, 2**7]"),
    Note("conv1d", _TFLITE, "as CONV_2D of height 1, which a converter writes for it"),
    Note("sub", "xnnpack", "where the delegate takes it: ratios of the scales in [2**-10, 2**8)"),
    Note("linear conv1d conv2d", "tflite_opt", "x86-64 with AVX2 or AVX-512; depthwise convolutions whose channels fill whole steps of eight"),
    Note(f"linear {_CONVOLUTIONS}", "openvino", f"{_OPENVINO}, on a CPU with AVX512-VNNI, or on one with AVX2 alone by the profile on that level, where pairs of products saturate to int16; int8 weights with zero point 0; convolutions of int8 with a zero point, which run in float32, where sums stay below 2**24 and groups are 1 or depthwise; no stride at a kernel of 1"),
    Note("avg_pool2d avg_pool3d", "openvino", f"{_OPENVINO}; padding that counts is code 0, whatever number that is"),
    Note("adaptive_avg_pool2d adaptive_avg_pool3d", "openvino", f"{_OPENVINO}; the global pool alone"),
    Note("conv3d", "openvino", "what is meant, of padded volumes with a zero point in groups, no depthwise ones, whose channels fill no steps of 8: the engine counts padding otherwise"),
    Note(_TRANSPOSED, "openvino", f"{_OPENVINO}; activations with zero point 0, one group, strides of 3 at most that no kernel is smaller than: all else runs in float32; held on a CPU with AVX2, by the profile on that level; with dilation there alone, what is meant where a dilated width has output padding: some outputs of the engine are others"),
    Note("interpolate", "openvino", f"{_OPENVINO}; Resize with modes half_pixel, align_corners, and asymmetric for the nearest point"),
    Note("clamp hardtanh", "openvino", "what is meant, for a lower limit of 2**31 steps and more: the engine wraps it to int32, so that it limits nothing or little"),
    Note("choose_qparams quantize_dynamic", "openvino", "DynamicQuantizeLinear as its ONNX reader writes it, in float32; scales that are normal numbers"),
    Note("dequantize", "openvino", "in a model without a QuantizeLinear: where there is one, even in another branch, the engine gives openvino+low_precision"),
    Note("softmax", "openvino", f"{_OPENVINO}, by oneDNN's exponential and sums; those of AVX-512 as their source has them, held on AVX2 alone; {_counted_softmax('openvino')}"),
    Note("add mul cat hardsigmoid hardswish leaky_relu fake_quantize requantize relu6 clamp hardtanh prelu", "openvino", _OPENVINO),
    Note("mean", "openvino", f"{_OPENVINO}; what is meant: over the last of three axes, where the first is longer than the second, and over the last two, unless they are kept, the engine leaves rows empty if there is a zero point"),
    Note(_SMOOTH, "openvino", f"{_OPENVINO}, by oneDNN's vectorized functions; gelu on AVX-512 as its source has it, held on AVX2 alone; {_counted('openvino')}"),
    Note("add mul dequantize quantize", "tflite_opt", "x86-64 with AVX2 or AVX-512, where NEON code runs through NEON_2_SSE"),
)


def _index(notes):
    found = {}
    for note in notes:
        for op in note.ops.split():
            for profile in note.profiles.split():
                found.setdefault((op, profile), []).append(note.text)
    return found


def _base(profile):
    """A profile's name without its variant and its processor level."""
    return profile.partition("+")[0].partition("@")[0]


_ABSENT, _CONDITIONS = _index(NOT_OFFERED), _index(CONDITIONS)


def absence(op, profile):
    """Return why the engine of a profile has no such operator (or what a section describes), or None.

    Examples
    --------
    >>> absence("conv3d", "tflite_ref")
    'CONV_3D has float kernels alone'
    """
    return next(iter(_ABSENT.get((op, _base(profile)), ())), None)


def conditions(op, profile):
    """Return the list of conditions under which an operator of a profile is exact.

    Examples
    --------
    >>> conditions("conv1d", "onednn")
    ['on a CPU with AVX512-VNNI; without it, pairs of products saturate to int16, as the profile on that level (isa=) says']
    """
    return list(_CONDITIONS.get((op, _base(profile)), ()))
