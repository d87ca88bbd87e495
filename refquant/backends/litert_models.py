"""One-operator TFLite models, written with LiteRT's flatbuffer schema. Imports ai_edge_litert and flatbuffers when imported."""

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

__all__ = ["build_model"]

_TYPES = {"int8": schema.TensorType.INT8, "int32": schema.TensorType.INT32, "float32": schema.TensorType.FLOAT32}


def _tensor(name, shape, dtype, buffer, scale=None, zero=None, axis=0):
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type, tensor.buffer = name, list(shape), _TYPES[dtype], buffer
    if scale is not None:
        quantization = schema.QuantizationParametersT()
        quantization.scale = np.atleast_1d(np.asarray(scale, np.float32)).tolist()
        quantization.zeroPoint = np.broadcast_to(np.asarray(zero, np.int64), (len(quantization.scale),)).tolist()
        quantization.quantizedDimension = axis
        tensor.quantization = quantization
    return tensor


def _buffer(array=None):
    buffer = schema.BufferT()
    if array is not None:
        buffer.data = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
    return buffer


def build_model(builtin, version, options, inputs, constants, output, order=None):
    """Return the bytes of a model with one operator.

    Parameters
    ----------
    builtin : str
        A name of ``BuiltinOperator``, such as ``"CONV_2D"``.
    version : int
        Of the operator.
    options : tuple or None
        The name of the options' class without ``T`` (also the name in ``BuiltinOptions``), and its fields as a dict.
    inputs : list of tuple
        (shape, dtype, scale, zero point) of each input tensor.
    constants : list of tuple
        (array, scale, zero point, quantized axis) of each constant tensor; they follow the inputs.
    output : tuple
        (shape, dtype, scale, zero point).
    order : sequence of int, optional
        In which order the operator takes inputs and constants; as they come unless given.
    """
    buffers, tensors = [_buffer()], []
    for i, (shape, dtype, scale, zero) in enumerate(inputs):
        tensors.append(_tensor(f"x{i}", shape, dtype, 0, scale, zero))
    for i, (array, scale, zero, axis) in enumerate(constants):
        buffers.append(_buffer(array))
        tensors.append(_tensor(f"c{i}", array.shape, array.dtype.name, len(buffers) - 1, scale, zero, axis))
    shape, dtype, scale, zero = output
    tensors.append(_tensor("y", shape, dtype, 0, scale, zero))
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, list(order or range(len(tensors) - 1)), [len(tensors) - 1]
    if options is not None:
        name, fields = options
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, name)
        operator.builtinOptions = getattr(schema, name + "T")()
        for key, value in fields.items():
            setattr(operator.builtinOptions, key, value)
    return _pack(builtin, version, operator, tensors, buffers, len(inputs))


def _pack(builtin, version, operator, tensors, buffers, count):
    code = schema.OperatorCodeT()
    code.builtinCode = getattr(schema.BuiltinOperator, builtin)
    code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), version
    graph = schema.SubGraphT()
    graph.tensors, graph.operators, graph.inputs, graph.outputs = tensors, [operator], list(range(count)), [len(tensors) - 1]
    model = schema.ModelT()
    model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, [code], [graph], buffers
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
