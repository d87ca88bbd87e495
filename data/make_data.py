"""Make the files of `refquant.data` anew: ``python -m refquant.data.make_data --help``."""

import argparse
import hashlib
import io
import json
import os
import sys
import time
from pathlib import Path

import numpy as np

from . import DATASETS, NETWORKS

EXAMPLES = """examples:
  python -m refquant.data.make_data                        everything, into the installed package
  python -m refquant.data.make_data digits_mobilenet       one network, trained anew
  python -m refquant.data.make_data --out /tmp/data digits glyphs
                                                           the data sets, into a folder of your own
  python -m refquant.data.make_data --measure              no training: accuracies of the bundled networks

The data sets come out the same each time. So do the networks on the same machine with the same versions and threads;
elsewhere the order of PyTorch's float sums differs, and with it the weights.
"""


def main(arguments=None):
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m refquant.data.make_data", epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Make refquant's data sets and train its networks. Needs torch and scikit-learn.")
    parser.add_argument("what", nargs="*", metavar="WHAT",
                        help=f"what to make: {', '.join([*DATASETS, *NETWORKS])} (default: all)")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent, metavar="DIR",
                        help="where the files go (default: the installed package)")
    parser.add_argument("--epochs", type=int, metavar="N", help="train for N epochs instead of the recipe's number")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="PyTorch's threads (default: 1)")
    parser.add_argument("--measure", action="store_true",
                        help="train nothing: print the FP32 and INT8 accuracies of the bundled networks")
    options = parser.parse_args(arguments)

    known = [*DATASETS, *NETWORKS]
    unknown = [name for name in options.what if name not in known]
    if unknown:
        parser.error(f"WHAT must be among {', '.join(known)}, but has {', '.join(unknown)}")
    for name in ("epochs", "threads"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1, but is {getattr(options, name)}")
    missing = _missing_packages()
    if missing:
        print(f"make_data needs {' and '.join(missing)}; install with: python -m pip install {' '.join(missing)}",
              file=sys.stderr)
        return 2

    import torch

    from refquant.errors import RefquantError

    torch.set_num_threads(options.threads)
    wanted = [name for name in known if not options.what or name in options.what]
    try:
        if options.measure:
            measure_bundled([name for name in wanted if name in NETWORKS])
        else:
            options.out.mkdir(parents=True, exist_ok=True)
            make(wanted, options.out, options.epochs)
    except (OSError, RefquantError) as error:
        print(f"make_data: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nmake_data: stopped; files already written are whole, the one in work was left as it was", file=sys.stderr)
        return 130
    return 0


def make(wanted, out, epochs):
    """Make the named data sets and networks and write each as soon as it is done."""
    from . import digits, glyphs

    makers = {"digits": digits.make_digits, "glyphs": glyphs.make_splits}
    needed = {name for name in wanted if name in DATASETS} | {NETWORKS[name] for name in wanted if name in NETWORKS}
    datasets = {name: makers[name]() for name in DATASETS if name in needed}
    for name in wanted:
        if name in DATASETS:
            write_arrays(out / f"{name}.npz", datasets[name])
            continue
        from . import architectures_torch, train

        module = train.train_network(name, epochs=epochs, arrays=datasets[NETWORKS[name]], report=Progress(name))
        write_arrays(out / f"{name}.npz", architectures_torch.get_arrays(module))
        print_accuracies(name, module, datasets[NETWORKS[name]])


def measure_bundled(names):
    """Print the accuracies of networks as they are installed."""
    from . import architectures_torch, load_arrays

    for name in names:
        print_accuracies(name, architectures_torch.load(name), load_arrays(NETWORKS[name]))


def print_accuracies(name, module, arrays):
    """FP32, weights alone on the int8 grid, and INT8 as PyTorch's FX workflow with the onednn engine makes it."""
    from . import measure

    divisor = np.float32(DATASETS[NETWORKS[name]])
    x, labels = arrays["test_images"] / divisor, arrays["test_labels"]
    calibration = arrays["calibration_images"] / divisor
    print(f"{name}: {sum(p.numel() for p in module.parameters()):,} parameters, {len(x):,} test images")
    print(f"  {'FP32':48} {measure.accuracy(module, x, labels):7.2%}")
    kinds = {True: "per channel", False: "per tensor"}
    for per_channel, kind in kinds.items():
        share = measure.accuracy(measure.quantize_weights(module, per_channel), x, labels)
        print(f"  {'int8 weights ' + kind + ', float activations':48} {share:7.2%}")
    for per_channel, kind in kinds.items():
        for bits in (8, 7):
            for histogram in (True, False):
                int8 = measure.quantize_fx(
                    module, calibration, per_channel=per_channel, activation_bits=bits, histogram=histogram)
                text = f"INT8 {kind}, {bits}-bit activations, {'Histogram' if histogram else 'MinMax'}"
                print(f"  {text:48} {measure.accuracy(int8, x, labels):7.2%}", flush=True)


def write_arrays(file, arrays):
    """Write an .npz file and its SHA-256 in the ``checksums.json`` beside it, each whole or not at all."""
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    _write_whole(file, content.getvalue())

    listing = file.with_name("checksums.json")
    checksums = json.loads(listing.read_text()) if listing.exists() else {}
    checksums[file.name] = hashlib.sha256(content.getvalue()).hexdigest()
    _write_whole(listing, (json.dumps(checksums, indent=2, sort_keys=True) + "\n").encode())
    print(f"{file}: {len(content.getvalue()):,} bytes")


def _write_whole(file, content):
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        partial.write_bytes(content)
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)


class Progress:
    """One line of progress: rewritten on a terminal, a new line at each tenth elsewhere."""

    def __init__(self, name):
        self.name = name
        self.start = time.monotonic()
        self.shown = -1
        self.interval = 100 if sys.stderr.isatty() else 10

    def __call__(self, done, total, text):
        step = done * self.interval // total
        if step == self.shown:
            return
        self.shown = step
        elapsed = time.monotonic() - self.start
        line = f"{self.name}: {done / total:4.0%}, {text}, {elapsed:.0f} s, {elapsed * (total - done) / done:.0f} s to go"
        if sys.stderr.isatty():
            print(f"\r{line:78}", end="" if done < total else "\n", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)


def _missing_packages():
    from importlib.util import find_spec

    return [package for package, module in (("torch", "torch"), ("scikit-learn", "sklearn")) if find_spec(module) is None]


if __name__ == "__main__":
    sys.exit(main())
