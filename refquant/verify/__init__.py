"""Verification: problems, adversarial cases, comparison by bits, campaigns, golden vectors. Knows no engine.

>>> from refquant.verify import build, oracle, compare
>>> problem = build("linear/fbgemm/m64k31n100/neartie/seed=0/per_channel")
>>> comparison = compare(oracle(problem, "fbgemm"), oracle(problem, "onednn"))
>>> comparison.status, comparison.outputs
(<Status.DIFFERENT: 'DIFFERENT'>, 6400)
"""

from importlib import import_module

from refquant.verify.build import build
from refquant.verify.campaign import Row, Trial, campaign, try_case, try_problem
from refquant.verify.case import OPTIONS, STRATEGIES, Case
from refquant.verify.case_file import CaseFile, load_case, save_case
from refquant.verify.check import Check, check
from refquant.verify.compare import Comparison, Outcome, Status, assert_bitexact, compare
from refquant.verify.default_cases import STREAMS, case_stream, default_cases
from refquant.verify.golden import Vector, check_vectors, read_index, read_vectors, vectors_folder, write_vectors
from refquant.verify.mutants import Mutant, mutants
from refquant.verify.problem import Problem, from_plain, oracle, to_plain
from refquant.verify.reasons import Reason
from refquant.verify.runner import PROVENANCE, Runner, runner
from refquant.verify.shrink import Shrunk, shrink

__all__ = [
    "CAUSES", "Case", "CaseFile", "Check", "Comparison", "Diagnosis", "Explanation", "Mutant", "OPTIONS", "Outcome", "PROVENANCE", "Problem", "Reason", "Row", "Runner",
    "STRATEGIES", "STREAMS", "Shrunk", "Status", "Trial", "Vector", "assert_bitexact", "build", "campaign", "case_stream", "check", "check_vectors", "compare",
    "default_cases", "diagnose", "from_plain", "load_case", "mutants", "oracle", "read_index", "read_vectors", "runner", "save_case", "shrink", "to_plain", "try_case",
    "try_problem", "vectors_folder", "write_vectors",
]  # fmt: skip


# Loaded when asked for: diagnosis needs every operator.
_LATE = ("diagnose", "Diagnosis", "Explanation", "CAUSES")


def __getattr__(name):
    if name in _LATE:
        globals()[name] = value = getattr(import_module("refquant.verify.diagnosis"), name)
        return value
    raise AttributeError(f"module 'refquant.verify' has no attribute {name!r}")
