"""Models as graphs: nodes, a builder, execution with hooks on every value, and pattern matching.

>>> import numpy as np
>>> from refquant.graph import Builder
>>> b = Builder(seed=0)
>>> x = b.input(shape=(None, 3, 8, 8))
>>> y = x.conv2d(8, 3, padding=1).batch_norm().relu()
>>> model = b.build(y.adaptive_avg_pool2d(1).flatten().linear(10))
>>> [n.name for n in model.nodes]
['x', 'conv2d', 'batch_norm', 'relu', 'adaptive_avg_pool2d', 'flatten', 'linear']
>>> y, = model(np.zeros((2, 3, 8, 8), np.float32))
>>> y.shape
(2, 10)
"""

from refquant.graph.builder import Builder
from refquant.graph.layer_bits import LayerBits, layer_bits
from refquant.graph.model import Model
from refquant.graph.node import Node
from refquant.graph.opset import OPS, GraphOp
from refquant.graph.value import Value

__all__ = ["Model", "Node", "Builder", "Value", "GraphOp", "OPS", "LayerBits", "layer_bits"]
