"""``refquant verify --models``: many networks quantized by refquant and by PyTorch itself, one line each."""

import re
import time
import warnings
from typing import NamedTuple

import numpy as np

from refquant import backends, zoo
from refquant.cli.console import Progress, paint
from refquant.errors import BackendMissing, RefquantError, UnsupportedError, choose

__all__ = ["ENGINES", "NETWORKS", "Parity", "compare_models", "compare_network", "numerics_here"]

ENGINES = ("fbgemm", "onednn", "x86", "qnnpack")
_ROW = "{:<22} {:<8} {:>9} {:>6} {:>7} {:>11} {:>14} {:>13}"
_ZOO = (("resnet18", 32), ("squeezenet1_1", 48), ("mobilenet_v2", 32), ("mobilenet_v3_small", 32), ("shufflenet_v2_x0_5", 64), ("mnasnet0_5", 64), ("densenet121", 32), ("bert_base_layer", 8))
NETWORKS = (*zoo.names(), *(f"{name}@{size}" for name, size in _ZOO), *(f"plain-{seed}" for seed in range(16)), *(f"wide-{seed}" for seed in range(32)))
"""Bundled networks, published ones at small sizes, and random ones: ``plain`` of image classifiers' layers, ``wide`` of most of what PyTorch quantizes."""
_RANDOM = re.compile(r"(?:plain|wide|mixed)-\d{1,9}")


class Parity(NamedTuple):
    """One network under one engine, on both sides.

    Attributes
    ----------
    network, engine : str
    observers : int
        Observed values; -1 where the two sides observe other values.
    fused : int
        Fused layers; -1 where they are fused otherwise.
    layers : int
        Quantized values whose scale, zero point and codes were compared.
    outputs : int
        Codes compared.
    differing : int
        Codes that differ.
    parameters : int
        Values whose scale or zero point differs.
    first : str
        What differs first; empty where nothing does.
    """

    network: str
    engine: str
    observers: int
    fused: int
    layers: int
    outputs: int
    differing: int
    parameters: int
    first: str

    @property
    def exact(self):
        """Whether everything agrees."""
        return not self.first

    @property
    def refused(self):
        """Whether both sides refuse the network."""
        return self.exact and not self.layers


def numerics_here(engine):
    """Return the profile of one of PyTorch's engines on this processor."""
    from refquant.backends.machine import profile_here

    return profile_here(engine)


def _network(name, engine):
    """Return a network as a torch module, and its calibration batches."""
    from refquant.backends.torch_module import to_torch
    from refquant.backends.torch_mixed_networks import MixedNetwork
    from refquant.backends.torch_networks import PLAIN, WIDE, RandomNetwork

    kind, _, seed = name.partition("-")
    rng = np.random.default_rng(1000 + int(seed) if seed.isdigit() else 7)
    if name in zoo.names():
        from refquant.data import architectures_torch, load_split

        x, _ = load_split(name, "calibration")
        return architectures_torch.load(name), [x[:32], x[32:64]]
    if kind == "mixed":
        module = MixedNetwork(int(seed), without=_left_out(engine))
        return module, [rng.standard_normal((5, module.in_channels, 8, 8)).astype(np.float32) * (1 + i) for i in range(2)]
    if kind in ("plain", "wide"):
        module = RandomNetwork(int(seed), kinds={"plain": PLAIN, "wide": WIDE}[kind], without=_left_out(engine) if kind == "wide" else ())
        return module, [rng.standard_normal((20, module.in_channels, 8, 8)).astype(np.float32) * (1 + i) for i in range(2)]
    name, _, size = name.partition("@")
    model = zoo.build(name, size=int(size))
    shape = (4, *model.node(model.inputs[0]).attrs["shape"][1:])
    return to_torch(model), [rng.standard_normal(shape).astype(np.float32) for _ in range(2)]


def _left_out(engine):
    """Layers that PyTorch computes wrongly or cannot convert."""
    if engine == "qnnpack":  # its clamp gives channels-last images another order of values
        return ("relu6", "hardtanh", "clamp")
    return ("transposed",) if engine == "onednn" else ()


