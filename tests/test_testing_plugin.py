"""The pytest plugin: cases, options, messages in words, saved files; and that it costs nothing where nobody asks it."""

import configparser
import subprocess
import sys
from pathlib import Path

import pytest

from refquant import numerics
from refquant.verify import Case, check, load_case, oracle

pytest_plugins = ["pytester"]

# The entry point has the name of the module, so that loading it twice is loading it once.
PLUGIN = "refquant.testing.pytest_plugin"

GOOD = """
    import pytest
    from refquant.verify import oracle as right

    @pytest.mark.refquant(op="linear", numerics="fbgemm", outputs=20000)
    def test_linear(oracle):
        assert oracle.expected.shape == oracle["x"].shape[:-1] + oracle["w"].shape[:1]
        oracle.check(right(oracle.problem, "fbgemm", reference=True))
"""
FAULTY = """
    import pytest
    from refquant import numerics
    from refquant.verify import oracle as right

    @pytest.mark.refquant(op="linear", numerics="fbgemm", outputs=20000)
    def test_linear(oracle):
        oracle.check(right(oracle.problem, numerics.get("fbgemm").replace(FAULT)))
"""


@pytest.fixture(scope="module", autouse=True)
def everything_imported():
    """pytester forgets what a run imported, and Numba does not survive that."""
    check(lambda problem: oracle(problem, numerics.get("fbgemm").replace(rounding="truncate")), ("linear", "relu"), numerics="fbgemm", outputs=500, seconds=2)


@pytest.fixture
def run(pytester):
    def call(source, *arguments):
        pytester.makepyfile(source)
        return pytester.runpytest("-p", PLUGIN, "-p", "no:cacheprovider", *map(str, arguments))

    return call


def test_right_bits_pass_on_every_case(run):
    result = run(GOOD, "-v")
    counts = result.parseoutcomes()
    assert counts["passed"] >= 5 and set(counts) <= {"passed", "skipped"}
    result.stdout.fnmatch_lines(["*test_linear?linear/fbgemm/*/seed=*PASSED*"])


@pytest.mark.parametrize(
    "fault, words",
    [
        ("rounding='truncate'", "EXPLAINED: truncates in place of rounding"),
        ("linear={'zero_point': 'before'}", "EXPLAINED: *adds the zero point before rounding*"),
        ("linear={'bias': 'after'}", "EXPLAINED: *bias*"),
    ],
)
def test_planted_faults_fail_with_the_reason(run, fault, words):
    result = run(FAULTY.replace("FAULT", fault), "--refquant-outputs", 30_000, "--refquant-seconds", 2)
    assert result.parseoutcomes()["failed"] >= 1
    result.stdout.fnmatch_lines(["*repeat it: pytest --refquant-case linear/fbgemm/*", "*" + words, "*DIFFERENT: * outputs differ*"])


def test_one_wrong_bit_is_found(run):
    result = run(GOOD.replace("oracle.check(right(oracle.problem, \"fbgemm\", reference=True))", "y = right(oracle.problem, 'fbgemm').copy()\n        y.flat[-1:] ^= y.dtype.kind == 'u'\n        oracle.check(y)"), "--refquant-outputs", 500)
    assert result.parseoutcomes()["failed"] >= 1
    result.stdout.fnmatch_lines(["*DIFFERENT: 1 of * outputs differ*"])


def test_the_line_of_a_failure_repeats_it_and_its_file_can_be_diagnosed(run, pytester):
    source = FAULTY.replace("FAULT", "rounding='truncate'")
    result = run(source, "--refquant-save", "failed", "--refquant-seconds", 0, "--refquant-outputs", 3000)
    assert "EXPLAINED" not in result.stdout.str()
    files = sorted(pytester.path.glob("failed/*.npz"))
    assert len(files) == result.parseoutcomes()["failed"]
    case = load_case(files[0])
    assert case.problem.op == "linear" and case.profile == "fbgemm" and case.actual is not None
    line = next(text for text in result.outlines if "--refquant-case" in text).split("--refquant-case ")[1].strip()
    assert str(Case.parse(line)) == line
    again = run(source, "--refquant-case", line)
    again.assert_outcomes(failed=1)
    assert run(source, "--refquant-case", "add/fbgemm/n9/random/seed=0").parseoutcomes() == {"skipped": 1}


