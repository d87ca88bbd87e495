"""`X86InductorQuantizer`: what PyTorch quantizes for TorchInductor on x86 CPUs."""

import warnings

from refquant.errors import ArgumentError, UnsupportedError
from refquant.workflow.pt2e.partitions import Sources
from refquant.workflow.pt2e.quantization_config import QuantizationConfig
from refquant.workflow.pt2e.quantizer import Quantizer
from refquant.workflow.pt2e.x86_recipe import DEFAULT_QUANTIZABLE, annotate_outputs, annotate_with

__all__ = ["X86InductorQuantizer"]

_MODULES = {"Conv2d": "conv2d", "Linear": "linear", "MaxPool2d": "max_pool2d", "AvgPool2d": "avg_pool2d", "AdaptiveAvgPool2d": "adaptive_avg_pool2d"}
_FUNCTIONS = ("conv1d", "conv2d", "linear", "max_pool2d", "cat", "avg_pool2d", "adaptive_avg_pool2d", "flatten", "matmul", "mul")


class X86InductorQuantizer(Quantizer):
    """Annotates convolutions and linear layers with what Inductor fuses with them, and what hands codes on.

    Rules that name a module are the strongest, then those for a type of operation, then the global one; among equals the first wins. Methods
    change the quantizer and return it. As in torchao, a configuration that mixes static with dynamic quantization, or names what no rule
    can reach, is left out with a warning.

    Parameters
    ----------
    strict : bool
        How torch.export is meant to have captured the model (see `refquant.workflow.pt2e.partitions`). PyTorch's default is False.

    Source
    ------
    torchao 0.18, quantization/pt2e/quantizer/x86_inductor_quantizer.py.

    Examples
    --------
    >>> from refquant.workflow import get_default_x86_inductor_quantization_config
    >>> config = get_default_x86_inductor_quantization_config()
    >>> quantizer = X86InductorQuantizer().set_global(config).set_module_name_qconfig("fc", None)
    >>> quantizer.module_name_qconfig
    {'fc': None}
    """

    def __init__(self, strict=False):
        self.strict = bool(strict)
        self.global_config = None
        self.operator_type_qconfig = {}
        self.module_name_qconfig = {}

    def set_global(self, quantization_config):
        """Set what holds for convolutions, linear layers, products of values, pools, concatenations and flattening."""
        return self if self._skips(quantization_config, "the global configuration") else self._set(lambda: setattr(self, "global_config", quantization_config))

    def get_global_quantization_config(self):
        """Return the global configuration, with a warning if there is none."""
        if self.global_config is None:
            warnings.warn("X86InductorQuantizer: there is no global configuration; set one with set_global", stacklevel=2)
        return self.global_config

    def set_function_type_qconfig(self, function_type, quantization_config):
        """Set a rule for a function: ``"F.conv2d"``, ``"torch.cat"``, … or PyTorch's own; modules that call it are meant too."""
        name = function_type if isinstance(function_type, str) else getattr(function_type, "__name__", str(function_type))
        operation = name.rpartition(".")[2]
        return self._set_type(function_type, operation if operation in _FUNCTIONS else None, quantization_config)

    def set_module_type_qconfig(self, module_type, quantization_config):
        """Set a rule for a kind of module: ``"nn.Conv2d"``, ``"nn.Linear"``, … or PyTorch's class; functions that do the same are meant too."""
        name = module_type if isinstance(module_type, str) else getattr(module_type, "__name__", str(module_type))
        return self._set_type(module_type, _MODULES.get(name.rpartition(".")[2]), quantization_config)

    def set_module_name_qconfig(self, module_name, quantization_config):
        """Set a rule for a module, such as ``"block1.conv1"``, and all inside of it; a chain must lie inside as a whole."""
        return self if self._skips(quantization_config, module_name) else self._set(lambda: self.module_name_qconfig.update({module_name: quantization_config}))

    def _set_type(self, given, operation, config):
        if self._skips(config, given):
            return self
        if operation is None:
            warnings.warn(f"X86InductorQuantizer: no rule can reach {given!r}; choose among {', '.join(sorted({*_FUNCTIONS, *map('nn.{}'.format, _MODULES)}))}", stacklevel=3)
            return self
        self.operator_type_qconfig[operation] = config
        return self

    def _set(self, change):
        change()
        return self

    def _skips(self, config, name):
        """Whether a configuration does not go with the ones that are set."""
        if config is None:
            return False
        if not isinstance(config, QuantizationConfig):
            raise ArgumentError(f"X86InductorQuantizer: the configuration of {name!r} is a {type(config).__name__}; pass a QuantizationConfig, or None to leave it float")
        for other in self._configs():
            if other.is_qat != config.is_qat:
                warnings.warn(f"X86InductorQuantizer: training and none of it do not mix; {name!r} is left out", stacklevel=3)
                return True
            if None not in (other.input_activation, config.input_activation) and other.input_activation.is_dynamic != config.input_activation.is_dynamic:
                warnings.warn(f"X86InductorQuantizer: static and dynamic quantization do not mix; {name!r} is left out", stacklevel=3)
                return True
        return False

    def _configs(self):
        every = (*self.module_name_qconfig.values(), *self.operator_type_qconfig.values(), self.global_config)
        return [config for config in every if config is not None]

    def annotate(self, graph):
        """Annotate a graph by the rules, strongest first; then outputs of what hands codes on."""
        sources = Sources(graph, self.strict)
        for name, config in self.module_name_qconfig.items():
            annotate_with(graph, sources, config, lambda nodes, name=name: all(_inside(n, name) for n in nodes))
        for operation, config in self.operator_type_qconfig.items():
            annotate_with(graph, sources, config, lambda nodes, operation=operation: _exactly_one(nodes, (operation,)))
        if self.global_config is not None:
            annotate_with(graph, sources, self.global_config, lambda nodes: _exactly_one(nodes, DEFAULT_QUANTIZABLE))
        annotate_outputs(graph)
        return graph


def _inside(node, module_name):
    return node.path == module_name or node.path.startswith(module_name + ".") or module_name == ""


def _exactly_one(nodes, operations):
    """Whether one node of a chain is of some operations; torchao has no answer for more."""
    reached = ("mul", "mul_scalar") if "mul" in operations else ()
    count = sum(n.op in operations or n.op in reached for n in nodes)
    if count > 1:
        raise UnsupportedError(f"X86InductorQuantizer: {', '.join(n.name for n in nodes)} is one chain with several quantizable operations, where torchao stops; name modules instead")
    return count == 1
