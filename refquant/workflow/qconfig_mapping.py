"""`QConfigMapping`: which layer is observed how, with PyTorch's precedence."""

import re
from functools import lru_cache

from refquant.errors import ArgumentError, choose
from refquant.graph.match import ANY, parse_pattern
from refquant.graph.module_classes import class_name, is_class
from refquant.graph.opset import OPS
from refquant.observers import DEFAULT_FAKE_QUANTS, FixedQParamsFakeQuantize, FixedQParamsObserver, HistogramObserver, MinMaxObserver, PlaceholderObserver
from refquant.workflow.backend_patterns import BACKEND_CONFIGS, FIXED_TARGETS, get_backend_config
from refquant.workflow.qconfig import BACKENDS, DEFAULT_WEIGHT, REUSE_INPUT, QConfig, get_default_qat_qconfig, get_default_qconfig

__all__ = ["QConfigMapping", "get_default_qconfig_mapping", "get_default_qat_qconfig_mapping", "object_type_names", "qconfigs_of"]

_TORCH_MODULES = {"torch.nn.functional": "F", "torch._C._nn": "F", "_operator": "operator", "torch._VF": "torch", "torch": "torch", "builtins": "torch"}
_PREFIXES = ("nn", "nni", "F", "torch", "operator", "")  # of targets; a dotted name that begins otherwise is that of a class

_SETTERS = {key: key or "global" for key in ("", "object_type", "module_name_regex", "module_name", "module_name_object_type_order")}


@lru_cache(maxsize=None)
def _known_targets():
    """What layers can be called: in models, and in PyTorch's tables."""
    tables = {t for name in BACKEND_CONFIGS for c in get_backend_config(name).configs for t in (*parse_pattern(c.pattern).targets, c.fused)}
    return {target for op in OPS for target in op.targets} | {t for t in tables if t not in (None, ANY)} | {f"F.conv_transpose{d}d" for d in (1, 2, 3)}


class QConfigMapping:
    """Rules that give each layer a `QConfig`, or None: stay float.

    The later in this list, the stronger: global, object type, module name by regular expression, module name (of the
    module or the nearest one around it), module name with object type and order. Methods change the mapping and return it.

    Parameters
    ----------
    backend : str, optional
        The engine that the model is meant for; `convert_fx` runs under the numerics of that name.

    Notes
    -----
    As in PyTorch, rules are asked about *fused* layers: a convolution with its ReLU is an ``"nni.ConvReLU2d"`` under the
    convolution's name. A QConfig for ``"nn.Conv2d"`` reaches it only if ``"nn.ReLU"`` has the same (else it is an error),
    and ``set_object_type("nn.Conv2d", None)`` does not reach it at all. Rules by order count a fused layer as what it begins with.
    A pool, a ReLU, a flattening or a concatenation between two quantized layers works on codes even if its QConfig is None.

    Examples
    --------
    >>> mapping = get_default_qconfig_mapping("fbgemm").set_module_name("fc", None)
    >>> mapping.backend, mapping.module_names
    ('fbgemm', {'fc': None})
    """

    def __init__(self, backend=None):
        self.backend = None if backend is None else choose("QConfigMapping", "backend", backend, BACKENDS)
        self.global_qconfig = None
        self.object_types = {}
        self.module_name_regexes = {}
        self.module_names = {}
        self.module_name_object_type_orders = {}

    def set_global(self, qconfig):
        """Set what holds where no other rule does."""
        self.global_qconfig = _checked(qconfig, "set_global")
        return self

    def set_object_type(self, object_type, qconfig):
        """Set a rule for a kind of layer: ``"nn.Conv2d"``, ``"F.relu"``, an operation such as ``"add"``, or PyTorch's own object.

        The class of a module that contains layers (a class of your own, or its dotted name) has a rule for the functions that are called right in it, and for the module
        itself where it is one node; not for the layers in it, as in PyTorch.
        """
        for name in object_type_names(object_type, "set_object_type"):
            self.object_types[name] = _checked(qconfig, "set_object_type")
        return self

    def set_module_name_regex(self, module_name_regex, qconfig):
        """Set a rule for paths whose beginning a regular expression matches; the first that matches wins."""
        try:
            re.compile(module_name_regex)
        except (re.error, TypeError) as error:
            raise ArgumentError(f"set_module_name_regex: {module_name_regex!r} is no regular expression ({error}); correct it") from None
        self.module_name_regexes[module_name_regex] = _checked(qconfig, "set_module_name_regex")
        return self

    def set_module_name(self, module_name, qconfig):
        """Set a rule for a module, such as ``"block1.conv1"``, and all inside of it."""
        self.module_names[module_name] = _checked(qconfig, "set_module_name")
        return self

    def set_module_name_object_type_order(self, module_name, object_type, index, qconfig):
        """Set a rule for the `index`-th layer of a kind directly inside of a module."""
        for name in object_type_names(object_type, "set_module_name_object_type_order"):
            self.module_name_object_type_orders[module_name, name, index] = _checked(qconfig, "set_module_name_object_type_order")
        return self

    def to_dict(self):
        """Return the rules under PyTorch's keys, as lists of tuples in the order in which they were set."""
        return {
            "": self.global_qconfig,
            "object_type": list(self.object_types.items()),
            "module_name_regex": list(self.module_name_regexes.items()),
            "module_name": list(self.module_names.items()),
            "module_name_object_type_order": [(*key, qconfig) for key, qconfig in self.module_name_object_type_orders.items()],
        }

    @classmethod
    def from_dict(cls, rules, backend=None):
        """Return the mapping of a dictionary, such as `to_dict` returns; every key is optional.

        Examples
        --------
        >>> QConfigMapping.from_dict({"": get_default_qconfig("x86"), "module_name": [("fc", None)]}).module_names
        {'fc': None}
        """
        mapping = cls(backend)
        for key, value in rules.items():
            choose("QConfigMapping.from_dict", "key", key, _SETTERS)
            for arguments in [(value,)] if key == "" else value:
                getattr(mapping, f"set_{_SETTERS[key]}")(*arguments)
        return mapping

    def __eq__(self, other):
        return isinstance(other, QConfigMapping) and (self.backend, self.to_dict()) == (other.backend, other.to_dict())

    __hash__ = None

    def __repr__(self):
        rows = [("backend", self.backend), ("global", self.global_qconfig), ("object types", self.object_types)]
        rows += [("module name regexes", self.module_name_regexes), ("module names", self.module_names)]
        rows += [("module name, object type, order", self.module_name_object_type_orders)]
        return "QConfigMapping(\n" + "".join(f"  {name}: {value}\n" for name, value in rows) + ")"


