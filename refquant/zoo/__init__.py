"""Networks as graphs: the small trained ones of `refquant.data`, and published architectures with seeded weights.

>>> from refquant import zoo
>>> zoo.names()
('digits_resnet', 'digits_mobilenet', 'glyphs_net')
>>> model = zoo.load("digits_resnet")
>>> model.parameter_count, model.nodes[-1].name
(38266, 'fc')
"""

from refquant.zoo.architectures import ARCHITECTURES, architectures, build
from refquant.zoo.load import NETWORKS, load, names

__all__ = ["NETWORKS", "load", "names", "ARCHITECTURES", "architectures", "build"]
