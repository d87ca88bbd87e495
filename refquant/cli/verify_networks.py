"""``refquant verify --networks``: float ONNX networks through every path, quantized, exported, and run in ONNX Runtime beside the oracle."""

import tempfile
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np

from refquant.backends.machine import profile_here
from refquant.cli.console import Progress, paint
from refquant.errors import ArgumentError, RefquantError

__all__ = ["Trial", "PATHS", "try_network", "compare_networks"]


class Trial(NamedTuple):
    """One network on one path.

    Attributes
    ----------
    network, path, form : str
    real : float
        The greatest difference from ONNX Runtime in float32, as a share of the greatest number.
    layers : int
        Nodes on codes of the exported file, as ONNX Runtime fuses it.
    values, differing, inherited : int
        Codes that these nodes compute; how many the oracle computes otherwise from ONNX Runtime's own inputs; and how many in its own run from the
        start, in which only numbers of nodes on real numbers are ONNX Runtime's.
    outputs, other : int
        Numbers that the whole network returns, and how many differ from the oracle's own runs, of the file and of the quantized model.
    behind_real : int
        Nodes on real numbers in between, in whose last bits nobody promises to agree; then ``other`` proves nothing.
    refused : str
        Why there is nothing to compare; empty unless so.
    """

    network: str
    path: str
    form: str
    real: float
    layers: int = 0
    values: int = 0
    differing: int = 0
    inherited: int = 0
    outputs: int = 0
    other: int = 0
    behind_real: int = 0
    refused: str = ""

    @property
    def exact(self):
        """Whether every integer agrees."""
        return not self.refused and self.real <= 1e-4 and self.layers > 0 and not self.differing and not self.inherited and (not self.other or self.behind_real > 0)


def _fx(model, batches):
    from refquant.workflow import convert_fx, get_default_qconfig_mapping, prepare_fx

    prepared = prepare_fx(model, get_default_qconfig_mapping("x86"), example_inputs=batches[0])
    for batch in batches:
        prepared(*batch)
    return convert_fx(prepared)


def _pt2e(model, batches):
    from refquant.workflow import X86InductorQuantizer, convert_pt2e, get_default_x86_inductor_quantization_config, prepare_pt2e

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says what stays float, which the table counts
        prepared = prepare_pt2e(model, X86InductorQuantizer().set_global(get_default_x86_inductor_quantization_config()))
    for batch in batches:
        prepared(*batch)
    return convert_pt2e(prepared)


def _ort(model, batches):
    from refquant.workflow import quantize_static

    return quantize_static(model, batches, activation_type="uint8", per_channel=True, numerics=profile_here("onnxruntime"))


PATHS = {"FX": _fx, "PT2E": _pt2e, "ORT": _ort}
"""From a float model and calibration batches to a quantized model. PT2E leaves its layers between quantizers: its integers are those of the file."""


def _load(path):
    """Return (proto, model, inputs), weights of the light networks drawn, the last softmax left out."""
    from refquant.backends.onnx_light import with_random_weights, without_softmax
    from refquant.interop import from_onnx
    from refquant.interop.onnx.load import read_proto

    proto, folder = read_proto(path)
    proto = without_softmax(with_random_weights(proto))
    model = from_onnx(proto, as_graph=True, base_dir=folder)
    shapes = [tuple(n or 1 for n in model.node(name).attrs["shape"]) for name in model.inputs]
    return proto, model, [[np.random.default_rng([i, k]).standard_normal(s).astype(np.float32) for k, s in enumerate(shapes)] for i in range(3)]


def try_network(path, paths=tuple(PATHS), forms=("qdq",), progress=lambda text: None):
    """Yield a `Trial` for each path and form.

    Parameters
    ----------
    path : str or os.PathLike
        A float ONNX model.
    paths : sequence of str
        Of `PATHS`.
    forms : sequence of str
        Of `refquant.interop.onnx.export.FORMS`, but for float.
    progress : callable
    """
    from refquant.backends.onnx_trace import run_session
    from refquant.interop import to_onnx

    name = Path(path).stem
    progress(f"{name}: float32")
    proto, model, (*batches, x) = _load(path)
    theirs = run_session(proto.SerializeToString(), dict(zip([i.name for i in proto.graph.input], x)))
    real = max(float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-30)) for a, b in zip(model.run(*x), theirs.values()))
    for kind in paths:
        try:
            progress(f"{name}: quantized by {kind}")
            quantized = PATHS[kind](model, batches)
            for form in forms:
                progress(f"{name}: {kind}, {form}")
                with tempfile.TemporaryDirectory() as folder:
                    export = to_onnx(quantized, Path(folder) / "model.onnx", format=form)
                    yield _compared(Trial(name, kind, form, real), export.path, quantized, x)
        except RefquantError as error:
            yield Trial(name, kind, "–", real, refused=str(error))


