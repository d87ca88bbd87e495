"""PyTorch's PT2E workflow for quantization-aware training, as torchao has it, without gradients. Imports torch and torchao when imported."""

import warnings
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
import torchao.quantization.pt2e.quantizer.x86_inductor_quantizer as x86
from torchao.quantization.pt2e import move_exported_model_to_eval, qat_utils, utils
from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e

from refquant.backends.torch_pt2e import Float64Sums, annotations, exported, numbered_operations, operations, placement, run_quantized

__all__ = ["SeenInTraining", "default_qat_quantizer", "patterns_kept", "prepared_qat_module", "seen_in_training", "trained_module"]


class SeenInTraining(NamedTuple):
    """What torchao's module did: where its fake-quantizers stand and what they found, and what it computed.

    Attributes
    ----------
    annotations, placement
        As `refquant.backends.torch_pt2e` has them, after the passes in training.
    statistics : dict of str to (ndarray, ndarray)
        Running mean and variance by the path of the batch norm, underscores for dots.
    passes : list of tuple of ndarray
        The outputs of each pass in training, and of one in evaluation.
    outputs : tuple of ndarray
        Of the converted module.
    values : list of QuantizedValue
        Of the converted module.
    """

    annotations: dict
    placement: list
    statistics: dict
    passes: list
    outputs: tuple
    values: list


_PATTERNS = {}


@contextmanager
def patterns_kept():
    """Let torchao export each of its patterns once a process, and none for convolutions that a network does not have: it exports more than a hundred for each network."""
    export, helpers = utils._get_aten_graph_module_for_pattern, {name: getattr(qat_utils, name) for name in ("_fuse_conv_bn_qat_helper", "_fold_conv_bn_qat_helper")}

    def kept(pattern, example_inputs, is_cuda=False, **kwargs):
        settings = tuple(cell.cell_contents for cell in pattern.fn.__closure__ or ())
        key = pattern.fn.__qualname__, settings, tuple(tuple(x.shape) for x in example_inputs), tuple(kwargs)
        if key not in _PATTERNS:
            _PATTERNS[key] = export(pattern, example_inputs, is_cuda, **kwargs)
        return _PATTERNS[key]

    modules = utils, qat_utils
    try:
        for module in modules:
            module._get_aten_graph_module_for_pattern = kept
        for name, helper in helpers.items():
            setattr(qat_utils, name, partial(_where_present, helper))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for module in modules:
            module._get_aten_graph_module_for_pattern = export
        for name, helper in helpers.items():
            setattr(qat_utils, name, helper)


def _where_present(helper, module, convolution, *arguments, **options):
    """Look for the patterns of a convolution in a module that has it; what else the helper does is to drop what nobody reads."""
    if any(str(node.target).startswith(f"aten.{convolution.__name__}.") for node in module.graph.nodes):
        return helper(module, convolution, *arguments, **options)
    module.graph.eliminate_dead_code()
    module.recompile()
    return module


def default_qat_quantizer(**options):
    """Return torchao's X86InductorQuantizer with its default configuration for training."""
    return x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config(is_qat=True, **options))


def prepared_qat_module(module, example, *, quantizer=None, strict=False):
    """Return torchao's prepared module, which has seen nothing yet; dropouts, which would draw at random, have probability 0.

    Parameters
    ----------
    module : torch.nn.Module
    example : ndarray
        A batch of the size of those to come.
    quantizer : torchao quantizer, optional
    strict : bool
        How the module is exported.
    """
    with patterns_kept():
        return prepare_qat_pt2e(numbered_operations(exported(module, example, strict, training=True)), quantizer or default_qat_quantizer())


def seen_in_training(prepared, batches):
    """Run a prepared module in training on each batch and in evaluation on the last, convert it, run that, and return all that was seen; real sums in float64.

    Returns
    -------
    SeenInTraining
    """
    passes = [_simulated(prepared, batch) for batch in batches]
    told, stand, statistics = annotations(prepared), placement(prepared), _running_statistics(prepared)
    with patterns_kept():
        places = _moved_to_eval(prepared)
        passes.append(_simulated(prepared, batches[-1]))
        outputs, values = run_quantized(prepared, batches[-1], order="float64", places=places)
    return SeenInTraining(told, stand, statistics, passes, outputs, values)


def trained_module(prepared, batches):
    """Run a prepared module in training on each batch, real sums in float64, and return it in evaluation, ready to be converted."""
    for batch in batches:
        _simulated(prepared, batch)
    with patterns_kept():
        _moved_to_eval(prepared)
    return prepared


def _moved_to_eval(prepared):
    """Let batch norms take their running statistics; return the places that operations had before, because some are replaced, and stand elsewhere."""
    norm, dropout = torch.ops.aten.batch_norm.default, torch.ops.aten.dropout.default
    before = operations(prepared.graph)
    of = lambda target: [n for n in prepared.graph.nodes if n.target is target]  # noqa: E731
    norms, dropouts = {n.args[3].target: before[n.name] for n in of(norm)}, [before[n.name] for n in of(dropout)]
    move_exported_model_to_eval(prepared)
    replaced = {**{n.name: norms[n.args[3].target] for n in of(norm)}, **{n.name: place for n, place in zip(of(dropout), dropouts, strict=True)}}
    return {**before, **replaced}


def _simulated(prepared, x):
    """Return the outputs of one forward pass; fake-quantizers observe, and in training running statistics follow."""
    with torch.no_grad():
        outputs = Float64Sums(prepared).run(torch.from_numpy(np.ascontiguousarray(x)))
    return tuple(y.numpy() for y in (outputs if isinstance(outputs, (tuple, list)) else (outputs,)))


def _running_statistics(prepared):
    state = {name: value.numpy().copy() for name, value in prepared.named_buffers()}
    paths = [name.removesuffix(".running_mean") for name in state if name.endswith(".running_mean")]
    return {path.replace(".", "_"): (state[f"{path}.running_mean"], state[f"{path}.running_var"]) for path in paths}
