"""``refquant diagnose --wrong-profiles``: real engines held against profiles that are not theirs."""

from refquant import backends, numerics
from refquant.backends.machine import profile_here
from refquant.cli.console import Progress, paint
from refquant.cli.gallery import load_runner
from refquant.errors import ArgumentError, BackendMissing
from refquant.verify import STREAMS
from refquant.verify.mistaken import under_profile

__all__ = ["WRONG", "explain_engines", "on_this_processor"]

_PRODUCTS = ("linear", "conv2d")
_SUMS = ("add", "mul")

#: Engine, a profile that somebody may take for its, operators.
WRONG = (
    ("onnxruntime", "onnx_reference", (*_PRODUCTS, "add", "avg_pool2d", "adaptive_avg_pool2d")),
    ("onnxruntime", "onnx", (*_PRODUCTS, "add", "mul")),
    ("tflite_ref", "tflite_opt", (*_PRODUCTS, "add", "quantize", "dequantize")),
    ("tflite_ref", "xnnpack", (*_PRODUCTS, *_SUMS, "quantize")),
    ("tflite_opt", "tflite_ref", (*_PRODUCTS, "add", "quantize", "dequantize")),
    ("tflite_opt", "xnnpack", (*_PRODUCTS, *_SUMS, "dequantize")),
    ("xnnpack", "tflite_ref", (*_PRODUCTS, *_SUMS, "quantize")),
    ("xnnpack", "tflite_opt", (*_PRODUCTS, *_SUMS, "dequantize")),
    ("fbgemm", "onednn", _PRODUCTS),
    ("fbgemm", "qnnpack", (*_PRODUCTS, "add")),
    ("fbgemm", "onnxruntime", (*_PRODUCTS, "add", "quantize", "fake_quantize")),
    ("onednn", "fbgemm", _PRODUCTS),
    ("qnnpack", "fbgemm", (*_PRODUCTS, "add")),
    ("openvino", "onnx", ("quantize", "dequantize", *_PRODUCTS)),
    ("onednn@avx2", "onednn", _PRODUCTS),
    ("fbgemm@avx2", "fbgemm", _PRODUCTS),
)

_ROW = "{:<12} {:<19} {:<20} {:>9} {:>9}  {:<9} {:>5}  {}"


def _pairs(arguments):
    """Return (engine, profile, operators): of the table and of the variants of each engine's profile, or what the options name."""
    table = [*WRONG, *_versions()]
    if arguments.engine:
        names = [backends.find(name).name for name in arguments.engine]
        table = [row for row in table if row[0] in names]
    if arguments.numerics:
        wrong = numerics.get(arguments.numerics).name
        named = [row for row in table if row[1] == wrong]
        table = named or [(name, wrong, _PRODUCTS) for name in arguments.engine or backends.names() if name != wrong]
    if arguments.op:
        table = [(engine, wrong, tuple(op for op in STREAMS if op in arguments.op)) for engine, wrong, _ in table]
    return table


def on_this_processor(engine, wrong):
    """Return a wrong profile on the level that the engine runs on, so that what is found is what was mistaken; a held engine is taken for a free one.

    Examples
    --------
    >>> on_this_processor("onednn@avx2", "onednn"), on_this_processor("xnnpack", "tflite_ref")
    ('onednn', 'tflite_ref')
    """
    return wrong if "@" in engine + wrong else profile_here(wrong)


def _versions():
    """Yield the engines under other versions of their own profile, where the table of variants has some."""
    for name in backends.names():
        for variant in numerics.variants_of(name, ("version",)):
            base, other = numerics.get(name), numerics.get(variant)
            sections = {row[0].removesuffix("_channel").removesuffix("_int32") for row in other.differences(base)}
            ops = tuple(op for op in STREAMS if op in sections)
            if ops:
                yield name, variant, ops


def explain_engines(arguments):
    """Diagnose every pair; print a line for each operator; return the exit status."""
    rows, missing, progress = [], {}, Progress()
    print(_ROW.format("engine", "taken for", "operator", "outputs", "differing", "explained", "s", "cause"))
    for engine, wrong, ops in _pairs(arguments):
        try:
            runner = load_runner(engine)
        except BackendMissing as error:
            missing[engine] = str(error)
            continue
        taken_for = on_this_processor(engine, wrong)
        for op in ops:
            progress.show(f"{engine} under {taken_for}: {op}")
            row = under_profile(runner, taken_for, op, cases=arguments.cases, seconds=arguments.seconds)
            progress.clear()
            rows.append(row)
            _print(row)
    for engine, why in missing.items():
        print(f"not asked: {why}")
    asked = [row for row in rows if row.diagnosed]
    if not asked:
        raise ArgumentError("diagnose: no engine gave bits that differ, so nothing is explained; see refquant verify --list")
    cases, explained = sum(row.diagnosed for row in asked), sum(row.explained for row in asked)
    text = f"{explained} of {cases} cases explained to the last bit; {sum(row.differing for row in asked):,} bits differ of {sum(row.outputs for row in asked):,} outputs"
    print(paint(text, "green" if explained == cases else "red"))
    return 0 if explained == cases else 1


def _print(row):
    told = f"{row.explained} of {row.diagnosed}" if row.diagnosed else "–"
    others = len(row.causes) - 1
    cause = (row.cause + (f" (and {others} more)" if others > 0 else "")) if row.diagnosed else "no case tells the two apart" if row.outputs else "no common case"
    line = _ROW.format(row.engine, row.profile, row.op, f"{row.outputs:,}", f"{row.differing:,}", told, f"{row.seconds:.1f}", cause)
    print(paint(line, "red") if row.unexplained else line, flush=True)
    for case, d in row.unexplained:
        print(f"    {case}: {'; '.join(str(e) for e in d.nearest[:1]) or 'nothing near'}")
