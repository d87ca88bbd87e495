"""Which class the modules of a model are of: ``{path: class name}``, and how a class is asked for."""

from types import MappingProxyType

from refquant.errors import ArgumentError, choose

__all__ = ["class_name", "checked_classes", "is_class", "paths_of_class"]


def class_name(module_class, place):
    """Return the name of a class: of a class object its full dotted name, a name as it is.

    Parameters
    ----------
    module_class : type or str
    place : str
        Who asks, for messages.

    Examples
    --------
    >>> from collections import OrderedDict
    >>> class_name(OrderedDict, ""), class_name("Block", "")
    ('collections.OrderedDict', 'Block')
    """
    if isinstance(module_class, type):
        home = "torch.nn" if module_class.__module__.startswith("torch.nn.modules.") else module_class.__module__  # as PyTorch's users write it
        return f"{home}.{module_class.__qualname__}"
    if not isinstance(module_class, str) or not module_class:
        raise ArgumentError(f"{place}: {module_class!r} must be a class or its name, such as Block or 'mypackage.Block'")
    return module_class


def checked_classes(classes, place):
    """Return ``{path: class name}``, read-only."""
    classes = {} if classes is None else dict(classes)
    for path in classes:
        if not isinstance(path, str) or not path:
            raise ArgumentError(f"{place}: classes has the path {path!r}, but must have dotted paths of modules, such as 'encoder.block'")
    return MappingProxyType({path: class_name(kind, f"{place}, class of {path!r}") for path, kind in classes.items()})


def is_class(full, module_class):
    """Whether a full name is that of a class: of a class object its very name; a name may leave out the first parts.

    Examples
    --------
    >>> is_class("models.resnet.Block", "Block"), is_class("models.resnet.Block", "resnet.Block"), is_class("models.MyBlock", "Block")
    (True, True, False)
    """
    name = class_name(module_class, "is_class")
    return full == name or not isinstance(module_class, type) and full.endswith(f".{name}")


def paths_of_class(model, module_class, place=None):
    """Return the paths of a class's modules, layers included, in the order in which the model runs them.

    Parameters
    ----------
    model : Model
    module_class : type or str
        A class stands for itself alone, as in PyTorch, where subclasses do not count. A name may leave out the first parts.
    place : str, optional
        Who asks, for messages; without, a name that no module has is no error.

    Returns
    -------
    list of str
        Empty for a class that the model has no module of.

    Raises
    ------
    ArgumentError
        A name that no module has, or that is short for several classes.

    Examples
    --------
    >>> from refquant.graph import Builder
    >>> b = Builder(seed=0)
    >>> x = b.input(shape=(None, 4))
    >>> with b.scope("head", "models.Head"):
    ...     y = x.linear(2, name="fc").relu(name="act")
    >>> model = b.build(y)
    >>> paths_of_class(model, "Head", ""), paths_of_class(model, "nn.Linear", "")
    (['head'], ['head.fc'])
    """
    known = _known(model)
    found = [path for path, kind in known.items() if is_class(kind, module_class)]
    kinds = sorted({known[path] for path in found})
    if place and not found and not model.classes:
        raise ArgumentError(f"{place}: model {model.name!r} knows no classes of its modules; give them by Model(..., classes=) or Builder.scope(name, module_class), or go by path")
    if place and not found and isinstance(module_class, str):
        choose(place, "class", module_class, sorted({name for kind in known.values() for name in (kind, kind.rpartition(".")[2])}))
    if place and len(kinds) > 1:
        raise ArgumentError(f"{place}: {module_class!r} is short for {' and '.join(kinds)}; give the full name of one")
    return found


def _known(model):
    """Return the classes of modules that nodes lie in, and of layers."""
    known = {}
    for node in model.nodes:
        parts = node.path.split(".")
        for path in (".".join(parts[: k + 1]) for k in range(len(parts))):
            if path in model.classes:
                known.setdefault(path, model.classes[path])
        if node.is_module:
            known.setdefault(node.path, layer_class(node))
    return known


def layer_class(node):
    """Return the full name of a layer's class in PyTorch, as far as its target tells it.

    Examples
    --------
    >>> from refquant.graph import Node
    >>> layer_class(Node("fc", "relu", ["x"], target="nn.ReLU"))
    'torch.nn.ReLU'
    """
    return f"torch.{node.target}"
