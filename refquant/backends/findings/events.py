"""Findings about whole calls of an engine: its conversion, its calibration, its process."""

import numpy as np

from refquant.backends.findings.batches import BATCHES
from refquant.backends.findings.event import Event

__all__ = ["EVENTS", "FIRST_SCALE", "SECOND_SCALE", "CUT_RANGE"]


def _range(batches):
    return [min(float(b.min()) for b in batches), max(float(b.max()) for b in batches)]


#: What `refquant.observers` find: the scales of both calls by HistogramObserver in 7 bits, as the x86 engine asks for; the range by EntropyObserver(2048, 128).
FIRST_SCALE, SECOND_SCALE = 0.015740342438220978, 0.15740342438220978
CUT_RANGE = [-8.819395065307617, 8.834627151489258]

EVENTS = (
    Event(
        name="softmax-ends-the-process", engine="tflite_ref", defect=True,
        title="TFLite's reference SOFTMAX aborts where a row has 512 entries that are about equal",
        text="The sum of the exponentials is normalized, and the last step shifts by its logarithm plus 23 bits. From a sum of 512 on that is more than 31, which "
        "an assertion forbids: the process ends by SIGABRT. A thousand classes that are equally likely are such a row.",
        live="litert_events:softmax_of_many", oracle=lambda: [-6], expect=lambda: [512], expected_by="512 outputs",
    ),
    Event(
        name="the-lowest-hybrid-weight-changes-its-sign", engine="tflite_opt", defect=True,
        title="TFLite's hybrid kernels take a weight of -128 with the wrong sign",
        text="They multiply absolute values and give the sign of one factor to the other, which for -128 is no int8. From 16 products on, where vectors begin, -128 times a negative "
        "number is negative. The reference resolver shares the kernel; TFLite's converter writes -127 … 127, PyTorch's observers may write -128.",
        live="litert_events:lowest_hybrid_weight", oracle=lambda: [-2048, 2032], expect=lambda: [2048, 2032], expected_by="positive sums",
    ),
    Event(
        name="a-reused-module-has-one-scale", engine="x86",
        title="A module that is called twice has one output scale after convert_fx, that of its last call",
        text="Each call is observed by itself, but a quantized module holds one scale and one zero point, and the later call overwrites the earlier one's. "
        "Here the first call's outputs are ten times smaller, and share an eighth of the codes.",
        live="torch_events:reused_module", oracle=lambda: [SECOND_SCALE] * 2, expect=lambda: [FIRST_SCALE, SECOND_SCALE], expected_by="of each call",
    ),
    Event(
        name="functional-convolution-needs-every-argument", engine="x86",
        title="A model that calls F.conv2d with its default arguments cannot be converted",
        text="prepare_fx takes the pattern, and convert_fx passes what the call has to quantized::conv2d_prepack, which has no defaults: a RuntimeError about a missing "
        "stride, at the end of a calibration. With stride, padding, dilation and groups written out it converts.",
        live="torch_events:functional_convolution", oracle=lambda: [0, 1], expect=lambda: [1, 1], expected_by="both to convert",
    ),
    Event(
        name="compiled-max-pool-forgets-ceil-mode", engine="inductor", defect=True,
        title="What TorchInductor compiles of a quantized max pool forgets ceil_mode",
        text="Between a dequantize and a quantize node the pool is lowered to one on codes, which is given ceil_mode and computes as without: the last row and column "
        "are missing, and every later image has another size. GoogLeNet and SqueezeNet have such pools. lower_pt2e(defects=('floor_max_pool',)) does likewise.",
        live="torch_events:compiled_max_pool", oracle=lambda: [4, 3], expect=lambda: [4, 4], expected_by="4 rows of 8",
    ),
    Event(
        name="gaps-of-unwritten-memory", engine="onednn", defect=True, level="avx2",
        title="oneDNN's transposed convolutions add unwritten memory to outputs between two inputs",
        text="Strides may leave outputs that no input reaches, and of these the kernel takes off what the zero point would add, row by row of a buffer. It takes as many rows as lie above in "
        "the stride, and the buffer has as many as the kernel is high: beyond, it adds what lies there. In height and depth, with a zero point of the input other than 0, the third row "
        "of a gap and later ones are other numbers in every run. jit_uni_x8s8s32x_deconvolution.cpp, b_overflow and back_overflow.",
        live="torch_events:gaps_of_a_transposed_convolution", oracle=lambda: [0, 0, 1, 1, 1, 1, 1, 0], expect=lambda: [0] * 8, expected_by="zeros",
    ),
    Event(
        name="one-pixel-becomes-all-channels", engine="fbgemm", defect=True,
        title="An image of one pixel is enlarged into a mixture of its channels",
        text="Of a contiguous (N, C, 1, 1) PyTorch's rule of packed memory says channels last, its rule of strides says contiguous. interpolate and adaptive_avg_pool2d to several pixels compute by the "
        "first and write into an output of the second: the pooled branch of a segmentation network comes back with its channels mixed up, under every quantized engine. "
        "x.clone(memory_format=torch.channels_last) before it helps, x.contiguous(memory_format=torch.channels_last) does not.",
        live="view_events:one_pixel", oracle=lambda: [10, 20, 30, 10], expect=lambda: [10] * 4, expected_by="10 everywhere",
    ),
    Event(
        name="a-permuted-image-loses-its-order", engine="fbgemm", defect=True,
        title="A pool of image.permute(2, 0, 1).unsqueeze(0) mixes its channels",
        text="The two rules disagree on such a batch of one as on images of one pixel. Pools, interpolate, group_norm and instance_norm write their channels-last results as if contiguous.",
        live="view_events:permuted_image", oracle=lambda: [10, 20], expect=lambda: [10, 10], expected_by="10 everywhere",
    ),
    Event(
        name="the-first-image-alone-is-normalized", engine="fbgemm", defect=True,
        title="quantized::instance_norm of images of one pixel leaves all but the first uninitialized",
        text="So does group_norm with as many groups as channels. What comes out of the other images is whatever the memory held before.",
        live="view_events:groups_of_one", oracle=lambda: [1, 0, 0], expect=lambda: [1, 1, 1], expected_by="all three to be normalized",
    ),
    Event(
        name="a-dynamic-convolution-looks-between-the-lines", engine="fbgemm", defect=True,
        title="A dynamically quantized convolution takes the range of what a view leaves out",
        text="conv1d_dynamic, conv2d_dynamic and conv3d_dynamic take the minimum and maximum of as many elements of memory as the view has, from its first one on: of a slice the "
        "elements between its rows count and its own last ones do not, of an expanded tensor what lies behind it in memory. linear_dynamic copies first.",
        live="view_events:range_of_gaps", oracle=lambda: [1176, 1003], expect=lambda: [1003, 1003], expected_by="as of a copy",
    ),
    Event(
        name="a-sum-with-itself-does-not-compile", engine="inductor", defect=True,
        title="A quantized convolution with ReLU whose output is added to itself cannot be compiled",
        text="The pass that fuses a sum into a convolution looks for the summand that is not the convolution, and asserts that there is one: y + y ends torch.compile with an AssertionError, "
        "though the converted model runs in eager mode.",
        live="torchao_events:sum_with_itself", oracle=lambda: [1, 0], expect=lambda: [1, 1], expected_by="both to compile",
    ),
    Event(
        name="a-sum-behind-a-function-does-not-compile", engine="inductor", defect=True,
        title="A quantized linear layer with ReLU cannot be compiled if its output is then added to another value",
        text="relu(fc(x)) + x, a residual block, ends torch.compile with an AssertionError: the layer takes ReLU in first, and the pass that is to take in the sum asserts that nothing was "
        "taken in yet. Without the function it compiles, and a convolution does too.",
        live="torchao_events:sum_after_a_function", oracle=lambda: [1, 0], expect=lambda: [1, 1], expected_by="both to compile",
    ),
    Event(
        name="training-forgets-eps", engine="inductor", defect=True,
        title="prepare_qat_pt2e gives fused batch norms eps 1e-5 and momentum 0.1, whatever they had",
        text="The batch norm behind a convolution is replaced by that of a pattern, and the numbers in it are the pattern's: eps=0.001, as MobileNetV3 has it, or a momentum of "
        "one's own are lost without a word, in training and in the folded weights. move_exported_model_to_eval does the same to all other batch norms. prepare_qat_pt2e(defects=('fixed_eps',)) does likewise.",
        live="torchao_events:training_forgets_eps", oracle=lambda: [1e-5, 0.1], expect=lambda: [0.125, 0.25], expected_by="as the module has them",
    ),
    Event(
        name="evaluation-becomes-training", engine="inductor", defect=True,
        title="prepare_qat_pt2e puts fused batch norms into training, also those of a model that was exported in evaluation",
        text="The pattern that replaces a convolution with its batch norm is one in training, and matches both. Who exports model.eval() to keep the running statistics has them overwritten by "
        "each forward pass, until move_exported_model_to_eval is called.",
        live="torchao_events:evaluation_becomes_training", oracle=lambda: [1, 1], expect=lambda: [1, 0], expected_by="as exported",
    ),
    Event(
        name="a-rule-that-leaves-out-ends-training", engine="inductor", defect=True,
        title="prepare_qat_pt2e stops with an IndexError at a convolution with a batch norm that a rule leaves float",
        text="set_module_name_qconfig(name, None) marks the convolution with an empty annotation, and the fusion with its batch norm takes the first and second spec of it. "
        "Without a batch norm, or for calibration, such a rule works.",
        live="torchao_events:excluded_in_training", oracle=lambda: [0, 1], expect=lambda: [1, 1], expected_by="both to be prepared",
    ),
    Event(
        name="entropy-is-min-max", engine="onnxruntime",
        title="ONNX Runtime's Entropy calibration with its defaults is MinMax",
        text="Its histogram has 128 bins by default and the search asks for 128 quantized ones, so that the only candidate is the whole range. "
        "With num_bins=2048 outliers are cut off.",
        live="onnxruntime_events:entropy", oracle=lambda: _range(BATCHES), expect=lambda: CUT_RANGE, expected_by="as with 2048 bins",
    ),
    Event(
        name="calibration-forgets-batches", engine="onnxruntime", defect=True,
        title="CalibMaxIntermediateOutputs throws calibration batches away",
        text="Once so many outputs are held they are cleared, before their range is taken; what counts is what came after the last clearing. "
        "Of three batches and a limit of two the third alone is left, here not the widest. Where nothing is left, it raises an error.",
        live="onnxruntime_events:few_intermediate_outputs", oracle=lambda: _range(BATCHES[2:]), expect=lambda: _range(BATCHES), expected_by="of all batches",
    ),
    Event(
        name="a-bias-loses-its-scale", engine="onnxruntime", defect=True,
        title="ONNX Runtime fuses a Gemm to QGemm and forgets the scale of its bias",
        text="QGemm adds the int32 bias in units of sx * sw, whatever the scale of its DequantizeLinear is. A Conv with such a bias stays in float32. "
        "Quantizers write that scale; whoever writes another gets it back with optimizations disabled alone.",
        live="onnxruntime_events:bias_of_another_scale", oracle=lambda: [14], expect=lambda: [102], expected_by="2 + 100",
    ),
    Event(
        name="weights-alone-make-codes-of-activations", engine="onnxruntime",
        title="ONNX Runtime quantizes activations to int8 by itself where the weights alone are quantized",
        text="Its optimizations make a MatMulNBits of accuracy level 4 of DequantizeLinear and MatMul, also with int8 weights of one scale: each 32 numbers of a row "
        "become codes by their largest one, at run time. Beside 1 a number of 0.003 is gone.",
        live="onnxruntime_events:weights_alone_quantized", oracle=lambda: [0], expect=lambda: [float(np.float32(0.003))], expected_by="the float32 product",
    ),
)  # fmt: skip
