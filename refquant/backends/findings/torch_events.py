"""What PyTorch's conversion does to modules and functions. Imports torch when called."""

from refquant.backends.findings.batches import SMALL

__all__ = ["reused_module", "functional_convolution", "compiled_max_pool", "gaps_of_a_transposed_convolution"]


def _convert(module, x):
    import torch
    from torch.ao.quantization import get_default_qconfig_mapping
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

    torch.backends.quantized.engine = "x86"
    prepared = prepare_fx(module.eval(), get_default_qconfig_mapping("x86"), (x,))
    prepared(x)
    return convert_fx(prepared)


def reused_module():
    """Return the output scales of both calls of one module, the second of which gives ten times as large numbers."""
    import torch
    from torch import nn

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 2, bias=False)
            self.layer.weight = nn.Parameter(torch.eye(2))

        def forward(self, x):
            return self.layer(10 * self.layer(x))

    scales = []
    converted = _convert(Twice(), torch.from_numpy(SMALL.copy()))
    converted.layer.register_forward_hook(lambda module, x, y: scales.append(y.q_scale()))
    converted(torch.ones(4, 2))
    return scales


def functional_convolution():
    """Return 1 if a model converts that calls ``F.conv2d`` with its default arguments, and 1 if it does with all of them."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Functional(nn.Module):
        def __init__(self, *arguments):
            super().__init__()
            self.arguments, self.weight, self.bias = arguments, nn.Parameter(torch.ones(2, 2, 1, 1)), nn.Parameter(torch.ones(2))

        def forward(self, x):
            return functional.conv2d(x, self.weight, self.bias, *self.arguments)

    return [_converts(Functional()), _converts(Functional((1, 1), (0, 0), (1, 1), 1))]


def _converts(module):
    import torch

    try:
        _convert(module, torch.ones(1, 2, 3, 3))
    except RuntimeError:
        return 0
    return 1


def compiled_max_pool():
    """Return how many rows a max pool of 3 with a stride of 2 and ``ceil_mode`` makes of 8: in eager mode, and compiled by TorchInductor from codes to codes."""
    import torch
    import torch._inductor.config
    import torch.ao.quantization.fx._decomposed  # registers the operators

    quantized = torch.ops.quantized_decomposed

    def pool(codes):
        x = quantized.dequantize_per_tensor.default(codes, 0.5, 3, 0, 255, torch.uint8)
        y = torch.ops.aten.max_pool2d.default(x, [3, 3], [2, 2], [0, 0], [1, 1], True)
        return quantized.quantize_per_tensor.default(y, 0.5, 3, 0, 255, torch.uint8)

    codes = torch.zeros((1, 8, 8, 8), dtype=torch.uint8)
    with torch._inductor.config.patch(freezing=True), torch.no_grad():
        return [pool(codes).shape[2], torch.compile(pool)(codes).shape[2]]


def gaps_of_a_transposed_convolution():
    """Return of a transposed convolution of zeros by oneDNN, kernel 1 and stride 7, which rows of the output, 0 to 7, have an element that is not zero."""
    import torch

    quantized = torch.ops.quantized
    torch.backends.quantized.engine = "onednn"
    torch.set_num_threads(1)
    x = torch.quantize_per_tensor(torch.zeros(1, 256, 2, 4), 1.0, 128, torch.quint8)
    w = torch.quantize_per_tensor(torch.ones(256, 256, 1, 1), 1.0, 0, torch.qint8)
    y = quantized.conv_transpose2d(x, quantized.conv_transpose2d_prepack(w, None, [7, 1], [0, 0], [0, 0], [1, 1], 1), 1.0, 100)
    return (y.int_repr() != 100).any(3).any(1)[0].tolist()
