"""What an engine's packed weights keep of an earlier call, and go on with: defects of engines, as variants of profiles."""

from refquant import numerics as profiles
from refquant.core.qparams import QParams
from refquant.ops.pack_weights import PackedWeights

__all__ = ["kept"]


def kept(numerics, x, w, out, activation):
    """Return the output's parameters and the activation that a call is computed with.

    Parameters
    ----------
    numerics : str or Numerics
        Its ``keeps`` says what packed weights keep: ``nothing``; ``output_scale``, until the input has another scale; ``post_operation``.
    x : QTensor
    w : QTensor or PackedWeights
        Only packed weights can keep anything.
    out : QParams or None
    activation : None, str or tuple

    Returns
    -------
    (QParams or None, None, str or tuple)
    """
    profile = profiles.get(numerics)
    if profile.keeps == "nothing" or not isinstance(w, PackedWeights):
        return out, activation
    if profile.keeps == "post_operation":
        return out, w.kept.setdefault(profile.keeps, activation)
    if out is None:
        return out, activation
    scale, first = w.kept.get(profile.keeps, (None, None))
    if scale != x.qparams.scale:
        w.kept[profile.keeps] = x.qparams.scale, out.scale
        return out, activation
    return QParams(first, out.zero_point, out.dtype, quant_min=out.qmin, quant_max=out.qmax), activation
