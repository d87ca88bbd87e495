"""`take_apart`: the modules that a `PrepareCustomConfig` names, by path or by class, each become one node, as PyTorch's tracer sees them."""

import warnings
from typing import NamedTuple

from refquant.errors import RefquantError
from refquant.graph.module_classes import is_class, layer_class, paths_of_class
from refquant.workflow.standalone import cut

__all__ = ["Part", "take_apart", "take_layers"]


class Part(NamedTuple):
    """A module that stands as one node.

    Attributes
    ----------
    path : str
    kind : str
        "standalone module", "custom module" or "non-traceable module".
    settings : object
        A StandaloneModule; of a custom module the full name of its class; else None.
    model : Model
        What is in it, in float32.
    """

    path: str
    kind: str
    settings: object
    model: object


def take_apart(model, custom, place, nested=False):
    """Take the modules of a configuration out of a float model, all but layers.

    Of modules that lie in one another the outermost counts. A standalone module may be a custom one too, and is standalone then; either may be non-traceable.

    Parameters
    ----------
    model : Model
    custom : PrepareCustomConfig
    place : str
        For messages.
    nested : bool
        Whether the model is a standalone module itself. PyTorch's tracer then looks into all modules but non-traceable ones: standalone and custom modules count
        among those alone.

    Returns
    -------
    (Model, dict of str to Part)
        The model with one node for each part, and the parts by these nodes' names. A non-traceable module that cannot be one node (it has several outputs, or is called
        more than once) stays.

    Warns
    -----
    UserWarning
        Standalone or custom modules in a standalone module that are not also non-traceable.

    Source
    ------
    PyTorch 2.13, torch/ao/quantization/fx/tracer.py; fx/utils.py, ``get_skipped_module_name_and_classes``; fx/match_utils.py, ``_find_matches``; fx/prepare.py,
    ``_get_standalone_module_configs``: a name counts before a class.
    """
    parts = {}
    for path, (kind, settings) in _outermost(_wanted(model, custom, place, nested)).items():
        try:
            model, name, part = cut(model, path, f"{place}: {kind}")
        except RefquantError:
            if kind != "non-traceable module":
                raise
            continue
        parts[name] = Part(path, kind, settings, part)
    return model, parts


def _wanted(model, custom, place, nested):
    """Return ``{path: (kind, settings)}``."""
    classes = lambda names, setter: {p: name for name in names for p in paths_of_class(model, name, f"{place}: {setter}")}  # noqa: E731
    layers = {n.path for n in model.nodes if n.is_module}
    opaque = [*custom.non_traceable_module_names, *classes(custom.non_traceable_module_classes, "set_non_traceable_module_classes")]
    wanted = {path: ("non-traceable module", None) for path in opaque if path not in layers}
    special = {path: ("custom module", model.classes[path]) for path in classes(custom.float_to_observed_mapping.keys_of_all, "set_float_to_observed_mapping") if path not in layers}
    by_class = classes(custom.standalone_module_classes, "set_standalone_module_class")
    special.update((path, ("standalone module", custom.standalone_module_classes[name])) for path, name in by_class.items())
    special.update((path, ("standalone module", settings)) for path, settings in custom.standalone_module_names.items())
    for path, row in special.items():
        if not nested or path in wanted:
            wanted[path] = row
        else:
            warnings.warn(f"{place}: {row[0]} {path!r} lies in a standalone module, where PyTorch's tracer looks into it; name it in set_non_traceable_module_names too", stacklevel=5)
    return wanted


def _outermost(wanted):
    return {path: row for path, row in wanted.items() if not any(path.startswith(f"{other}.") for other in wanted)}


def take_layers(model, custom, place):
    """Take custom modules that are layers out of a fused model; what a layer was fused with is no such module any more.

    Returns
    -------
    (Model, dict of str to Part)
    """
    parts = {}
    for name in custom.float_to_observed_mapping.keys_of_all:
        for path in dict.fromkeys(n.path for n in model.nodes if n.is_module and is_class(layer_class(n), name)):
            full = layer_class(next(n for n in model.nodes if n.path == path and n.is_module))
            model, node, part = cut(model, path, f"{place}: custom module", layers=True)
            parts[node] = Part(path, "custom module", full, part)
    return model, parts
