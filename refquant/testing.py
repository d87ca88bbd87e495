"""The door for tests outside of refquant: compare by bits, and say where and by how much bits differ.

>>> import numpy as np
>>> from refquant.testing import assert_bitexact
>>> assert_bitexact(np.uint8([1, 2]), np.uint8([1, 2]))
"""

from refquant.verify import Case, Comparison, Problem, Runner, Status, assert_bitexact, build, campaign, compare, default_cases, oracle, try_case

__all__ = ["Case", "Comparison", "Problem", "Runner", "Status", "assert_bitexact", "build", "campaign", "compare", "default_cases", "oracle", "try_case"]
