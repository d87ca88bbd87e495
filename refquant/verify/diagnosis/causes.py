"""The table of causes that no profile can say: transformed inputs, accumulators and outputs."""

from refquant.errors import ArgumentError
from refquant.verify.diagnosis.layout_causes import LAYOUT_CAUSES
from refquant.verify.diagnosis.output_causes import OUTPUT_CAUSES
from refquant.verify.diagnosis.parameter_causes import PARAMETER_CAUSES
from refquant.verify.diagnosis.solved_causes import SOLVED_CAUSES
from refquant.verify.diagnosis.sum_causes import SUM_CAUSES

__all__ = ["CAUSES", "SOLVED"]

#: In the order in which the causes of one hypothesis are applied; what is solved from the data comes last.
CAUSES = (*LAYOUT_CAUSES, *SUM_CAUSES, *PARAMETER_CAUSES, *OUTPUT_CAUSES, *SOLVED_CAUSES)

SOLVED = frozenset(cause.name for cause in SOLVED_CAUSES)

if len({cause.name for cause in CAUSES}) != len(CAUSES):
    raise ArgumentError("diagnosis: two causes share a name; rename one")
