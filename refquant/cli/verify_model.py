"""``refquant verify --model``: a network quantized by refquant and by PyTorch itself, compared layer by layer."""

from refquant import backends, zoo
from refquant.cli.console import Progress, paint, table
from refquant.cli.verify_models import numerics_here
from refquant.errors import ArgumentError, BackendMissing, choose

__all__ = ["compare_model"]

_BATCHES = 4
_IMAGES = 32


def compare_model(name, engines):
    """Compare scale, zero point and codes of every quantized layer; return the exit status.

    Parameters
    ----------
    name : str
        A network of `refquant.zoo`.
    engines : list of str, optional
        Of PyTorch; ``x86`` unless given.
    """
    choose("verify", "model", name, zoo.names())
    status = 0
    for engine in engines or ["x86"]:
        found = backends.find(engine)
        if "torch" not in found.packages:
            raise ArgumentError(f"verify: --model compares with PyTorch's workflow, but {engine} is no engine of PyTorch; choose fbgemm, onednn, x86 or qnnpack")
        if not backends.installed(engine):
            raise BackendMissing(f"engine {engine}: needs PyTorch, which is not installed; {found.install}")
        status = max(status, _compare(name, engine))
    return status


def _images(name):
    from refquant.data import load_split

    x, _ = load_split(name, "calibration")
    return [x[i * _IMAGES : (i + 1) * _IMAGES] for i in range(_BATCHES)]


def _compare(name, engine):
    from refquant.backends import torch_fx
    from refquant.workflow import convert_fx, get_default_qconfig_mapping, layer_bits, prepare_fx

    progress, batches = Progress(), _images(name)
    progress.show(f"{name} on {engine}: PyTorch quantizes")
    order = torch_fx.real_order()
    theirs = torch_fx.layer_bits(name, engine, batches, order=order)
    progress.show(f"{name} on {engine}: refquant quantizes")
    prepared = prepare_fx(zoo.load(name), get_default_qconfig_mapping(engine), example_inputs=(batches[0],))
    for batch in batches:
        prepared(batch, real=order)
    layers = torch_fx.compare_layers(layer_bits(convert_fx(prepared, numerics_here(engine)), batches[0], real=order), theirs)
    progress.clear()
    return _report(name, engine, layers)


def _report(name, engine, layers):
    rows = [("layer", "scale", "zero point", "outputs", "differing")]
    for layer in layers:
        scale, zero = (_both(pair, form) for pair, form in ((layer.scales, "{:.9g}"), (layer.zero_points, "{}")))
        rows.append((layer.name, scale, zero, f"{layer.codes.outputs:,}", f"{layer.codes.differing:,}"))
    print(f"{name}, {engine}: refquant beside PyTorch's prepare_fx and convert_fx")
    print(*table(rows, right={3, 4}), sep="\n")
    wrong = [layer for layer in layers if not layer.exact]
    for layer in wrong[:1]:
        print(f"first layer that differs: {layer.name}\n  " + str(layer.codes).replace("\n", "\n  "))
    total = sum(layer.codes.outputs for layer in layers)
    text = f"{len(layers)} layers, {total:,} outputs, {len(wrong)} layers differ\n"
    print(paint(text, "red" if wrong else "green"))
    return 1 if wrong else 0


def _both(pair, form):
    ours, theirs = (form.format(value) for value in pair)
    return ours if pair[0] == pair[1] else f"{ours} (PyTorch {theirs})"
