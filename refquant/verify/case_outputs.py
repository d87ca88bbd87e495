"""How many outputs a case has, by its shape alone."""

import math

__all__ = ["outputs_of", "windows_of", "elements_of"]

_MATRICES = ("linear", "linear_dynamic", "matmul_integer", "gemm", "layer_norm")
# Their answers hold scale and zero point, too.
_WITH_PARAMETERS = ("quantize_dynamic", "add_scalar", "mul_scalar")


def outputs_of(case):
    """Return the number of outputs of a case: nothing is built or solved."""
    s, op = dict(case.shape), case.op
    if op in _MATRICES:
        return s["m"] * s["n"]
    if op in _OWN:
        return _OWN[op](case, s)
    sides = [s[letter] for letter in "thw" if s.get(letter)]
    if op.startswith("adaptive_avg_pool"):
        return s["n"] * s["c"] * math.prod(_each(s["o"], len(sides)))
    if op.startswith("conv") or op.endswith(("pool1d", "pool2d", "pool3d")):
        return s["n"] * s.get("oc", s["c"]) * math.prod(_windows(case, s, sides))
    count = s["n"] * (sum(_each(s["c"], 1)) or 1) * math.prod(sides)
    return count + 2 if op in _WITH_PARAMETERS else count


def elements_of(case):
    """Return the number of elements of the largest array of a case: an input, the weights or the output.

    Examples
    --------
    >>> from refquant.verify.case import Case
    >>> elements_of(Case.parse("conv2d/any/n1c64h3w3-oc64k3/random/seed=0"))
    36864
    """
    s = dict(case.shape)
    sides = math.prod(s[letter] for letter in "thw" if s.get(letter))
    channels = sum(_each(s.get("c") or 1, 1))
    sizes = [outputs_of(case), s.get("n", 1) * channels * sides]
    if "oc" in s:
        sizes.append(s["oc"] * channels // s["g"] * math.prod(_each(s["k"], sum(bool(s.get(letter)) for letter in "thw"))))
    if "m" in s:
        stack, k = math.prod(_each(s.get("b") or 1, 1)), s.get("k", 1)
        sizes += [stack * s["m"] * k, stack * s["n"] * k, s["m"] * s["n"]]
    return max(sizes)


def windows_of(case):
    """Return how many windows of a convolution lie along each side."""
    s = dict(case.shape)
    return tuple(_windows(case, s, [s[letter] for letter in "thw" if s.get(letter)]))


def _windows(case, s, sides):
    """Yield how many windows lie along each side."""
    kernel = _each(s["k"], len(sides))
    stride = _each(s["s"], len(sides)) if s["s"] else kernel
    more = _each(s.get("op", 0), len(sides))
    for n, k, step, p, d, m in zip(sides, kernel, stride, _each(s["p"], len(sides)), _each(s.get("d", 1), len(sides)), more):
        if case.op.startswith("conv_transpose"):
            yield (n - 1) * step - 2 * p + d * (k - 1) + 1 + m
            continue
        room = n + 2 * p - d * (k - 1) - 1
        size = (-(-room // step) if case.has("ceil") else room // step) + 1
        yield size - 1 if case.has("ceil") and (size - 1) * step >= n + p else size


def _each(value, count):
    return value if isinstance(value, tuple) else (value,) * count


def _means(case, s):
    sides = [n for n in s.values() if n][:-1]
    if case.has("middle") and len(sides) > 3:
        return sides[0] * sides[3]
    if case.has("channels_last") and len(sides) > 3:
        return math.prod(sides[:2])
    return math.prod(sides[1:]) if case.has("first") else math.prod(sides[: len(sides) - min(s["r"], len(sides))])


def _embedding_bytes(case, s):
    bits = 4 if case.has("bits4") else 2 if case.has("bits2") else 8
    return s["m"] * (s["n"] * bits // 8 + (8 if bits == 8 else 4))


_OWN = {
    "attention": lambda case, s: s["n"] * s["t"] * s["g"] * s["o"],
    "lstm_dynamic": lambda case, s: (s["t"] + 2) * s["n"] * s["o"] * (2 if case.has("bidirectional") else 1),
    "embed_layer_norm": lambda case, s: s["n"] * s["t"] * s["c"],
    "matmul": lambda case, s: math.prod(_each(s["b"] or 1, 1)) * s["m"] * s["n"],
    "mean": _means,
    "interpolate": lambda case, s: s["n"] * s["c"] * math.prod(_each(s["o"], 2)),
    "quantize_embedding": _embedding_bytes,
    "embedding_bag": lambda case, s: s["n"] * (s["l"] if case.has("alone") else s["b"]),
}
