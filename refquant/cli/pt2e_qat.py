"""One network through PT2E's quantization-aware training on both sides, without gradients: forward passes in training, one in evaluation, conversion."""

from refquant.cli.pt2e_parity import compare_layers, our_annotations, our_placement, run_quantized
from refquant.cli.pt2e_verdict import Parity, first_difference, verdict_of
from refquant.errors import RefquantError
from refquant.workflow import X86InductorQuantizer, convert_pt2e, get_default_x86_inductor_quantization_config, prepare_qat_pt2e
from refquant.workflow.pt2e.prepare_qat_pt2e import QAT_DEFECTS

__all__ = ["compare_qat", "compare_qat_compiled", "compare_with"]


def compare_qat(module, model, batches, *, strict=False, quantizers=None):
    """Compare annotations, fake-quantizers with their scales and zero points, what each pass returns, running statistics, and every code of the converted model.

    Parameters
    ----------
    module : torch.nn.Module
    model : Model
        The same network.
    batches : sequence of ndarray
        One pass in training each; the last one is run in evaluation too, and after conversion.
    strict : bool
        How the module is exported.
    quantizers : tuple, optional
        Ours and torchao's; the default ones unless given.

    Returns
    -------
    Parity
    """
    from refquant.backends import torch_pt2e_qat

    pair = _prepared(module, model, batches, strict, quantizers)
    if isinstance(pair, Parity):
        return pair
    ours, theirs = pair
    return compare_with(torch_pt2e_qat.seen_in_training(theirs, batches), ours, batches)


def compare_qat_compiled(module, model, batches, *, strict=False, quantizers=None):
    """Compare what TorchInductor compiles of the converted model with the oracle, as `refquant.cli.pt2e_parity.compare_compiled` does; the arguments are those of `compare_qat`.

    Returns
    -------
    Parity
    """
    from refquant.backends import torch_inductor, torch_pt2e_qat

    pair = _prepared(module, model, batches, strict, quantizers)
    if isinstance(pair, Parity):
        return pair
    ours, theirs = pair
    for batch in batches:
        ours(batch, real="float64")
    with torch_pt2e_qat.patterns_kept():
        return compare_layers((ours.eval(), torch_pt2e_qat.trained_module(theirs, batches)), batches[-1], torch_inductor.run_compiled, "inductor")


def _prepared(module, model, batches, strict, quantizers):
    """Return (ours, theirs), which have seen nothing, or the Parity of a refusal."""
    from refquant.backends import torch_pt2e_qat

    config = get_default_x86_inductor_quantization_config(is_qat=True)
    ours_by, theirs_by = quantizers or (X86InductorQuantizer(strict).set_global(config), None)
    theirs = failure = None
    try:
        theirs = torch_pt2e_qat.prepared_qat_module(module, batches[0], quantizer=theirs_by, strict=strict)
    except (ValueError, AssertionError, IndexError, AttributeError, TypeError, RuntimeError) as error:  # what torchao stops with
        failure = error
    try:
        ours = prepare_qat_pt2e(model, ours_by, defects=QAT_DEFECTS)
    except RefquantError as error:
        return Parity("both refuse", {}, str(error)) if failure is not None else Parity("ours refuses", {}, str(error))
    return (ours, theirs) if failure is None else Parity("theirs refuses", {}, f"{type(failure).__name__}: {failure}")


def compare_with(theirs, ours, batches):
    """Let a prepared model run, and compare with what torchao's did.

    Parameters
    ----------
    theirs : refquant.backends.torch_pt2e_qat.SeenInTraining
    ours : PreparedQatPT2E
    batches : sequence of ndarray

    Returns
    -------
    Parity
    """
    from refquant.backends.torch_pt2e import numbered

    passes = [ours(batch, real="float64") for batch in batches]
    a, b = our_annotations(ours), theirs.annotations
    if a != b:
        place = next(k for k in sorted({*a, *b}) if a.get(k) != b.get(k))
        return Parity("annotations", {}, f"{place}: {a.get(place)} here, {b.get(place)} there")
    a, b = numbered(our_placement(ours)), theirs.placement
    if a != b:
        return Parity("observers", {}, first_difference(a, b))
    statistics = {ours.model.node(name).path.replace(".", "_"): (state.params["running_mean"], state.params["running_var"]) for name, state in ours.norms.items()}
    if set(statistics) != set(theirs.statistics):
        return Parity("batch norms", {}, f"{sorted(statistics)} here, {sorted(theirs.statistics)} there")
    passes.append(ours.eval()(batches[-1], real="float64"))
    y, rows = run_quantized(convert_pt2e(ours), ours.graph, batches[-1], "float64")
    pairs = [pair for name in statistics for pair in zip(statistics[name], theirs.statistics[name])]
    pairs += [pair for made in zip(passes, theirs.passes, strict=True) for pair in zip(*made, strict=True)]
    counts = {"observers": len(a), "values": len(rows), "codes": sum(pair[0].size for pair in pairs) + sum(row[3].size for row in rows)}
    if [r[:3] for r in rows] != [r[:3] for r in theirs.values]:
        return Parity("values", counts, first_difference([r[:3] for r in rows], [r[:3] for r in theirs.values]))
    return verdict_of(counts, pairs + [(r[3], t[3]) for r, t in zip(rows, theirs.values)], y, theirs.outputs)
