"""The pytest plugin: a test of your kernel, repeated over cases made to hurt, with the reason in words where a bit differs.

::

    import pytest
    from my_engine import my_linear                  # yours: codes and parameters in, codes out

    @pytest.mark.refquant(op="linear", numerics="fbgemm", outputs=100_000)
    def test_linear(oracle):
        x, w = oracle["x"], oracle["w"]              # QTensor: .values, .qparams.scale, .qparams.zero_point
        oracle.check(my_linear(x, w, oracle["bias"], oracle["out"], oracle["activation"]))

pytest loads it by itself where refquant is installed. Nothing but pytest is imported until a test asks for an oracle.
"""

import pytest

__all__ = ["oracle"]

_MARKER = (
    "refquant(op, numerics, outputs=50000, seed=0, cases=None): repeat the test, which takes the fixture oracle, over default cases of an operator"
    " (or several) until they have so many outputs; or over lines given as cases"
)
_OUTPUTS = 50_000


def pytest_addoption(parser):
    group = parser.getgroup("refquant", "bits of INT8 operators, held against refquant's oracle")
    group.addoption("--refquant-outputs", type=_positive, metavar="N", help="outputs that every test with the marker refquant compares, whatever it says")
    group.addoption("--refquant-seed", type=_whole, metavar="S", help="seed of their cases, whatever they say")
    group.addoption("--refquant-case", metavar="LINE", help="give such tests this case alone (those of another operator are left out)")
    group.addoption("--refquant-save", metavar="FOLDER", help="save each failing case as an .npz there, for refquant diagnose")
    group.addoption("--refquant-seconds", type=_seconds, default=5.0, metavar="S", help="time to find out why the bits of a case differ (5); 0 does not ask")


def _number(text, kind, least, rule):
    import argparse

    try:
        value = kind(text)
    except ValueError:
        value = least - 1
    if not least <= value < 1e12:
        raise argparse.ArgumentTypeError(f"{text!r} must be {rule}")
    return value


def _positive(text):
    return _number(text, int, 1, "a whole number of at least 1")


def _whole(text):
    return _number(text, int, 0, "a whole number of at least 0")


def _seconds(text):
    return _number(text, float, 0, "a number of at least 0")


def pytest_configure(config):
    config.addinivalue_line("markers", _MARKER)


def pytest_generate_tests(metafunc):
    """Give a marked test its cases; a mark that makes no sense is an error of collection."""
    marker = metafunc.definition.get_closest_marker("refquant")
    if marker is None:
        return
    place = f"refquant marker of {metafunc.definition.name}"
    if "oracle" not in metafunc.fixturenames:
        raise pytest.Collector.CollectError(f"{place}: the test must take the fixture oracle but does not; add it as an argument")
    from refquant.errors import RefquantError

    try:
        cases = _cases(place, metafunc.config, *marker.args, **marker.kwargs)
    except TypeError as error:
        raise pytest.Collector.CollectError(f"{place}: {str(error).replace('_cases()', 'it')}; write it as pytest.mark.{_MARKER.partition(':')[0]}") from None
    except RefquantError as error:
        raise pytest.Collector.CollectError(f"{place}: {error}") from None
    metafunc.parametrize("oracle", cases, indirect=True, ids=str)


def _cases(place, config, /, op=None, numerics=None, outputs=_OUTPUTS, seed=0, cases=None):
    from refquant.errors import ArgumentError
    from refquant.verify import Case, default_cases

    given = None if cases is None else [case if isinstance(case, Case) else Case.parse(case) for case in cases]
    if given is None and (op is None or numerics is None):
        raise ArgumentError("op and numerics are needed, such as op='linear', numerics='fbgemm'")
    ops = sorted({case.op for case in given}) if op is None else [op] if isinstance(op, str) else list(op)
    line = config.getoption("refquant_case")
    if line is not None:
        only = Case.parse(line)
        return [only] if only.op in ops else []
    if given is not None:
        return given
    outputs, seed = (config.getoption(name) if config.getoption(name) is not None else value for name, value in (("refquant_outputs", outputs), ("refquant_seed", seed)))
    return [case for one in ops for case in default_cases(one, numerics, outputs=outputs, seed=seed)]


@pytest.fixture
def oracle(request):
    """The problem of this test's case and the bits that are right; see `refquant.testing.oracle_of_test.OracleOfTest`."""
    from refquant.testing.oracle_of_test import OracleOfTest

    option = request.config.getoption
    return OracleOfTest(getattr(request, "param", None), test=request.node.name, folder=option("refquant_save"), seconds=option("refquant_seconds"))
