"""`FuseCustomConfig`, `PrepareCustomConfig` and `ConvertCustomConfig`: what `fuse_fx`, `prepare_fx` and `convert_fx` are told beside the mapping."""

from refquant.errors import ArgumentError, choose
from refquant.graph.module_classes import class_name, paths_of_class
from refquant.workflow.custom_module import ClassMapping, quant_type_name
from refquant.workflow.qconfig_mapping import QConfigMapping
from refquant.workflow.standalone import StandaloneModule

__all__ = ["FuseCustomConfig", "PrepareCustomConfig", "ConvertCustomConfig"]


class _Preserving:
    """Attributes of the model object that a step hands on."""

    def __init__(self):
        self.preserved_attributes = []

    def set_preserved_attributes(self, attributes):
        """Set the names of attributes that the new model keeps."""
        self.preserved_attributes = _names(attributes, "set_preserved_attributes")
        return self

    def to_dict(self):
        """Return the settings under PyTorch's keys."""
        return {"preserved_attributes": list(self.preserved_attributes)} if self.preserved_attributes else {}

    def __repr__(self):
        return f"{type(self).__name__}({', '.join(f'{k}={v}' for k, v in vars(self).items() if v)})"


class FuseCustomConfig(_Preserving):
    """What `fuse_fx` does differently.

    Attributes
    ----------
    preserved_attributes : list of str
        Attributes of the model object that the fused one is to have too.

    Examples
    --------
    >>> FuseCustomConfig.from_dict({"preserved_attributes": ["labels"]})
    FuseCustomConfig(preserved_attributes=['labels'])
    """

    @classmethod
    def from_dict(cls, settings):
        """Return the settings of a dictionary, such as `to_dict` returns."""
        for key in settings:
            choose("FuseCustomConfig.from_dict", "key", key, ["preserved_attributes"])
        return cls().set_preserved_attributes(settings.get("preserved_attributes", []))


