"""What PyTorch's conversion does to modules and functions. Imports torch when called."""

from refquant.backends.findings.batches import SMALL

__all__ = ["reused_module", "functional_convolution"]


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
