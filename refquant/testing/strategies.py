"""Hypothesis strategies for tests of your own kernels: parameters, codes and whole layers that bring out numerical effects, and shrink well.

::

    from hypothesis import given, settings
    from refquant.testing import assert_bitexact, oracle, strategies

    @settings(deadline=None)                         # the oracle's first call compiles
    @given(strategies.linear_problems())
    def test_my_linear(problem):
        y = my_linear(problem["x"], problem["w"], problem["bias"], problem["out"], problem["activation"])
        assert_bitexact(y, oracle(problem, "fbgemm"))

Needs Hypothesis (``pip install 'refquant[hypothesis]'``), which is imported when a strategy is made.
"""

from refquant.testing.layer_strategies import EFFECTS, conv2d_problems, linear_problems
from refquant.testing.tensor_strategies import codes, hypothesis_modules, near_tie_scales, qparams, qtensors, scales, sizes, zero_points
from refquant.verify import build, case_stream

__all__ = ["EFFECTS", "sizes", "zero_points", "scales", "near_tie_scales", "qparams", "codes", "qtensors", "linear_problems", "conv2d_problems", "cases", "problems"]


def cases(op, numerics):
    """Return a strategy of `Case`: any shape, data strategy and options of the operator's default cases, any seed; shrinks to few outputs and seed 0.

    Parameters
    ----------
    op : str
    numerics : str
        The profile whose line the cases carry.

    Examples
    --------
    >>> from hypothesis import find, settings
    >>> once = settings(database=None, deadline=None, max_examples=1000)
    >>> find(cases("add", "onnx"), lambda case: case.has("relu") and case.outputs > 60, settings=once).seed
    0
    """
    st, _ = hypothesis_modules()
    stream = case_stream(op, numerics)
    known = sorted((next(stream) for _ in range(160)), key=lambda case: (case.outputs, len(case.options), str(case)))
    known = [case for case in known if case.strategy != "wrap"]
    return st.builds(lambda case, seed: case.replace(seed=seed), st.sampled_from(known), st.integers(0, 2**16))


def problems(op, numerics):
    """Return a strategy of `Problem` of any operator: those of `cases`."""
    return cases(op, numerics).map(build)