def test_options_override_marks(run):
    few, many = (run(GOOD, "--refquant-outputs", n).parseoutcomes()["passed"] for n in (1, 10_000))
    assert few == 1 < many
    run(GOOD, "--refquant-seed", 7, "-v", "--refquant-outputs", 1).stdout.fnmatch_lines(["*seed=7*"])


def test_lines_and_several_operators(run):
    result = run(
        """
        import pytest
        from refquant.verify import oracle as right

        @pytest.mark.refquant(cases=["relu/onnx/n9/random/seed=1", "linear/onnx/m2k3n4/random/seed=0"])
        def test_lines(oracle):
            oracle.check(right(oracle.problem, "onnx"))

        @pytest.mark.refquant(("relu", "add"), "onnx", outputs=1)
        def test_two(oracle):
            oracle.check(right(oracle.problem, oracle.numerics))
        """
    )
    result.assert_outcomes(passed=4)


def test_a_call_of_ones_own(run):
    result = run(
        """
        import numpy as np, pytest, refquant as rq

        X = rq.QTensor(np.array([[1, 2]], np.uint8), rq.QParams(0.5, 0, "uint8"))

        def test_good(oracle):
            oracle.check(np.array([[1, 2]], np.uint8), "relu", numerics="onnx", x=X)

        def test_bad(oracle):
            oracle.check(np.array([[1, 3]], np.uint8), "relu", numerics="onnx", x=X)

        def test_without_problem(oracle):
            with pytest.raises(ValueError, match="has no marker refquant"):
                oracle.problem
            with pytest.raises(ValueError, match="name the profile"):
                oracle.check(X, "relu", x=X)

        def test_unsupported(oracle):
            oracle.check(X, "elu", numerics="tflite_ref", x=X, out=X.qparams)
        """
    )
    result.assert_outcomes(passed=2, failed=1, skipped=1)


@pytest.mark.parametrize(
    "mark, message",
    [
        ("op='linaer', numerics='fbgemm'", "*did you mean 'linear'*"),
        ("op='linear'", "*op and numerics are needed*"),
        ("op='linear', numerics='fbgem'", "*did you mean 'fbgemm'*"),
        ("op='linear', numerics='fbgemm', outptus=3", "*unexpected keyword argument 'outptus'*write it as pytest.mark.refquant(*"),
        ("cases=['linear/fbgemm']", "*must read operator/profile/shape*"),
    ],
)
def test_marks_that_make_no_sense(run, mark, message):
    result = run(f"import pytest\n\n@pytest.mark.refquant({mark})\ndef test_it(oracle):\n    pass\n")
    assert result.parseoutcomes() == {"errors": 1} or result.parseoutcomes() == {"error": 1}
    result.stdout.fnmatch_lines([message])


def test_a_mark_without_the_fixture(run):
    result = run("import pytest\n\n@pytest.mark.refquant(op='linear', numerics='fbgemm')\ndef test_it():\n    pass\n")
    result.stdout.fnmatch_lines(["*must take the fixture oracle*"])


def test_options_that_make_no_sense(run):
    result = run(GOOD, "--refquant-outputs", "none")
    assert result.ret == 4 and "must be a whole number of at least 1" in result.stderr.str()


def test_the_marker_is_listed(run):
    run(GOOD, "--markers").stdout.fnmatch_lines(["@pytest.mark.refquant(op, numerics, *"])
    assert run(GOOD, "--strict-markers", "--refquant-outputs", 1).ret == 0


def test_the_entry_point_has_the_name_of_the_module():
    config = configparser.ConfigParser()
    config.read(Path(__file__).resolve().parent.parent / "setup.cfg")
    assert f"{PLUGIN} = {PLUGIN}" in config["options.entry_points"]["pytest11"]


def test_it_is_light():
    code = "import sys, pytest, refquant.testing.pytest_plugin; print([m for m in sys.modules if m.split('.')[0] in ('numpy', 'numba') or m.startswith(('refquant.verify', 'refquant.core'))])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_collecting_cases_compiles_nothing(pytester):
    pytester.makepyfile(GOOD)
    pytester.makeconftest("def pytest_sessionfinish():\n    import sys\n    print('numba' in sys.modules, 'refquant.verify' in sys.modules)")
    result = pytester.runpytest_subprocess("-p", PLUGIN, "-p", "no:cacheprovider", "--collect-only", "-q")
    assert "False True" in result.stdout.str()