def compare_network(name, engine, network=None, order=None, mappings=None, backend_config=None, qat=False):
    """Quantize one network on both sides and compare observers, fusions, parameters and codes.

    Parameters
    ----------
    name, engine : str
        Of `NETWORKS` and `ENGINES`.
    network : tuple, optional
        A torch module and its calibration batches; what `name` says unless given.
    order : str, optional
        Of real sums; float64, in which both sides agree on every processor, unless given.
    mappings : tuple, optional
        refquant's and PyTorch's QConfigMapping; the defaults unless given.
    backend_config : tuple, optional
        refquant's and PyTorch's BackendConfig.
    qat : bool
        As for quantization-aware training, with fake-quantizers.

    Returns
    -------
    Parity
    """
    import torch

    from refquant import interop, workflow
    from refquant.backends import torch_fx

    module, batches = network or _network(name, engine)
    order = order or "float64"
    prepare, default = (workflow.prepare_qat_fx, workflow.get_default_qat_qconfig_mapping) if qat else (workflow.prepare_fx, workflow.get_default_qconfig_mapping)
    ours_mapping, their_mapping = mappings or (default(engine), None)
    ours_table, their_table = backend_config or (None, None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = interop.from_torch(module, tuple(torch.from_numpy(x) for x in _inputs(batches[0])))
        try:
            prepared = prepare(model, ours_mapping, _inputs(batches[0]), backend_config=ours_table)
        except UnsupportedError as refusal:
            return _both_refuse(name, engine, refusal, lambda: torch_fx.prepared_module(module, engine, batches[:1], mapping=their_mapping, backend_config=their_table, qat=qat))
        theirs = torch_fx.prepared_module(module, engine, batches, mapping=their_mapping, order=order, backend_config=their_table, qat=qat)
        for batch in batches:
            prepared(*_inputs(batch), real=order)
        first = _structure(prepared, theirs)
        if first:
            return Parity(name, engine, -1 if "observer" in first else len(prepared.placement), -1 if "fused" in first else 0, 0, 0, 0, 0, first)
        quantized = torch_fx.quantized_module(theirs, engine, backend_config=their_table)
        bits = torch_fx.run_bits(quantized, engine, *_inputs(batches[-1]), order=order)
        rows = torch_fx.compare_layers(workflow.layer_bits(workflow.convert_fx(prepared, numerics_here(engine)), *_inputs(batches[-1]), real=order), bits)
    return _parity(name, engine, prepared, rows)


def _both_refuse(name, engine, refusal, prepared_by_pytorch):
    """The row of a network that refquant refuses, as PyTorch must too."""
    try:
        prepared_by_pytorch()
    except Exception:  # noqa: BLE001 - PyTorch has no class of errors of its own
        return Parity(name, engine, 0, 0, 0, 0, 0, 0, "")
    return Parity(name, engine, 0, 0, 0, 0, 0, 0, f"PyTorch prepares it, refquant refuses: {refusal}")


def _inputs(batch):
    return batch if isinstance(batch, tuple) else (batch,)


def _structure(prepared, theirs):
    """Return how the prepared models differ, or nothing."""
    from refquant.backends import torch_fx

    fused = [(n.name, n.target.rpartition(".")[2]) for n in prepared.model.nodes if n.is_module]
    constants = {n.name: "parameter" for n in prepared.model.nodes if n.op == "constant"}
    placement = [(constants.get(name, name), number) for name, number in prepared.placement]
    pairs = (("fused otherwise", fused, torch_fx.module_calls(theirs)), ("observers elsewhere", placement, torch_fx.placement(theirs)))
    for text, a, b in pairs:
        if a != b:
            at = next((i for i, (p, q) in enumerate(zip(a, b)) if p != q), min(len(a), len(b)))
            return f"{text}: {a[at : at + 1]} here, {b[at : at + 1]} there"
    return ""


def _parity(name, engine, prepared, rows):
    wrong = [row for row in rows if not row.exact]
    fused = sum(len(n.sources) > 1 for n in prepared.model.nodes)
    parameters = sum(r.scales[0] != r.scales[1] or r.zero_points[0] != r.zero_points[1] for r in rows)
    first = "".join(f"{r.name}: scales {r.scales}, zero points {r.zero_points}, {r.codes.differing} codes differ" for r in wrong[:1])
    outputs, differing = sum(r.codes.outputs for r in rows), sum(r.codes.differing for r in rows)
    return Parity(name, engine, len(prepared.placement), fused, len(rows), outputs, differing, parameters, first)


def compare_models(networks=None, engines=None, *, minutes=None, qat=False):
    """Compare networks under engines, print a table and return the exit status.

    Parameters
    ----------
    networks, engines : sequence of str, optional
        Of `NETWORKS` and `ENGINES`, all unless given; of random networks any seed, and also ``mixed``, such as ``"mixed-17"``, which meet shared modules, operations in place
        and parts of values.
    minutes : float, optional
        No network is begun after that time.
    qat : bool
        As for quantization-aware training.
    """
    if not backends.installed("fbgemm"):
        raise BackendMissing(f"verify --models: needs PyTorch, which is not installed; {backends.find('fbgemm').install}")
    networks = tuple(n if _RANDOM.fullmatch(n) else choose("verify --models", "network", n, NETWORKS) for n in networks or NETWORKS)
    engines = tuple(choose("verify --models", "engine", e, ENGINES) for e in engines or ENGINES)
    progress, start, rows = Progress(), time.monotonic(), []
    print(f"refquant beside PyTorch's prepare_{'qat_' * qat}fx and convert_fx: observers, fusions, scales, zero points and codes of every layer")
    print(_ROW.format("network", "engine", "observers", "fused", "layers", "codes", "scales differ", "codes differ"))
    for number, network in enumerate(networks):
        if minutes is not None and time.monotonic() - start > 60 * minutes:
            break
        for engine in engines:
            progress.show(f"{number + 1} of {len(networks)}: {network} on {engine}")
            rows.append(_guarded(network, engine, qat))
            progress.clear()
            _show(rows[-1])
    return _summary(rows, len({r.network for r in rows}), len(networks))


def _guarded(network, engine, qat):
    try:
        return compare_network(network, engine, qat=qat)
    except RefquantError as error:
        return Parity(network, engine, 0, 0, 0, 0, 0, 0, f"{type(error).__name__}: {error}")


def _show(row):
    numbers = (row.observers, row.fused, row.layers, row.outputs, row.parameters, row.differing)
    cells = ["refused by both", *[""] * 5] if row.refused else ["differ" if n < 0 else f"{n:,}" for n in numbers]
    text = _ROW.format(row.network, row.engine, *cells).rstrip()
    print(text if row.exact else paint(f"{text}\n  {row.first}", "red"), flush=True)


def _summary(rows, done, asked):
    wrong = [r for r in rows if not r.exact]
    layers, outputs = sum(r.layers for r in rows), sum(r.outputs for r in rows)
    refused = sum(r.refused for r in rows)
    compared = f"{len(rows) - refused} comparisons" + (f" (and {refused} that both sides refuse)" if refused else "")
    text = f"{done} of {asked} networks, {compared}, {layers:,} layers, {outputs:,} codes; {len(wrong)} comparisons differ"
    print(paint(text, "red" if wrong else "green"))
    return 1 if wrong else 0