class PrepareCustomConfig(_Preserving):
    """What `prepare_fx` does differently.

    Classes are class objects or names, which may leave out the first parts (``"Block"`` for ``"models.resnet.Block"``); which module is of which class, the model says
    (``classes`` of `refquant.graph.Model`).

    Attributes
    ----------
    input_quantized_indexes, output_quantized_indexes : list of int
        Inputs that the converted model takes as QTensors, and outputs that it returns as such.
    non_traceable_module_names, non_traceable_module_classes : list of str
        Paths and classes of modules whose insides stay float and unobserved, as PyTorch's tracer would not look into them. Layers are one node anyway, and stay what they are.
    standalone_module_names, standalone_module_classes : dict of str to StandaloneModule
        By the paths and the classes of modules that are prepared and converted for themselves. A path counts before a class.
    float_to_observed_mapping : ClassMapping
        By quant type and class, the classes whose objects take the place of custom modules.
    preserved_attributes : list of str
        Attributes of the model object that the prepared one is to have too.

    Notes
    -----
    A *custom module* is prepared and converted by classes of yours, after PyTorch's protocol. ``Observed.from_float(part)`` gets what the module computes, a Model with a
    QConfig as its attribute ``qconfig``; ``Quantized.from_observed(observed)`` gets the observed object, under a static QConfig with the observer of its output as
    ``activation_post_process``. Both return an object that is called as ``y = object(*inputs, numerics=, real=, threads=)``, with the options of `Model.run`: on
    float32 arrays, a quantized one under a static QConfig on a QTensor, and returning one.

    Source
    ------
    PyTorch 2.13, torch/ao/quantization/fx/custom_config.py.

    Examples
    --------
    >>> PrepareCustomConfig().set_input_quantized_indexes([0]).set_output_quantized_indexes([0])
    PrepareCustomConfig(input_quantized_indexes=[0], output_quantized_indexes=[0])

    A custom module, whose quantized form computes in float32 between codes:

    >>> import numpy as np, refquant as rq
    >>> from refquant.graph import Builder
    >>> from refquant.workflow import convert_fx, get_default_qconfig_mapping, prepare_fx
    >>> b = Builder(seed=0)
    >>> x = b.input(shape=(None, 4)).linear(4, name="first")
    >>> with b.scope("head", "models.Head"):
    ...     model = b.build(x.linear(2, name="fc").tanh(name="act"))
    >>> class Observed:
    ...     from_float = classmethod(lambda kind, part: kind(part))
    ...     def __init__(self, part):
    ...         self.part = part
    ...     def __call__(self, x, **options):
    ...         return self.part(x, **options)[0]
    >>> class Quantized(Observed):
    ...     @classmethod
    ...     def from_observed(kind, observed):
    ...         made = kind(observed.part)
    ...         made.out = observed.activation_post_process.calculate_qparams()
    ...         return made
    ...     def __call__(self, x, numerics, **options):
    ...         y = super().__call__(rq.dequantize(x, numerics=numerics), numerics=numerics, **options)
    ...         return rq.quantize(y, self.out, numerics=numerics)
    >>> config = PrepareCustomConfig().set_float_to_observed_mapping("Head", Observed)
    >>> data = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
    >>> prepared = prepare_fx(model, get_default_qconfig_mapping("x86"), (data,), config)
    >>> y, = prepared(data)
    >>> int8 = convert_fx(prepared, convert_custom_config=ConvertCustomConfig().set_observed_to_quantized_mapping(Observed, Quantized))
    >>> [n.name for n in int8.nodes]
    ['x', 'x_quantize', 'first', 'head', 'head_dequantize']
    """

    def __init__(self):
        super().__init__()
        self.input_quantized_indexes, self.output_quantized_indexes = [], []
        self.non_traceable_module_names, self.non_traceable_module_classes = [], []
        self.standalone_module_names, self.standalone_module_classes = {}, {}
        self.float_to_observed_mapping = ClassMapping()

    def set_input_quantized_indexes(self, indexes):
        """Set which inputs will be given as QTensors."""
        self.input_quantized_indexes = _indexes(indexes, "set_input_quantized_indexes")
        return self

    def set_output_quantized_indexes(self, indexes):
        """Set which outputs are returned as QTensors, where they are quantized at all."""
        self.output_quantized_indexes = _indexes(indexes, "set_output_quantized_indexes")
        return self

    def set_non_traceable_module_names(self, module_names):
        """Set the paths of modules that are left alone."""
        self.non_traceable_module_names = _names(module_names, "set_non_traceable_module_names")
        return self

    def set_non_traceable_module_classes(self, module_classes):
        """Set the classes of modules that are left alone."""
        place = "set_non_traceable_module_classes"
        if not isinstance(module_classes, (list, tuple)):
            raise ArgumentError(f"{place}: {module_classes!r} must be a list of classes or of their names; write [Block]")
        self.non_traceable_module_classes = [class_name(kind, place) if not isinstance(kind, type) else kind for kind in module_classes]
        return self

    def set_standalone_module_name(self, module_name, qconfig_mapping, example_inputs, prepare_custom_config, backend_config):
        """Set how a module is prepared for itself.

        Its surroundings see one node: no pattern reaches across its border, and its output is observed inside alone. Inputs that its own
        `prepare_custom_config` wants as codes are observed and quantized outside; an output that it returns as codes (``set_output_quantized_indexes([0])``) lets what
        follows run on codes, while without that a layer behind it stays on float32, as PyTorch takes it for quantized already.

        Parameters
        ----------
        module_name : str
            The path of a module that is called once and returns one value.
        qconfig_mapping : QConfigMapping or None
            With paths that begin in the module. None: the QConfig that its surroundings give the module, for all in it.
        example_inputs : tuple of ndarray
            In the order in which the nodes of the module read its inputs.
        prepare_custom_config : PrepareCustomConfig or None
        backend_config : BackendConfig or None
            None: that of the surroundings.

        Source
        ------
        PyTorch 2.13, torch/ao/quantization/fx/prepare.py, ``_run_prepare_fx_on_standalone_modules``; fx/convert.py, ``convert_standalone_module``.
        """
        if not isinstance(module_name, str) or not module_name:
            raise ArgumentError(f"set_standalone_module_name: module_name={module_name!r} must be a path of a module, such as 'block'")
        self.standalone_module_names[module_name] = _standalone(qconfig_mapping, example_inputs, prepare_custom_config, backend_config)
        return self

    def set_standalone_module_class(self, module_class, qconfig_mapping, example_inputs, prepare_custom_config, backend_config):
        """Set how the modules of a class are prepared, each for itself.

        Parameters
        ----------
        module_class : type or str
        qconfig_mapping, example_inputs, prepare_custom_config, backend_config
            Of `set_standalone_module_name`, which has the last word on a module that both name.
        """
        class_name(module_class, "set_standalone_module_class")
        self.standalone_module_classes[module_class] = _standalone(qconfig_mapping, example_inputs, prepare_custom_config, backend_config)
        return self

    def set_float_to_observed_mapping(self, float_class, observed_class, quant_type="static"):
        """Set whose objects take the place of the modules of a class, see the Notes of the class.

        Parameters
        ----------
        float_class : type or str
            Of modules, or of layers (``"nn.Linear"``) that are fused with nothing.
        observed_class : type
            With a class method ``from_float``.
        quant_type : {"static"}
            Of the QConfigs that the entry is for. Under the others a module has no observed form in PyTorch: call its class non-traceable, and let
            `ConvertCustomConfig.set_observed_to_quantized_mapping` swap the float module.
        """
        if quant_type_name(quant_type, "set_float_to_observed_mapping") != "static":
            raise ArgumentError(f"set_float_to_observed_mapping: quant_type={quant_type!r}, but custom modules are observed for 'static' alone, as in PyTorch; set the class non-traceable, and swap it by set_observed_to_quantized_mapping")
        self.float_to_observed_mapping.put(float_class, observed_class, quant_type, "from_float", "set_float_to_observed_mapping")
        return self

    def to_dict(self):
        """Return the settings under PyTorch's keys."""
        found = {key: list(getattr(self, name)) for key, name in _KEYS.items() if getattr(self, name)}
        for key, rows in (("standalone_module_name", self.standalone_module_names), ("standalone_module_class", self.standalone_module_classes)):
            if rows:
                found[key] = [(name, m.qconfig_mapping, m.example_inputs, m.prepare_custom_config.to_dict(), m.backend_config) for name, m in rows.items()]
        return {**found, **self.float_to_observed_mapping.to_dict("float_to_observed_custom_module_class")}

    @classmethod
    def from_dict(cls, settings):
        """Return the settings of a dictionary, such as `to_dict` returns.

        Examples
        --------
        >>> PrepareCustomConfig.from_dict({"non_traceable_module_class": ["Block"], "input_quantized_idxs": [0]})
        PrepareCustomConfig(input_quantized_indexes=[0], non_traceable_module_classes=['Block'])
        """
        config, place = cls(), "PrepareCustomConfig.from_dict"
        for key, value in settings.items():
            choose(place, "key", key, [*_KEYS, "standalone_module_name", "standalone_module_class", "float_to_observed_custom_module_class"])
            if key in _KEYS:
                getattr(config, f"set_{_KEYS[key]}")(value)
            elif key.startswith("standalone"):
                for name, mapping, example_inputs, inner, table in value:
                    mapping = QConfigMapping.from_dict(mapping) if isinstance(mapping, dict) else mapping
                    getattr(config, f"set_{key}")(name, mapping, example_inputs, cls.from_dict(inner) if isinstance(inner, dict) else inner, table)
            else:
                for kind, rows in value.items():
                    for float_class, observed_class in rows.items():
                        config.set_float_to_observed_mapping(float_class, observed_class, kind)
        return config

    def plain(self):
        """Return the settings that a file holds and the conversion needs, as `to_dict` does: without standalone and custom modules, which are parts of the prepared model."""
        found = {key: list(getattr(self, name)) for key, name in _KEYS.items() if getattr(self, name)}
        if self.non_traceable_module_classes:
            found["non_traceable_module_class"] = [class_name(kind, "save") for kind in self.non_traceable_module_classes]
        return found

    def left_alone(self, model):
        """Return the names of the nodes of modules that are not looked into, where these are not one node."""
        paths = {*self.non_traceable_module_names, *(p for kind in self.non_traceable_module_classes for p in paths_of_class(model, kind))}
        inside = [n for n in model.nodes if any(n.path.startswith(f"{path}.") or n.path == path and not n.is_module for path in paths)]
        return frozenset(n.name for n in inside if n.op not in ("input", "call"))


