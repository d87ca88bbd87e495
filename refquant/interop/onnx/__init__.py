"""ONNX models: loading, checking, executing.

`load` reads a file and distrusts it, `checks` says what is wrong with its structure, `model` executes it node by node, and
`table` lists every operator once with the function that computes it. `qdq` fuses quantized networks as ONNX Runtime does, `lower` turns
float networks into graphs that can be quantized, and `backend` is the door for ONNX's own conformance tests.
"""
