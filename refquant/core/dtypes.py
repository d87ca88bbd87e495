"""The integer dtypes of quantized tensors: names, storage and limits."""

from typing import NamedTuple

import numpy as np

from refquant.errors import choose

__all__ = ["IntType", "DTYPES", "int_type"]


class IntType(NamedTuple):
    """One quantized dtype.

    Attributes
    ----------
    name : str
        NumPy's or ONNX's name.
    storage : numpy.dtype
        What holds the codes; 4- and 2-bit codes are stored one to a byte.
    qmin, qmax : int
        The smallest and the largest code.
    """

    name: str
    storage: np.dtype
    qmin: int
    qmax: int


DTYPES = (
    IntType("uint8", np.dtype(np.uint8), 0, 255),
    IntType("int8", np.dtype(np.int8), -128, 127),
    IntType("uint16", np.dtype(np.uint16), 0, 65535),
    IntType("int16", np.dtype(np.int16), -32768, 32767),
    IntType("int32", np.dtype(np.int32), -(2**31), 2**31 - 1),
    IntType("uint4", np.dtype(np.uint8), 0, 15),
    IntType("int4", np.dtype(np.int8), -8, 7),
    IntType("uint2", np.dtype(np.uint8), 0, 3),
    IntType("int2", np.dtype(np.int8), -2, 1),
)

_BY_NAME = {t.name: t for t in DTYPES}
_ALIASES = {"quint8": "uint8", "qint8": "int8", "qint32": "int32"}


def int_type(dtype, place="dtype"):
    """Look up a quantized dtype by NumPy's, ONNX's or PyTorch's name.

    Parameters
    ----------
    dtype : str, numpy.dtype, type or IntType
        ``"uint8"``, ``np.int8``, PyTorch's ``"quint8"``, …
    place : str
        Who asks, for the message.

    Examples
    --------
    >>> int_type("quint8").qmax, int_type(np.int8).qmin
    (255, -128)
    """
    if isinstance(dtype, IntType):
        return dtype
    if isinstance(dtype, str):
        name = _ALIASES.get(dtype, dtype)
    else:
        try:
            name = np.dtype(dtype).name
        except (TypeError, ValueError):
            name = str(dtype).rpartition(".")[2]
            name = _ALIASES.get(name, name)
    return _BY_NAME[choose(place, "dtype", name, _BY_NAME)]
