"""The rules of refquant.isa.products against the engines, held to lower processor levels by their own switches.

One subprocess a level: PyTorch runs its oneDNN and FBGEMM kernels on saturating data, and every accumulator is compared.
Where an operator gives no accumulator, its bias is minus the predicted one: each output code must then be the zero point.
"""

import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from refquant.isa import ConvGeometry, Product, accumulate_conv, accumulate_linear, cpu, saturating_product

LEVELS = {
    # name of the run: (oneDNN's level, its switch, FBGEMM's level, its switch)
    "sse41": ("sse41", "SSE41", None, ""),
    "avx2": ("avx2", "AVX2", "avx2", "AVX2"),
    "avx512": ("avx512_vbmi" if "AVX512-VBMI" in cpu.features() else "avx512", "AVX512_CORE", "avx512", "AVX512"),
    "avx2_vnni": ("avx_vnni", "AVX2_VNNI", "avx512", "AVX512_256"),
    "avx512_vnni": ("avx512_vnni", "AVX512_CORE_VNNI", "avx512_vnni", "AVX512_E1"),
}

LINEAR = [
    (1, 3, 5), (4, 37, 17), (5, 64, 16), (33, 256, 24), (2, 1, 4), (3, 2, 4), (9, 65, 33), (1, 1023, 40), (16, 514, 1),
    (3, 257, 6), (2, 511, 8), (4, 513, 5), (1, 767, 9), (2, 769, 4),
]  # fmt: skip
CONV = [
    ("1x1", (2, 16, 5, 5), (32, 16, 1, 1), {}),
    ("1x1 odd", (1, 13, 5, 5), (7, 13, 1, 1), {}),
    ("1x1 stride", (1, 65, 6, 6), (24, 65, 1, 1), {"stride": (2, 2)}),
    ("1x1 deep", (1, 257, 4, 4), (40, 257, 1, 1), {}),
    ("3x3", (1, 16, 5, 5), (32, 16, 3, 3), {"padding": (1, 1)}),
    ("3x3 odd", (2, 5, 5, 6), (7, 5, 3, 3), {"padding": (1, 1)}),
    ("3x3 deep", (1, 129, 5, 5), (16, 129, 3, 3), {"padding": (1, 1)}),
    ("dilated", (1, 6, 8, 8), (16, 6, 3, 3), {"dilation": (2, 2), "padding": (2, 2)}),
    ("first 3x3", (1, 3, 9, 9), (64, 3, 3, 3), {"padding": (1, 1)}),
    ("first 7x7", (1, 3, 12, 12), (16, 3, 7, 7), {"stride": (2, 2), "padding": (3, 3)}),
    ("two channels", (1, 2, 8, 8), (16, 2, 3, 3), {}),
    ("1x5", (1, 7, 1, 12), (9, 7, 1, 5), {}),
    ("one channel", (1, 1, 9, 9), (16, 1, 3, 3), {"padding": (1, 1)}),
    ("one channel 5x5", (2, 1, 9, 9), (16, 1, 5, 5), {}),
    ("one channel narrow", (1, 1, 9, 4), (16, 1, 3, 3), {"padding": (1, 1)}),
    ("one channel dilated", (1, 1, 9, 9), (16, 1, 3, 3), {"dilation": (2, 2)}),
    ("one channel 1x5", (1, 1, 5, 9), (16, 1, 1, 5), {}),
    ("one channel 5x1", (1, 1, 9, 9), (16, 1, 5, 1), {}),
    ("depthwise", (1, 16, 6, 6), (16, 1, 3, 3), {"padding": (1, 1), "groups": 16}),
    ("depthwise odd", (1, 5, 6, 6), (5, 1, 3, 3), {"padding": (1, 1), "groups": 5}),
    ("depthwise 5x5", (1, 8, 7, 7), (8, 1, 5, 5), {"padding": (2, 2), "groups": 8}),
    ("depthwise twofold", (1, 8, 6, 6), (16, 1, 3, 3), {"padding": (1, 1), "groups": 8}),
    ("groups of 8", (1, 16, 6, 6), (16, 8, 3, 3), {"groups": 2}),
    ("groups of 4", (1, 8, 6, 6), (8, 4, 3, 3), {"groups": 2}),
    ("groups of 2", (1, 8, 6, 6), (8, 2, 3, 3), {"groups": 4}),
    ("groups of 3", (1, 6, 6, 6), (4, 3, 3, 3), {"padding": (1, 1), "groups": 2}),
    ("groups 8 to 6", (1, 16, 6, 6), (12, 8, 3, 3), {"groups": 2}),
]
OPTIONS = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}


