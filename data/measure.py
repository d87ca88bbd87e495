"""What INT8 costs the networks of `refquant.data` in accuracy, by PyTorch's own means. Needs torch."""

import copy
import warnings

import torch
from torch.ao.quantization import HistogramObserver, MinMaxObserver, PerChannelMinMaxObserver, QConfig, QConfigMapping
from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx
from torch.fx.experimental.optimization import fuse


def accuracy(module, x, labels):
    """Share of the images whose greatest logit is their label's."""
    with torch.inference_mode():
        logits = torch.cat([module(part) for part in torch.from_numpy(x).split(250)])
    return (logits.argmax(1) == torch.from_numpy(labels)).double().mean().item()


def quantize_weights(module, per_channel):
    """A copy with BatchNorm folded in and the weights on a symmetric int8 grid; all else stays float32.

    Parameters
    ----------
    module : torch.nn.Module
        In eval mode.
    per_channel : bool
        One scale for each output channel, or one for the whole tensor; the greatest magnitude becomes 127.

    Returns
    -------
    torch.nn.Module
    """
    folded = fuse(copy.deepcopy(module))
    for layer in folded.modules():
        if isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear)):
            weight = layer.weight.detach()
            greatest = weight.abs().flatten(1).amax(1)
            if not per_channel:
                greatest = greatest.max().expand_as(greatest)
            # A scale below this would overflow on division; such a channel is all zeros in effect.
            scale = (greatest / 127).clamp_min(torch.finfo(torch.float32).tiny * 2**10)
            zero = torch.zeros_like(scale, dtype=torch.int32)
            layer.weight.data = torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -127, 127)
    return folded


def quantize_fx(module, calibration, *, per_channel=True, activation_bits=8, histogram=True, engine="onednn"):
    """The network in INT8 as PyTorch's FX workflow makes it.

    Parameters
    ----------
    module : torch.nn.Module
        In eval mode.
    calibration : numpy.ndarray
        float32 inputs.
    per_channel : bool
        Weight scales per output channel or per tensor.
    activation_bits : int
        8: activations 0 to 255. 7: 0 to 127, PyTorch's ``reduce_range``.
    histogram : bool
        Activation ranges by HistogramObserver or by MinMaxObserver.
    engine : str
        PyTorch's quantized engine.

    Returns
    -------
    torch.nn.Module
    """
    activation = HistogramObserver if histogram else MinMaxObserver
    if per_channel:
        weight = PerChannelMinMaxObserver.with_args(dtype=torch.qint8, qscheme=torch.per_channel_symmetric)
    else:
        weight = MinMaxObserver.with_args(dtype=torch.qint8, qscheme=torch.per_tensor_symmetric)
    mapping = QConfigMapping().set_global(QConfig(
        activation=activation.with_args(dtype=torch.quint8, reduce_range=activation_bits == 7), weight=weight))
    torch.backends.quantized.engine = engine
    batches = torch.from_numpy(calibration).split(50)
    with warnings.catch_warnings(), torch.inference_mode():
        # The workflow is deprecated in favour of torchao's, whose weights and ranges are the same.
        warnings.simplefilter("ignore")
        prepared = prepare_fx(copy.deepcopy(module), mapping, (batches[0],))
        for batch in batches:
            prepared(batch)
        return convert_fx(prepared)
