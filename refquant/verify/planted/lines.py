"""The cases on which faults are planted; the first seed that shows a fault is taken."""

__all__ = [
    "ADAPTIVE", "ADD", "ASYM", "CAT", "CONV", "CONV8", "DW", "DWF", "DWN", "FINE", "LIN", "LINF", "MUL", "PAIRS", "PER", "POOL", "QUA", "RELU", "S8",
]  # fmt: skip

LIN, LINF = "linear/any/m40k48n24/neartie/seed=0/per_channel/intbias", "linear/any/m40k48n24/neartie/seed=0/per_channel"
FINE = "linear/any/m600k12n24/neartie/seed=0/per_channel/intbias"
ASYM, PAIRS = "linear/any/m40k48n24/random/seed=0/asymmetric/intbias", "linear/any/m40k48n24/pairs/seed=0/per_channel/intbias"
S8, RELU = "linear/any/m40k48n24/neartie/seed=0/per_channel/int8/intbias/relu", "linear/any/m40k48n24/neartie/seed=0/per_channel/intbias/relu"
CONV, CONV8 = "conv2d/any/n1c12h9w9-oc16k3p1/neartie/seed=0/per_channel/intbias", "conv2d/any/n1c12h9w9-oc16k3p1/neartie/seed=0/per_channel/int8/intbias"
DW = "conv2d/any/n2c12h9w9-oc12k3p1g12/pairs/seed=0/per_channel/intbias"
DWN, DWF = "conv2d/any/n2c12h9w9-oc12k3p1g12/neartie/seed=0/per_channel/intbias", "conv2d/any/n1c16h9w9-oc16k3p1g16/pairs/seed=0/per_channel"
ADD, QUA, CAT = "add/any/n4097/neartie/seed=0", "quantize/any/n2c16h9w9/edges/seed=0", "cat/any/n2h5w5-c3x8/neartie/seed=0"
POOL, ADAPTIVE = "avg_pool2d/any/n2c5h9w9-k3s2p1/neartie/seed=0", "adaptive_avg_pool2d/any/n4c33h6w5/neartie/seed=0"
MUL = "mul/any/n4097/neartie/seed=0"
PER = "quantize/any/n2c16h16w9/edges/seed=0/per_channel"

