"""`disable_observer` and its like: fake-quantizers of a prepared model, switched all at once."""

from refquant.errors import ArgumentError
from refquant.observers import FakeQuantize
from refquant.workflow.prepare_fx import Prepared
from refquant.workflow.pt2e.prepare_pt2e import PreparedPT2E

__all__ = ["enable_observer", "disable_observer", "enable_fake_quant", "disable_fake_quant"]


def enable_observer(prepared):
    """Let every fake-quantizer observe batches from now on, those of weights too; return the prepared model."""
    return _switched(prepared, lambda fake: fake.enable_observer())


def disable_observer(prepared):
    """Let no fake-quantizer observe any more: scales and zero points stay, as late in quantization-aware training.

    Parameters
    ----------
    prepared : Prepared or PreparedPT2E
        From `prepare_qat_fx` or `prepare_qat_pt2e`; it changes. Plain observers, of a model that is prepared for calibration, are left as they are.

    Returns
    -------
    Prepared or PreparedPT2E
        The same.

    Raises
    ------
    ArgumentError
        No prepared model.

    Source
    ------
    PyTorch 2.13, torch/ao/quantization/fake_quantize.py: ``model.apply(torch.ao.quantization.disable_observer)``.

    Examples
    --------
    >>> import numpy as np
    >>> from refquant import zoo
    >>> from refquant.workflow import get_default_qat_qconfig_mapping, prepare_qat_fx
    >>> x = np.linspace(-1, 1, 64, dtype=np.float32).reshape(1, 1, 8, 8)
    >>> prepared = prepare_qat_fx(zoo.load("digits_resnet"), get_default_qat_qconfig_mapping("x86"), (x,))
    >>> _ = prepared(x)
    >>> _ = disable_observer(prepared)(9 * x)
    >>> next(n.attrs["observer"] for n in prepared.model.nodes if n.op == "observe").activation_post_process.max_val
    np.float32(1.0)
    """
    return _switched(prepared, lambda fake: fake.disable_observer())


def enable_fake_quant(prepared):
    """Let every fake-quantizer move batches onto its grid from now on; return the prepared model."""
    return _switched(prepared, lambda fake: fake.enable_fake_quant())


def disable_fake_quant(prepared):
    """Let every fake-quantizer hand batches on as they are: the float model, observed; return the prepared model."""
    return _switched(prepared, lambda fake: fake.disable_fake_quant())


def _switched(prepared, switch):
    if not isinstance(prepared, (Prepared, PreparedPT2E)):
        raise ArgumentError(f"fake-quantizers are switched in a prepared model, not in a {type(prepared).__name__}; pass what prepare_qat_fx or prepare_qat_pt2e returned")
    found = [n.attrs["observer"] for n in prepared.model.nodes if n.op == "observe"]
    found += [p.observer for p in getattr(prepared, "parameters", ())] + [layer.fake_quant for layer in getattr(prepared, "layers", {}).values()]
    for fake in {id(f): f for f in found if isinstance(f, FakeQuantize)}.values():
        switch(fake)
    return prepared
