"""Profiles: the arithmetic of each engine as a filled-in form.

>>> from refquant import numerics
>>> numerics.names()
('fbgemm', 'onednn', 'x86', 'qnnpack', 'inductor', 'onnx', 'onnx_reference', 'onnxruntime', 'tflite_ref', 'tflite_opt', 'xnnpack', 'openvino')
>>> numerics.get("x86").linear == numerics.get("fbgemm").linear
True
"""

from functools import lru_cache

from refquant.errors import ArgumentError, choose
from refquant.numerics.onnx import ONNX, ONNX_REFERENCE, ONNXRUNTIME
from refquant.numerics.openvino import OPENVINO
from refquant.numerics.profile import Numerics
from refquant.numerics.tflite import TFLITE_OPT, TFLITE_REF, XNNPACK
from refquant.numerics.torch_x86 import FBGEMM, INDUCTOR, ONEDNN, QNNPACK, X86
from refquant.numerics.variants import VARIANTS, Variant, make_variant, variant_names, variants_of
from refquant.numerics.ways import WAYS, Way, ways_of

__all__ = ["Numerics", "PROFILES", "VARIANTS", "Variant", "WAYS", "Way", "names", "get", "variant_names", "variants_of", "ways_of"]

PROFILES = (FBGEMM, ONEDNN, X86, QNNPACK, INDUCTOR, ONNX, ONNX_REFERENCE, ONNXRUNTIME, TFLITE_REF, TFLITE_OPT, XNNPACK, OPENVINO)

_BY_NAME = {}
for _profile in PROFILES:
    if _profile.name in _BY_NAME:
        raise ArgumentError(f"numerics: two profiles are named {_profile.name!r}; rename one")
    _BY_NAME[_profile.name] = _profile


def names():
    """Return the names of all profiles."""
    return tuple(_BY_NAME)


def get(numerics):
    """Return the profile of a name, or of a variant's name ``base+variant``; a `Numerics` passes through.

    ``"fbgemm@avx2"`` is the profile on another processor level, see `Numerics.isa`.

    Raises
    ------
    ArgumentError
        An unknown name, with the list of names, or an unknown level.

    Examples
    --------
    >>> get("fbgemm@avx2").isa
    'avx2'
    """
    if isinstance(numerics, Numerics):
        return numerics
    if isinstance(numerics, str) and numerics in _BY_NAME:
        return _BY_NAME[numerics]
    if isinstance(numerics, str) and "@" in numerics:
        return _on_level(numerics)
    if isinstance(numerics, str) and "+" in numerics:
        return make_variant(numerics, _BY_NAME)
    return _BY_NAME[choose("numerics", "name", numerics, _BY_NAME)]


@lru_cache(maxsize=256)
def _on_level(full):
    name, _, isa = full.partition("@")
    return get(name).on(isa, f"numerics {full}")
