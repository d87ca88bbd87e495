"""What torchao's PT2E workflow does to networks. Imports torch and torchao when called."""

__all__ = ["sum_with_itself", "training_forgets_eps", "evaluation_becomes_training", "excluded_in_training", "sum_after_a_function"]


def _exported(module, x):
    import warnings

    import torch

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        return torch.export.export(module, (x,)).module()


def _quantizer(is_qat):
    import torchao.quantization.pt2e.quantizer.x86_inductor_quantizer as x86

    return x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config(is_qat=is_qat))


def _norm_settings(training):
    """Return (training, momentum, eps) of the batch norm of a small network before and after ``prepare_qat_pt2e``."""
    import torch
    from torch import nn
    from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e

    module = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2, eps=0.125, momentum=0.25)).train(training)
    prepared = prepare_qat_pt2e(_exported(module, torch.ones(2, 2, 3, 3)), _quantizer(True))
    return next(n.args[5:8] for n in prepared.graph.nodes if n.target is torch.ops.aten.batch_norm.default)


def training_forgets_eps():
    """Return eps and momentum of a batch norm that is fused for training."""
    training, momentum, eps = _norm_settings(True)
    return [eps, momentum]


def evaluation_becomes_training():
    """Return 1 if a batch norm is in training after ``prepare_qat_pt2e``, of a network exported in training, and of one exported in evaluation."""
    return [int(_norm_settings(training)[0]) for training in (True, False)]


def excluded_in_training():
    """Return 1 if a network is prepared whose convolution is left float by a rule: with a batch norm behind it, and without one."""
    import torch
    from torch import nn
    from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e

    done = []
    for layers in ([nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)], [nn.Conv2d(2, 2, 1)]):
        quantizer = _quantizer(True).set_module_name_qconfig("0", None)
        graph = _exported(nn.Sequential(nn.Sequential(*layers), nn.ReLU()), torch.ones(2, 2, 3, 3))
        try:
            prepare_qat_pt2e(graph, quantizer)
        except IndexError:
            done.append(0)
        else:
            done.append(1)
    return done


def sum_with_itself():
    """Return 1 if TorchInductor compiles a quantized convolution with ReLU that is added to another one's, and to itself."""
    import torch
    from torch import nn

    class Sum(nn.Module):
        def __init__(self, itself):
            super().__init__()
            self.a, self.b, self.relu, self.itself = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1), nn.ReLU(), itself

        def forward(self, x):
            y = self.relu(self.a(x))
            return y + (y if self.itself else self.b(x))

    return [_compiles(Sum(itself), torch.ones(1, 2, 3, 3)) for itself in (False, True)]


def sum_after_a_function():
    """Return 1 if TorchInductor compiles a quantized linear layer whose output is added to its input: without and with ReLU between."""
    import torch
    from torch import nn

    class Residual(nn.Module):
        def __init__(self, function):
            super().__init__()
            self.fc, self.function = nn.Linear(4, 4), function

        def forward(self, x):
            return self.function(self.fc(x)) + x

    return [_compiles(Residual(function), torch.ones(2, 4)) for function in (nn.Identity(), nn.ReLU())]


def _compiles(module, x):
    import torch
    import torch._inductor.config
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    with torch._inductor.config.patch(freezing=True), torch.no_grad():
        prepared = prepare_pt2e(_exported(module.eval(), x), _quantizer(False))
        prepared(x)
        converted = convert_pt2e(prepared)
        converted(x)
        try:
            torch.compile(converted)(x)
        except torch._dynamo.exc.BackendCompilerFailed:
            return 0
    return 1
