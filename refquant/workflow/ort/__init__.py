"""ONNX Runtime's way of post-training quantization: where it puts quantizers, which parameters they get, what it does to weights and biases.

The placement works on an `OnnxGraph`, plain data in ONNX's vocabulary, so that the same rules serve models from ONNX files and refquant's own graphs.
"""
