"""Why do these bits differ? Names the smallest set of causes that turns the oracle's bits into those of a case file."""

from refquant.cli.console import paint
from refquant.cli.numbers import positive
from refquant.errors import ArgumentError
from refquant.verify.case_file import load_case, save_case

__all__ = ["EXAMPLES", "add_arguments", "run"]

EXAMPLES = """examples:
  refquant diagnose case.npz
  refquant diagnose case.npz --numerics onednn           against another profile
  refquant diagnose case.npz --separate next.npz         write data that tell equal explanations apart
  refquant diagnose --bench                              plant faults of every kind, and say how many of them are explained
  refquant diagnose --wrong-profiles                     every installed engine, taken for another one
  refquant diagnose --wrong-profiles --engine onnxruntime --numerics onnx_reference

a case file is written in Python (its format: help(refquant.verify.case_file)):
  rq.verify.save_case("case.npz", "linear", actual=their_bits, numerics="onnx", x=xq, w=wq, bias=bias, out=qp_y)

exit status: 0 every bit is explained (or agrees), 1 some are not, 2 the file cannot be used; of the bench 1 where it falls short of what it promises
"""


def add_arguments(parser):
    """Declare the options."""
    parser.add_argument("case", nargs="?", metavar="CASE.npz", help="a case file")
    parser.add_argument("--numerics", metavar="PROFILE", help="the profile to hold the bits against; the file's own unless given")
    parser.add_argument("--most", type=positive(int), default=3, metavar="N", help="the largest number of causes in a set (3)")
    parser.add_argument("--seconds", type=positive(float), default=20.0, metavar="S", help="when to stop searching (20)")
    wrong = parser.add_argument_group("engines under wrong profiles")
    wrong.add_argument("--wrong-profiles", action="store_true", help="ask real engines, hold their bits against other profiles, and explain each difference")
    wrong.add_argument("--engine", action="append", metavar="NAME", help="an engine (may be repeated)")
    wrong.add_argument("--op", action="append", metavar="OP", help="an operator (may be repeated)")
    wrong.add_argument("--cases", type=positive(int), default=2, metavar="N", help="differing cases to explain, of each operator (2)")
    parser.add_argument("--all", action="store_true", help="list the alternatives, and what was ruled out, in full")
    parser.add_argument("--separate", metavar="FILE", help="write a problem on which equal explanations differ; run your engine on it")
    planted = parser.add_argument_group("planted faults")
    planted.add_argument("--bench", action="store_true", help="diagnose planted faults, and print a table of what is found")
    planted.add_argument("--filter", metavar="TEXT", help="faults whose name or kind holds it")
    planted.add_argument("--json", metavar="OUT", help="write all figures to a file")


def run(arguments):
    """Run and return the exit status."""
    from refquant.verify.diagnosis import diagnose

    if arguments.wrong_profiles:
        from refquant.cli.wrong_profiles import explain_engines

        return explain_engines(arguments)
    if arguments.bench:
        from refquant.cli.diagnose_bench import bench

        return bench(arguments.filter, arguments.json)
    if arguments.case is None:
        raise ArgumentError("diagnose: no case file is given; give CASE.npz, --wrong-profiles to ask engines, or --bench to plant faults")
    problem, actual, profile = load_case(arguments.case)
    if actual is None:
        raise ArgumentError(f"case file {arguments.case}: has no bits to explain; add them as the entry 'actual'")
    try:
        d = diagnose(problem.op, actual=actual, numerics=arguments.numerics or profile, most=arguments.most, seconds=arguments.seconds, **problem.arguments)
    except MemoryError:
        raise ArgumentError(f"case file {arguments.case}: {problem.op} does not fit into memory; cut the problem down") from None
    for line in str(d).splitlines():
        print(paint(line, "green") if line.startswith("EXPLAINED") else paint(line, "red") if line.startswith("UNEXPLAINED") else line)
    if arguments.all:
        _print_all(d)
    if arguments.separate:
        _separate(d, arguments.separate)
    return 0 if d.explained else 1


def _print_all(d):
    if d.alternatives:
        print("\nalternatives, equal on these data")
        print("\n".join(f"  {other}" for other in d.alternatives))
    if d.ruled_out:
        print(f"\nruled out, by outputs left wrong of {d.sampled:,} sampled")
        print("\n".join(f"  {left:>7,}  {cause}" for cause, left in d.ruled_out.items()))
    if d.silent:
        print("\nchange nothing on these data")
        print("\n".join(f"  {cause}" for cause in d.silent))


def _separate(d, path):
    case = d.separating_case()
    if case is None:
        print(f"{path} was not written: {'no data that were tried tell the explanations apart' if d.alternatives else 'there is nothing to tell apart'}")
        return
    save_case(path, case.op, numerics=d.against, **case.arguments)
    print(f"{path} written: run your engine on it, add its bits as the entry 'actual', and diagnose again")
