"""`PrepareCustomConfig` and `ConvertCustomConfig`: what `prepare_fx` and `convert_fx` are told beside the mapping."""

from refquant.errors import ArgumentError, UnsupportedError, choose
from refquant.workflow.standalone import StandaloneModule

__all__ = ["PrepareCustomConfig", "ConvertCustomConfig"]

_NO_CLASSES = "a Model has nodes and paths but no module classes"


class PrepareCustomConfig:
    """What `prepare_fx` does differently.

    Attributes
    ----------
    input_quantized_indexes, output_quantized_indexes : list of int
        Inputs that the converted model takes as QTensors, and outputs that it returns as such.
    non_traceable_module_names : list of str
        Paths of modules whose insides stay float and unobserved, as PyTorch's tracer would not look into them.
    standalone_module_names : dict of str to StandaloneModule
        By the paths of modules that are prepared and converted for themselves.
    preserved_attributes : list of str
        Attributes of the model object that the prepared one is to have too.

    Source
    ------
    PyTorch 2.13, torch/ao/quantization/fx/custom_config.py. What goes by PyTorch's classes is refused, for a graph has none.

    Examples
    --------
    >>> PrepareCustomConfig().set_input_quantized_indexes([0]).set_output_quantized_indexes([0])
    PrepareCustomConfig(input_quantized_indexes=[0], output_quantized_indexes=[0])
    """

    def __init__(self):
        self.input_quantized_indexes, self.output_quantized_indexes = [], []
        self.non_traceable_module_names, self.preserved_attributes = [], []
        self.standalone_module_names = {}

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

    def set_preserved_attributes(self, attributes):
        """Set the names of attributes that the prepared model keeps."""
        self.preserved_attributes = _names(attributes, "set_preserved_attributes")
        return self

    def set_non_traceable_module_classes(self, module_classes):
        """Not supported: graphs have no module classes."""
        raise UnsupportedError(f"set_non_traceable_module_classes: {_NO_CLASSES}; use set_non_traceable_module_names")

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
        custom = PrepareCustomConfig() if prepare_custom_config is None else prepare_custom_config
        if getattr(custom, "standalone_module_names", None):
            raise UnsupportedError(f"set_standalone_module_name: {module_name!r} has standalone modules itself; they cannot lie in one another, name the outer one alone")
        self.standalone_module_names[module_name] = StandaloneModule(qconfig_mapping, example_inputs, custom, backend_config)
        return self

    def set_standalone_module_class(self, *arguments):
        """Not supported: graphs have no module classes."""
        raise UnsupportedError(f"set_standalone_module_class: {_NO_CLASSES}; use set_standalone_module_name for each module")

    def set_float_to_observed_mapping(self, *arguments):
        """Not supported: graphs have no module classes."""
        raise UnsupportedError(f"set_float_to_observed_mapping: {_NO_CLASSES}; describe how the layer is observed by a BackendPatternConfig of a BackendConfig")

    def to_dict(self):
        """Return the settings under PyTorch's keys."""
        if self.standalone_module_names:
            raise UnsupportedError("PrepareCustomConfig.to_dict: standalone modules hold mappings and arrays, which no plain dictionary does; keep the object")
        return {key: list(getattr(self, name)) for key, name in _KEYS.items() if getattr(self, name)}

    @classmethod
    def from_dict(cls, settings):
        """Return the settings of a dictionary, such as `to_dict` returns."""
        config = cls()
        for key, value in settings.items():
            getattr(config, f"set_{_KEYS[choose('PrepareCustomConfig.from_dict', 'key', key, _KEYS)]}")(value)
        return config

    def left_alone(self, model):
        """Return the names of the nodes of modules that are not looked into."""
        inside = [n for n in model.nodes if any(f"{n.path}.".startswith(f"{name}.") for name in self.non_traceable_module_names)]
        return frozenset(n.name for n in inside if n.op != "input")

    def __repr__(self):
        return f"PrepareCustomConfig({', '.join(f'{k}={v}' for k, v in vars(self).items() if v)})"


_KEYS = {
    "non_traceable_module_name": "non_traceable_module_names",
    "input_quantized_idxs": "input_quantized_indexes",
    "output_quantized_idxs": "output_quantized_indexes",
    "preserved_attributes": "preserved_attributes",
}


class ConvertCustomConfig:
    """What `convert_fx` does differently.

    Attributes
    ----------
    preserved_attributes : list of str
        Attributes of the prepared model object that the converted one is to have too.

    Examples
    --------
    >>> ConvertCustomConfig().set_preserved_attributes(["labels"])
    ConvertCustomConfig(preserved_attributes=['labels'])
    """

    def __init__(self):
        self.preserved_attributes = []

    def set_preserved_attributes(self, attributes):
        """Set the names of attributes that the converted model keeps."""
        self.preserved_attributes = _names(attributes, "set_preserved_attributes")
        return self

    def set_observed_to_quantized_mapping(self, *arguments):
        """Not supported: graphs have no module classes."""
        raise UnsupportedError(f"set_observed_to_quantized_mapping: {_NO_CLASSES}; what a layer becomes is said by a BackendPatternConfig of a BackendConfig")

    def to_dict(self):
        """Return the settings under PyTorch's keys."""
        return {"preserved_attributes": list(self.preserved_attributes)} if self.preserved_attributes else {}

    @classmethod
    def from_dict(cls, settings):
        """Return the settings of a dictionary, such as `to_dict` returns."""
        for key in settings:
            choose("ConvertCustomConfig.from_dict", "key", key, ["preserved_attributes"])
        return cls().set_preserved_attributes(settings.get("preserved_attributes", []))

    def __repr__(self):
        return f"ConvertCustomConfig({f'preserved_attributes={self.preserved_attributes}' if self.preserved_attributes else ''})"


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