def _standalone(qconfig_mapping, example_inputs, prepare_custom_config, backend_config):
    custom = PrepareCustomConfig() if prepare_custom_config is None else prepare_custom_config
    return StandaloneModule(qconfig_mapping, example_inputs, custom, backend_config)


_KEYS = {
    "non_traceable_module_name": "non_traceable_module_names",
    "non_traceable_module_class": "non_traceable_module_classes",
    "input_quantized_idxs": "input_quantized_indexes",
    "output_quantized_idxs": "output_quantized_indexes",
    "preserved_attributes": "preserved_attributes",
}


class ConvertCustomConfig(_Preserving):
    """What `convert_fx` does differently.

    Attributes
    ----------
    preserved_attributes : list of str
        Attributes of the prepared model object that the converted one is to have too.
    observed_to_quantized_mapping : ClassMapping
        By quant type and class, the classes whose objects take the place of observed custom modules.

    Examples
    --------
    >>> ConvertCustomConfig().set_preserved_attributes(["labels"])
    ConvertCustomConfig(preserved_attributes=['labels'])
    """

    def __init__(self):
        super().__init__()
        self.observed_to_quantized_mapping = ClassMapping()

    def set_observed_to_quantized_mapping(self, observed_class, quantized_class, quant_type="static"):
        """Set whose objects take the place of observed ones, see the Notes of `PrepareCustomConfig`.

        Parameters
        ----------
        observed_class : type or str
            Of an observed object; or, for "dynamic" and "weight_only", of a module that `PrepareCustomConfig` calls non-traceable and that is swapped from float,
            as in PyTorch.
        quantized_class : type
            With a class method ``from_observed``.
        quant_type : {"static", "dynamic", "weight_only"}
            Of the QConfigs that the entry is for; PyTorch's ``QuantType`` does as well.
        """
        self.observed_to_quantized_mapping.put(observed_class, quantized_class, quant_type, "from_observed", "set_observed_to_quantized_mapping")
        return self

    def to_dict(self):
        """Return the settings under PyTorch's keys."""
        return {**super().to_dict(), **self.observed_to_quantized_mapping.to_dict("observed_to_quantized_custom_module_class")}

    @classmethod
    def from_dict(cls, settings):
        """Return the settings of a dictionary, such as `to_dict` returns."""
        for key in settings:
            choose("ConvertCustomConfig.from_dict", "key", key, ["preserved_attributes", "observed_to_quantized_custom_module_class"])
        config = cls().set_preserved_attributes(settings.get("preserved_attributes", []))
        for kind, rows in settings.get("observed_to_quantized_custom_module_class", {}).items():
            for observed_class, quantized_class in rows.items():
                config.set_observed_to_quantized_mapping(observed_class, quantized_class, kind)
        return config

def preserve(source, target, names, place):
    """Copy attributes from one model object to another."""
    for name in names:
        if not hasattr(source, name):
            raise ArgumentError(f"{place}: the model has no attribute {name!r} to preserve; set it before, or leave it out of preserved_attributes")
        setattr(target, name, getattr(source, name))
    return target


def checked_indexes(indexes, count, place):
    """Return indexes, all of them below a count."""
    for index in indexes:
        if index >= count:
            raise ArgumentError(f"{place}: index {index} but there are {count}; choose 0 … {count - 1}")
    return indexes


def _indexes(indexes, place):
    indexes = list(indexes)
    if any(isinstance(i, bool) or not isinstance(i, int) or i < 0 for i in indexes):
        raise ArgumentError(f"{place}: {indexes!r} must be integers from 0 on; count the inputs or outputs from 0")
    return indexes


def _names(names, place):
    if isinstance(names, str) or any(not isinstance(n, str) for n in names):
        raise ArgumentError(f"{place}: {names!r} must be a list of strings; write ['name']")
    return list(names)
