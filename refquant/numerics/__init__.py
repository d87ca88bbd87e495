"""Profiles: the arithmetic of each engine as a filled-in form.

>>> from refquant import numerics
>>> numerics.names()
('fbgemm', 'onednn', 'x86', 'onnx', 'onnxruntime')
>>> numerics.get("x86").linear == numerics.get("fbgemm").linear
True
"""

from refquant.errors import ArgumentError, choose
from refquant.numerics.onnx import ONNX, ONNXRUNTIME
from refquant.numerics.profile import Numerics
from refquant.numerics.torch_x86 import FBGEMM, ONEDNN, X86

__all__ = ["Numerics", "PROFILES", "names", "get"]

PROFILES = (FBGEMM, ONEDNN, X86, ONNX, ONNXRUNTIME)

_BY_NAME = {}
for _profile in PROFILES:
    if _profile.name in _BY_NAME:
        raise ArgumentError(f"numerics: two profiles are named {_profile.name!r}; rename one")
    _BY_NAME[_profile.name] = _profile


def names():
    """Return the names of all profiles."""
    return tuple(_BY_NAME)


def get(numerics):
    """Return the profile of a name; a `Numerics` passes through.

    Raises
    ------
    ArgumentError
        An unknown name, with the list of names.
    """
    if isinstance(numerics, Numerics):
        return numerics
    return _BY_NAME[choose("numerics", "name", numerics, _BY_NAME)]