def get_default_qconfig_mapping(backend="x86"):
    """Return PyTorch's default mapping for one of its engines.

    Transposed convolutions have their weights quantized per tensor under fbgemm and x86; layer norms keep theirs; operations with a known range of
    outputs (sigmoid, hardsigmoid, softmax: 1/256 and 0; tanh: 2/256 and 128) have it as fixed parameters; a reshape takes over those of its input.

    Parameters
    ----------
    backend : {"x86", "fbgemm", "onednn", "qnnpack"}

    Returns
    -------
    QConfigMapping

    Source
    ------
    PyTorch 2.13, torch/ao/quantization/qconfig_mapping.py, version 0.

    Examples
    --------
    >>> mapping = get_default_qconfig_mapping("x86")
    >>> mapping.global_qconfig == get_default_qconfig("x86"), mapping.object_types["torch.tanh"].activation
    (True, FixedQParamsObserver.with_args(scale=0.0078125, zero_point=128, dtype='quint8', quant_min=0, quant_max=255))
    """
    return _default_mapping(backend, get_default_qconfig(backend), DEFAULT_WEIGHT)


def get_default_qat_qconfig_mapping(backend="x86", version=1):
    """Return PyTorch's default mapping for quantization-aware training: as `get_default_qconfig_mapping`, with fake-quantizers.

    Parameters
    ----------
    backend : {"x86", "fbgemm", "onednn", "qnnpack"}
    version : {0, 1}
        Of `get_default_qat_qconfig`.

    Returns
    -------
    QConfigMapping

    Examples
    --------
    >>> get_default_qat_qconfig_mapping("onednn").object_types["nn.Sigmoid"].activation().scale
    array([0.00390625], dtype=float32)
    """
    qconfig = get_default_qat_qconfig(backend, version)
    fixed = lambda observer: FixedQParamsFakeQuantize.with_args(observer=observer)  # noqa: E731
    return _default_mapping(backend, qconfig, DEFAULT_FAKE_QUANTS["default_weight_fake_quant"], fixed)


def _default_mapping(backend, qconfig, default_weight, of_fixed=lambda observer: observer):
    transposed = QConfig(qconfig.activation, default_weight) if backend in ("fbgemm", "x86") else qconfig
    norm = QConfig(qconfig.activation, PlaceholderObserver.with_args(quant_min=0, quant_max=255))
    mapping = QConfigMapping(backend).set_global(qconfig).set_object_type(".reshape", REUSE_INPUT)
    for target in (*(f"nn.ConvTranspose{d}d" for d in (1, 2, 3)), *(f"F.conv_transpose{d}d" for d in (1, 2, 3))):
        mapping.set_object_type(target, transposed)
    mapping.set_object_type("F.layer_norm", norm).set_object_type("nn.LayerNorm", norm)
    mapping.set_object_type("nn.PReLU", QConfig(HistogramObserver, MinMaxObserver))
    for target, fixed in FIXED_TARGETS.items():
        observer = FixedQParamsObserver.with_args(scale=fixed.scale, zero_point=fixed.zero_point, dtype="quint8", quant_min=0, quant_max=255)
        mapping.set_object_type(target, QConfig(of_fixed(observer), default_weight))
    return mapping