def geometry_of(x_shape, w_shape, options):
    o = {**OPTIONS, **options}
    width = (x_shape[3] + 2 * o["padding"][1] - o["dilation"][1] * (w_shape[3] - 1) - 1) // o["stride"][1] + 1
    return ConvGeometry(
        o["groups"], w_shape[1], w_shape[0] // o["groups"], w_shape[2:], o["stride"], o["padding"], o["dilation"], width
    )


class Run:
    """The engines' side: only this touches torch."""

    def __init__(self):
        import warnings

        import torch

        warnings.filterwarnings("ignore")
        torch.set_num_threads(1)
        self.torch, self.rows, self.rng = torch, [], np.random.default_rng(20)

    def data(self, shape, dtype, extreme):
        info = np.iinfo(dtype)
        if extreme:
            return self.rng.choice(np.array([info.min, info.max, info.max, info.max - 1], dtype), shape)
        return self.rng.integers(info.min, info.max + 1, shape).astype(dtype)

    def record(self, engine, op, case, product, wrong, size, told_apart):
        order = "exact" if product is None else product.order + ("+128" if product.shift else "")
        self.rows.append({"engine": engine, "op": op, "case": case, "order": order, "wrong": wrong, "outputs": size, "told_apart": told_apart})

    def compare(self, engine, op, case, product, y, ref, other):
        ref, other = ref.astype(np.float32), other.astype(np.float32)
        self.record(engine, op, case, product, int((y != ref).sum()), y.size, int((ref != other).sum()))

    def pointwise_linear(self, level):
        torch = self.torch
        for (m, k, n), dtype, zero, extreme in [
            (s, d, z, e) for s in LINEAR for d in ("uint8", "int8") for z in (0, 37) for e in (False, True)
        ]:
            x, w = self.data((m, k), dtype, extreme), self.data((n, k), "int8", extreme)
            packed = torch.ops.onednn.qlinear_prepack(torch.from_numpy(w), [m, k])
            y = torch.ops.onednn.qlinear_pointwise(
                torch.from_numpy(x), 1.0, zero, packed, torch.ones(n), torch.zeros(n, dtype=torch.int32), None, 1.0, 0,
                torch.float32, "none", [], "",
            ).numpy()  # fmt: skip
            product = saturating_product("onednn", "linear", level, x_dtype=dtype, x_zero_point=zero)
            other = Product("k", shift=128 if dtype == "int8" else 0) if product is None else None
            ref, contrast = (accumulate_linear(x, w, p, x_zero_point=zero) for p in (product, other))
            self.compare("onednn", "qlinear_pointwise", f"{m},{k},{n} {dtype} zp={zero}", product, y, ref, contrast)

    def pointwise_conv(self, level):
        torch = self.torch
        for (case, x_shape, w_shape, options), zero, extreme in [(c, z, e) for c in CONV for z in (0, 200) for e in (False, True)]:
            x, w, o = self.data(x_shape, "uint8", extreme), self.data(w_shape, "int8", extreme), {**OPTIONS, **options}
            n, lists = w_shape[0], (list(o["stride"]), list(o["padding"]), list(o["dilation"]), o["groups"])
            packed = torch.ops.onednn.qconv_prepack(torch.from_numpy(w), torch.ones(n), 1.0, zero, *lists, list(x_shape))
            qx = torch.from_numpy(x).contiguous(memory_format=torch.channels_last)
            y = torch.ops.onednn.qconv_pointwise(
                qx, 1.0, zero, packed, torch.ones(n), torch.zeros(n, dtype=torch.int32), None, *lists, 1.0, 0,
                torch.float32, "none", [], "",
            ).numpy()  # fmt: skip
            product = saturating_product("onednn", "conv2d", level, geometry=geometry_of(x_shape, w_shape, options))
            other = Product("raster") if product is None else None
            ref, contrast = (accumulate_conv(x, w, p, x_zero_point=zero, **o) for p in (product, other))
            self.compare("onednn", "qconv_pointwise", f"{case} zp={zero}", product, y, ref, contrast)

    def quantized(self, values, zero=0):
        return self.torch._make_per_tensor_quantized_tensor(self.torch.from_numpy(np.ascontiguousarray(values)), 1.0, zero)

    def static_linear(self, engine, level):
        torch = self.torch
        for (m, k, n), zero in [(s, z) for s in [*LINEAR[:6], LINEAR[9]] for z in (0, 37)]:
            x, w = self.data((m, k), "uint8", False), self.data((n, k), "int8", False)
            product = saturating_product(engine, "linear", level)
            ref = accumulate_linear(x, w, product, x_zero_point=zero)
            other = accumulate_linear(x, w, None if product else Product("k"), x_zero_point=zero)
            wrong = 0
            for i in range(m):
                packed = torch.ops.quantized.linear_prepack(self.quantized(w), torch.from_numpy(-ref[i].astype(np.float32)))
                y = torch.ops.quantized.linear(self.quantized(x, zero), packed, 1.0, 128).int_repr().numpy()[i]
                wrong += int((y != 128).sum())
            self.record(engine, "quantized.linear", f"{m},{k},{n} zp={zero}", product, wrong, ref.size, int((ref != other).sum()))

    def dynamic_linear(self, level):
        """FBGEMM's float output: with activations that span 0 … 255, the scale is 1 and the result the accumulator."""
        torch = self.torch
        for m, k, n in [(s[0] + 1, *s[1:]) for s in LINEAR] + [(4, 2100, 8)]:
            x, w = self.data((m, k), "uint8", False), self.data((n, k), "int8", False)
            x[0, 0], x[-1, -1] = 0, 255
            packed = torch.ops.quantized.linear_prepack(self.quantized(w), None)
            y = torch.ops.quantized.linear_dynamic(torch.from_numpy(x.astype(np.float32)), packed, False).numpy()
            product = saturating_product("fbgemm", "linear", level)
            ref, contrast = accumulate_linear(x, w, product), accumulate_linear(x, w, None if product else Product("k"))
            self.compare("fbgemm", "quantized.linear_dynamic", f"{m},{k},{n}", product, y, ref, contrast)

    def static_conv(self, engine, level, cases, zeros):
        torch = self.torch
        for (case, x_shape, w_shape, options), zero in [(c, z) for c in cases for z in zeros]:
            x, w, o = self.data(x_shape, "uint8", False), self.data(w_shape, "int8", False), {**OPTIONS, **options}
            product = saturating_product(engine, "conv2d", level, geometry=geometry_of(x_shape, w_shape, options))
            ref = accumulate_conv(x, w, product, x_zero_point=zero, **o)
            other = accumulate_conv(x, w, None if product else Product("raster"), x_zero_point=zero, **o)
            qx = self.quantized(x, zero).contiguous(memory_format=torch.channels_last)
            lists, wrong, size, told = [list(o[k]) for k in ("stride", "padding", "dilation")], 0, 0, 0
            places = [(n, i, j) for n in range(ref.shape[0]) for i in range(ref.shape[2]) for j in range(ref.shape[3])]
            for n, i, j in places[:: max(1, len(places) // 20)]:
                bias = torch.from_numpy(-ref[n, :, i, j].astype(np.float32))
                packed = torch.ops.quantized.conv2d_prepack(self.quantized(w), bias, *lists, o["groups"])
                y = torch.ops.quantized.conv2d(qx, packed, 1.0, 128).int_repr().numpy()[n, :, i, j]
                wrong, size, told = wrong + int((y != 128).sum()), size + y.size, told + int((ref != other)[n, :, i, j].sum())
            self.record(engine, "quantized.conv2d", f"{case} zp={zero}", product, wrong, size, told)

    def everything(self, name):
        onednn, _, fbgemm, _ = LEVELS[name]
        engines = self.torch.backends.quantized
        engines.engine = "onednn"
        self.pointwise_linear(onednn)
        self.pointwise_conv(onednn)
        self.static_linear("onednn", onednn)
        self.static_conv("onednn", onednn, CONV[1:13:5], (0, 200))
        if fbgemm:
            engines.engine = "fbgemm"
            self.static_linear("fbgemm", fbgemm)
            self.dynamic_linear(fbgemm)
            self.static_conv("fbgemm", fbgemm, CONV, (0, 200))
        return self.rows


@pytest.mark.engine
@pytest.mark.parametrize("name", LEVELS)
def test_engine_saturates_as_the_rules_say(name):
    if importlib.util.find_spec("torch") is None:
        (pytest.fail if os.environ.get("REFQUANT_REQUIRE_ENGINES") == "1" else pytest.skip)("torch is not installed; pip install torch")
    onednn, onednn_switch, _, fbgemm_switch = LEVELS[name]
    if not cpu.level(onednn).extensions <= cpu.features():
        pytest.skip(f"this processor has no {onednn}")
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": onednn_switch, "FBGEMM_ENABLE_INSTRUCTIONS": fbgemm_switch}
    done = subprocess.run([sys.executable, __file__, name], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    wrong = [row for row in rows if row["wrong"]]
    assert not wrong, f"{len(wrong)} of {len(rows)} cases differ from the rule, first {wrong[0]}"
    assert sum(row["outputs"] for row in rows) > 30_000
    for engine, op in {(row["engine"], row["op"]) for row in rows}:
        told = sum(row["told_apart"] for row in rows if (row["engine"], row["op"]) == (engine, op))
        assert told > 100, f"{engine} {op}: the data could not have shown a difference"


if __name__ == "__main__":
    print(json.dumps(Run().everything(sys.argv[1])))