def _compared(trial, path, quantized, x):
    from refquant.backends.onnx_trace import trace_model
    from refquant.cli.verify_onnx import on_codes, walk
    from refquant.interop import from_onnx

    feeds = dict(zip(quantized.inputs, x))
    trace = trace_model(path, feeds)
    checks = [check for check in walk(trace.model, trace.values, feeds) if check.node is not None]
    integer = [check for check in checks if on_codes(check)]
    here = profile_here("onnxruntime")
    runs = [from_onnx(path, numerics=here, as_graph=False).run(*x)]
    if trial.path != "PT2E" and not any(node.op == "batch_norm" for node in quantized.nodes):  # which ONNX Runtime computes with real numbers alone
        runs.append(quantized.run(*x, numerics=here))
    other = max(sum(int(np.count_nonzero(a != b)) for a, b in zip(mine, trace.outputs.values())) for mine in runs)
    return trial._replace(
        layers=len(integer), values=sum(c.outputs for c in integer), differing=sum(c.local for c in integer),
        inherited=sum(c.total for c in integer), outputs=sum(y.size for y in trace.outputs.values()), other=other + trace.faithful,
        behind_real=sum(check.status == "REAL" for check in checks),
    )  # fmt: skip


def compare_networks(files):
    """Try networks, print a table; return the exit status.

    Parameters
    ----------
    files : list of str
        ONNX files; the light networks of the package onnx unless given.
    """
    from refquant.backends.onnx_light import light_networks

    files = files or list(light_networks().values())
    if not files:
        raise ArgumentError("verify: the installed onnx has no light networks; name ONNX files: --networks FILE.onnx")
    missing = [path for path in files if not Path(path).is_file()]
    if missing:
        raise ArgumentError(f"verify --networks: {missing[0]} must be a readable file, but there is none; correct the path")
    line, trials, start = Progress(), [], time.perf_counter()
    heads = ("network", "path", "file", "float32", "layers", "codes", "one by one", "in line", "outputs", "differing", "real")
    widths = [20, 5, 9, 8, 6, 11, 10, 7, 8, 9, 5]
    print("  ".join(f"{text:<{w}}" if i < 3 else f"{text:>{w}}" for i, (text, w) in enumerate(zip(heads, widths))), " verdict")
    for path in files:
        for trial in _tried(path, line):
            line.clear()
            trials.append(trial)
            print(_row(trial, widths), flush=True)
    line.clear()
    bad = [t for t in trials if not t.exact]
    total, differing = sum(t.values for t in trials), sum(t.differing + t.inherited for t in trials)
    text = f"{len(files)} networks, {len(trials)} trials, {total:,} codes compared, {differing:,} differ; {len(bad)} trials are not exact; {time.perf_counter() - start:.0f} s"
    print(paint(text, "red" if bad else "green"))
    return 1 if bad else 0


def _tried(path, line):
    """Yield trials; a network that cannot even be read is one that is refused."""
    try:
        yield from try_network(path, progress=line.show)
    except RefquantError as error:
        yield Trial(Path(path).stem, "–", "–", float("nan"), refused=str(error))


def _row(trial, widths):
    cells = [trial.network, trial.path, trial.form, f"{trial.real:.1e}"]
    if trial.refused:
        return "  ".join([*(f"{c:<{w}}" for c, w in zip(cells, widths)), paint("refused: " + trial.refused, "red")])
    cells += [f"{v:,}" for v in (trial.layers, trial.values, trial.differing, trial.inherited, trial.outputs, trial.other, trial.behind_real)]
    text = "  ".join(f"{c:<{w}}" if i < 3 else f"{c:>{w}}" for i, (c, w) in enumerate(zip(cells, widths)))
    return f"{text}  {paint('EXACT' if trial.exact else 'DIFFERENT', 'green' if trial.exact else 'red')}"
