"""From a `refquant.graph.Model` to an ONNX file: one small rule an operation, by family."""
