"""From ``TensorProto`` to arrays: every length is checked before a byte is read."""

import math

import numpy as np

from refquant.core.lowbits import unpack_codes
from refquant.errors import ArgumentError, UnsupportedError
from refquant.interop.onnx.call import check_size
from refquant.interop.onnx.dtypes import numpy_dtype, type_of_number, view_codes

__all__ = ["array_of", "attribute_of"]

_EXTERNAL = 1


def array_of(tensor, place, external=None):
    """Return the array of a ``TensorProto``.

    Parameters
    ----------
    tensor : onnx.TensorProto
    place : str
    external : refquant.interop.onnx.external.ExternalData, optional
        Where data outside of the file may be read from; None refuses it.

    Raises
    ------
    ArgumentError, RangeError, UnsupportedError
        Data that does not fit the shape, shapes without sense, unknown element types.
    """
    place = f"{place}: tensor {tensor.name!r}" if tensor.name else place
    kind = type_of_number(tensor.data_type, place)
    shape = check_size(tensor.dims, max(kind.bits, 8) // 8, place)
    count = math.prod(shape)
    if tensor.HasField("segment"):
        raise UnsupportedError(f"{place}: data in segments is not supported; save the model anew with a current onnx")
    if tensor.data_location == _EXTERNAL:
        if external is None:
            raise ArgumentError(f"{place}: its data lies in another file; load the model by its path so that the folder is known")
        return _from_bytes(external.read(tensor, -(-count * kind.bits // 8), place), kind, shape, count, place)
    if kind.kind == "string":
        return _strings(tensor, shape, count, place)
    if tensor.HasField("raw_data"):
        return _from_bytes(tensor.raw_data, kind, shape, count, place)
    return _from_field(tensor, kind, shape, count, place)


def _from_bytes(data, kind, shape, count, place):
    if kind.kind == "string":
        raise ArgumentError(f"{place}: strings cannot be raw bytes; the file is damaged, export it again")
    wanted = -(-count * kind.bits // 8)
    if len(data) != wanted:
        raise ArgumentError(f"{place}: shape {shape} of {kind.name} needs {wanted} bytes but there are {len(data)}; the file is damaged, export it again")
    raw = np.frombuffer(data, np.uint8)
    if kind.bits < 8:
        return view_codes(unpack_codes(raw, kind.bits, count), kind).reshape(shape)
    dtype = numpy_dtype(kind)
    if kind.kind.startswith("small"):
        return raw.view(dtype if kind.bits == 8 else "<u2").view(dtype).reshape(shape)
    return raw.view(dtype.newbyteorder("<")).astype(dtype, copy=False).reshape(shape)


def _from_field(tensor, kind, shape, count, place):
    values = getattr(tensor, kind.field)
    packed = kind.bits < 8
    wanted = {"complex": 2 * count}.get(kind.kind, -(-count * kind.bits // 8) if packed else count)
    if len(values) != wanted:
        raise ArgumentError(
            f"{place}: shape {shape} of {kind.name} needs {wanted} numbers in {kind.field} but there are {len(values)}; the file is damaged, export it again"
        )
    if kind.kind == "complex":
        half = np.float32 if kind.bits == 64 else np.float64
        return np.array(values, half).view(kind.name).reshape(shape)
    if packed:
        return view_codes(unpack_codes(np.array(values, np.int64).astype(np.uint8), kind.bits, count), kind).reshape(shape)
    if kind.kind == "small_float":
        storage = np.uint16 if kind.bits == 16 else np.uint8
        return view_codes(np.array(values, np.int64).astype(storage), kind).reshape(shape)
    if kind.name == "float16":
        return np.array(values, np.int64).astype(np.uint16).view(np.float16).reshape(shape)
    wide = np.array(values, {"uint64_data": np.uint64, "int32_data": np.int64}.get(kind.field, kind.name))
    return wide.astype(kind.name).reshape(shape)


def _strings(tensor, shape, count, place):
    if len(tensor.string_data) != count:
        raise ArgumentError(f"{place}: shape {shape} needs {count} strings but there are {len(tensor.string_data)}; the file is damaged, export it again")
    out = np.empty(count, object)
    out[:] = [s.decode("utf-8", "replace") for s in tensor.string_data]
    return out.reshape(shape)


_SCALARS = {1: "f", 2: "i", 3: "s"}
_LISTS = {6: "floats", 7: "ints", 8: "strings"}


def attribute_of(attribute, place, external=None):
    """Return the value of an ``AttributeProto``: a number, str, array, or a list of numbers or str.

    Subgraphs come back as the proto, for the checks to speak of; nothing executes them.
    """
    place = f"{place}: attribute {attribute.name!r}"
    if attribute.ref_attr_name:
        raise UnsupportedError(f"{place}: refers to a function's attribute; inline the model's functions first: onnx.inliner.inline_local_functions")
    kind = attribute.type
    if kind in _SCALARS:
        value = getattr(attribute, _SCALARS[kind])
        return value.decode("utf-8", "replace") if kind == 3 else value
    if kind in _LISTS:
        values = list(getattr(attribute, _LISTS[kind]))
        return [v.decode("utf-8", "replace") for v in values] if kind == 8 else values
    if kind == 4:
        return array_of(attribute.t, place, external)
    if kind == 5:
        return attribute.g
    raise UnsupportedError(f"{place}: attributes of type {kind} are not supported; refquant reads numbers, strings, lists of them and tensors")