def object_type_names(object_type, place):
    """Return the targets that a kind of layer stands for.

    Parameters
    ----------
    object_type : str, type or callable
        A target (``"nn.ReLU"``), an operation of `refquant.graph.OPS` (``"relu"``, which stands for all its targets), a method (``"view"``), a PyTorch
        module class or function, a class of your own or its dotted name.
    place : str
        Who asks, for messages.

    Examples
    --------
    >>> import operator
    >>> object_type_names(operator.add, ""), object_type_names("add", "")
    (('operator.add',), ('operator.add', 'torch.add', 'operator.iadd', '.add', '.add_'))
    """
    if isinstance(object_type, str):
        by_op = {op.name: op.targets for op in OPS}
        if object_type in by_op:
            return by_op[object_type]
        if f".{object_type}" in _known_targets():
            return (f".{object_type}",)
        if "." in object_type and object_type.partition(".")[0] not in _PREFIXES:
            return (object_type,)
        return (choose(place, "object_type", object_type, sorted(_known_targets())),)
    name, module = getattr(object_type, "__name__", str(object_type)), getattr(object_type, "__module__", None) or "torch"
    if isinstance(object_type, type) and not module.startswith("torch.") and module != "torch":
        return (class_name(object_type, place),)
    if isinstance(object_type, type):
        prefixes = ("nni" if ".intrinsic" in module else "nn",)
    else:
        # Functions that PyTorch offers under two names have one of them in models.
        prefixes = (_TORCH_MODULES.get(module, "torch"), "F", "torch")
    names = [f"{prefix}.{name}" for prefix in prefixes]
    known = _known_targets()
    return (next((n for n in names if n in known), None) or choose(place, "object_type", names[0], sorted(known)),)


def _checked(qconfig, place):
    if qconfig is not None and not isinstance(qconfig, QConfig):
        raise ArgumentError(f"{place}: qconfig={qconfig!r} must be a QConfig, or None to leave the layer in float32")
    return qconfig


def qconfigs_of(model, mapping, backend_config, left_alone=()):
    """Return ``{node name: QConfig or None}`` of a fused model.

    Parameters
    ----------
    model : Model
    mapping : QConfigMapping
    backend_config : BackendConfig
        Says what fused layers are made of.
    left_alone : collection of str
        Nodes that have none and do not count.
    """
    types, known = _types_with_fused(model, mapping, backend_config), _known_targets()
    counts, out = {}, {}
    for node in model.nodes:
        if node.op == "input" or node.name in left_alone:
            out[node.name] = None
            continue
        qconfig = types.get(node.target, mapping.global_qconfig)
        if not node.is_module and node.path in model.classes:
            kind = model.classes[node.path]
            qconfig = next((q for name, q in types.items() if name == kind or name not in known and is_class(kind, name)), qconfig)
        qconfig = next((q for regex, q in mapping.module_name_regexes.items() if re.match(regex, node.path)), qconfig)
        qconfig = _by_module(mapping.module_names, node.path, qconfig)
        if not node.target.startswith("."):  # PyTorch counts modules and functions, not methods
            parent = node.path.rpartition(".")[0] if node.is_module else node.path
            root = (backend_config.fused_parts(node.target) or (node.target,))[0]
            index = counts.get((parent, root), 0)
            counts[parent, root] = index + 1
            qconfig = mapping.module_name_object_type_orders.get((parent, root, index), qconfig)
        out[node.name] = qconfig
    return out


def _by_module(names, path, otherwise):
    """Return the rule of a module or of the nearest one around it."""
    while path:
        if path in names:
            return names[path]
        path = path.rpartition(".")[0]
    return otherwise


def _types_with_fused(model, mapping, backend_config):
    """Return the rules by type, extended to fused layers, whose parts must agree."""
    types = dict(mapping.object_types)
    for node in model.nodes:
        parts = backend_config.fused_parts(node.target) if types else ()
        if not parts:
            continue
        first, *others = parts
        for other in others:
            if types.get(other) != types.get(first):
                raise ArgumentError(
                    f"QConfigMapping: {node.name!r} is {first} fused with {other}, whose object types have different qconfigs;"
                    f" give both the same, or name the module: set_module_name({node.path!r}, ...)"
                )
        if types.get(first) is not None:
            types[node.target] = types[first]
    return types
