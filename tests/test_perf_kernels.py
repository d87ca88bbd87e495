"""Which kernel each layer runs by: rules, planted faults in them, and what the engines themselves report."""

import json
import os
import subprocess
import sys

import pytest

from refquant import perf
from refquant.errors import ArgumentError, UnsupportedError
from refquant.isa import cpu
from refquant.isa.products import ConvGeometry
from refquant.numerics import dispatch
from refquant.perf.choose_kernel import choose_kernel
from refquant.perf.layers import Layer

# The module: in refquant.perf its function has the same name.
chooser = sys.modules["refquant.perf.choose_kernel"]
VNNI, AVX2, AMX = "avx512_vnni", "avx2", "amx_int8"


def conv(ic, oc, kernel=3, groups=1, stride=1, padding=1, transposed=False, dims=2, output_padding=0, zero_points=(0,), per_channel=True):
    """Return the layer of a convolution of ic to oc channels in all, on 14x14 positions."""
    sides = [(n,) * dims for n in (kernel, stride, padding, 1)]
    geometry = ConvGeometry(groups, ic // groups, oc // groups, *sides, 14)
    m, n, k = 14**dims, oc // groups, ic // groups * kernel**dims
    return Layer(
        "c", f"conv{'_transpose' * transposed}{dims}d", "int8", "product", m * n * k * groups, m, n, k, groups, geometry, transposed, (output_padding,) * dims,
        zero_points, per_channel, 14**dims * ic, 14**dims * oc, k * oc,
    )  # fmt: skip


CASES = [
    # layer, level, engine that x86 takes, path
    (conv(64, 64), VNNI, "onednn", "conv"),
    (conv(64, 64), AMX, "onednn", "conv"),
    (conv(64, 64), AVX2, "fbgemm", "im2col"),
    (conv(64, 64), "avx_vnni", "fbgemm", "im2col"),
    (conv(64, 64), "avx512", "fbgemm", "im2col"),
    (conv(64, 64, 1, padding=0), VNNI, "onednn", "pointwise"),
    (conv(64, 64, 1, padding=0), AVX2, "fbgemm", "pointwise"),
    (conv(64, 64, 1, padding=0, stride=2), AVX2, "fbgemm", "im2col"),
    (conv(100, 100, groups=100), VNNI, "onednn", "depthwise"),
    (conv(101, 101, groups=101), VNNI, "fbgemm", "im2col"),
    (conv(104, 104, groups=104), VNNI, "fbgemm", "depthwise"),
    (conv(104, 104, groups=104, padding=0), VNNI, "fbgemm", "im2col"),
    (conv(104, 208, groups=104), VNNI, "fbgemm", "depthwise"),
    (conv(104, 104, 5, groups=104, padding=2), VNNI, "fbgemm", "depthwise"),
    (conv(256, 256, groups=32), AVX2, "fbgemm", "groupwise"),
    (conv(256, 256, groups=32, stride=2), AVX2, "fbgemm", "groupwise"),
    (conv(256, 256, groups=32, stride=3), AVX2, "fbgemm", "im2col"),
    (conv(1024, 1024, groups=32), AVX2, "fbgemm", "im2col"),
    (conv(64, 64, zero_points=(0, 3)), VNNI, "fbgemm", "im2col"),
    (conv(64, 32, 2, stride=2, padding=0, transposed=True, per_channel=False), VNNI, "onednn", "conv"),
    (conv(64, 32, 2, stride=2, padding=0, transposed=True, per_channel=True), VNNI, "fbgemm", "direct"),
    (conv(64, 32, 3, stride=2, padding=0, transposed=True, per_channel=False, output_padding=1), VNNI, "fbgemm", "im2col"),
    (conv(8, 8, dims=3, groups=8), AVX2, "fbgemm", "depthwise"),
    (conv(16, 16, dims=1), AVX2, "fbgemm", "im2col"),
    (Layer("fc", "linear", "int8", "product", 64, 1, 8, 8), VNNI, "fbgemm", "gemm"),
    (Layer("fc", "linear", "int8", "product", 64, 1, 8, 8), AMX, "fbgemm", "gemm"),
    (Layer("a", "add", "int8", "moving"), VNNI, "aten", "elementwise"),
]  # fmt: skip


def wrong_cases(choose=choose_kernel):
    """Return the cases for which a chooser says otherwise."""
    kernels = [choose(layer, "x86", level) for layer, level, _, _ in CASES]
    return [(case[2:], k.engine, k.path) for case, k in zip(CASES, kernels) if (k.engine, k.path) != case[2:]]


def test_x86_chooses_by_its_rule():
    assert wrong_cases() == []
    for layer, level, engine, _ in CASES:
        assert choose_kernel(layer, "onednn", level).engine in ("onednn", "aten") and choose_kernel(layer, "fbgemm", level).engine in ("fbgemm", "aten")


FAULTS = {
    "99 groups at most": lambda rule, **k: rule(**{**k, "groups": k["groups"] + 1}),
    "101 groups": lambda rule, **k: rule(**{**k, "groups": k["groups"] - 1}),
    "zero points do not matter": lambda rule, **k: rule(**{**k, "zero_points": (0,)}),
    "output padding does not matter": lambda rule, **k: rule(**{**k, "output_padding": ()}),
    "per channel does not matter": lambda rule, **k: rule(**{**k, "per_channel_transposed": False}),
    "VNNI does not matter": lambda rule, **k: rule(**{**k, "vnni": True}),
    "yes and no exchanged": lambda rule, **k: not rule(**k),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_rule_is_found(fault, monkeypatch):
    monkeypatch.setattr(chooser, "uses_onednn", lambda **k: FAULTS[fault](dispatch.uses_onednn, **k))
    assert wrong_cases()


@pytest.mark.parametrize("name", ["takes_groupwise", "takes_pointwise", "takes_fbgemm_depthwise", "takes_fbgemm_direct"])
def test_a_fault_in_a_kernels_own_rule_is_found(name, monkeypatch):
    monkeypatch.setattr(chooser, name, lambda *a: False)
    assert wrong_cases()


def test_reasons_name_every_condition_that_fails():
    layer = conv(202, 202, groups=101, zero_points=(1,), transposed=True, output_padding=1)
    reasons = chooser.why_not_onednn(layer, AVX2, linux=False)
    assert len(reasons) == 6 and "more than 100 groups" in reasons
    assert choose_kernel(conv(64, 64), "x86", VNNI, linux=False).reason.startswith("not oneDNN: the system is not Linux")


def test_avx_vnni_is_not_enough_for_x86_but_for_onednn():
    assert choose_kernel(conv(64, 64), "x86", "avx_vnni").unit == "pairs"
    assert choose_kernel(conv(64, 64), "onednn", "avx_vnni").unit == "dot"


@pytest.mark.parametrize(
    "layer, level, name",
    [
        (conv(6, 6, groups=2), "avx2", "ref:any"),
        (conv(8, 8, groups=2), "avx2", "jit_uni_int8:avx2"),
        (conv(6, 6, groups=2), "avx_vnni", "brg_conv_fwd:avx2_vnni"),
        (conv(8, 8, groups=2), "avx_vnni", "jit_uni_int8:avx2_vnni"),
        (conv(64, 64), "avx_vnni", "brg_conv_fwd:avx2_vnni"),
        (conv(8, 8, dims=3, groups=8), "avx512", "jit_int8:avx512_core"),
        (conv(8, 8, dims=3, groups=8), VNNI, "brg_conv_fwd:avx512_core_vnni"),
        (conv(8, 8, groups=8), AMX, "brdgmm_dw:avx512_core_vnni"),
        (conv(64, 64), AMX, "brg_conv_fwd:avx512_core_amx"),
        (Layer("fc", "linear", "int8", "product", 64, 1, 8, 8), "sse41", "gemm:jit"),
        (Layer("fc", "linear", "int8", "product", 64, 1, 8, 8), "avx_vnni", "brg_matmul:avx2_vnni"),
    ],
)
def test_onednn_takes_the_kernels_of_its_profile_on_each_level(layer, level, name):
    assert choose_kernel(layer, "onednn", level).name == name


def test_engines_and_levels_without_kernels_are_refused():
    with pytest.raises(ArgumentError, match="did you mean 'fbgemm'"):
        choose_kernel(conv(8, 8), "fbgem", VNNI)
    with pytest.raises(UnsupportedError, match="fbgemm has no known INT8 kernels on sse41"):
        choose_kernel(conv(8, 8), "x86", "sse41")


# --- the engines themselves: what oneDNN says that it ran

_ASK = """
import sys, json, torch
torch.set_num_threads(1)
x8 = lambda *shape: torch.quantize_per_tensor(torch.rand(*shape), 0.01, 3, torch.quint8)
for c in json.loads(sys.argv[1]):
    torch.backends.quantized.engine = c["engine"]
    print("CASE", flush=True)
    w = torch.quantize_per_tensor(torch.rand(*c["w"]), 0.01, 0, torch.qint8)
    if c["op"] == "linear":
        packed = torch.ops.quantized.linear_prepack(w, None)
        torch.ops.quantized.linear(x8(7, c["w"][1]), packed, 0.1, 1)
    else:
        packed = torch.ops.quantized.conv2d_prepack(w, None, [c["stride"]] * 2, [c["padding"]] * 2, [1, 1], c["groups"])
        x = x8(1, c["w"][1] * c["groups"], 14, 14).contiguous(memory_format=torch.channels_last)
        torch.ops.quantized.conv2d(x, packed, 0.1, 1)
"""
_ASKED = [
    conv(64, 64), conv(64, 64, 1, padding=0), conv(64, 64, 1, padding=0, stride=2), conv(3, 64, 7, padding=3, stride=2), conv(64, 64, groups=64),
    conv(64, 128, groups=64), conv(64, 64, groups=8), conv(6, 6, groups=2), conv(64, 64, groups=4), conv(101, 101, groups=101), conv(100, 100, groups=100),
    conv(64, 64, 1, padding=0, groups=4), Layer("fc", "linear", "int8", "product", 64, 7, 32, 64),
]  # fmt: skip


def what_ran(engines, layers, switch=None):
    """Return {engine: the implementation that oneDNN reports for each layer, None where it ran nothing}, all in one process."""
    asked = []
    for engine in engines:
        for layer in layers:
            g = layer.geometry
            w = (layer.n, layer.k) if g is None else (g.oc * g.groups, g.ic, *g.kernel)
            more = {} if g is None else {"stride": g.stride[0], "padding": g.padding[0], "groups": g.groups}
            asked.append({"engine": engine, "op": layer.op, "w": w, **more})
    environment = {**os.environ, "ONEDNN_VERBOSE": "1", "OMP_NUM_THREADS": "1", **({"ONEDNN_MAX_CPU_ISA": switch} if switch else {})}
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", _ASK, json.dumps(asked)], capture_output=True, text=True, env=environment, check=True)
    found = []
    for line in run.stdout.splitlines():
        fields = line.split(",")
        if line == "CASE":
            found.append(None)
        elif len(fields) > 6 and fields[3] == "exec" and fields[5] in ("convolution", "matmul"):
            found[-1] = fields[6]
    assert len(found) == len(asked)
    return {engine: found[i * len(layers) : (i + 1) * len(layers)] for i, engine in enumerate(engines)}


def against_the_engine(engine, level, ran, choose=choose_kernel):
    """Return the layers for which another kernel ran than predicted; names of kernels count where they have been seen before."""
    wrong = []
    for layer, name in zip(_ASKED, ran):
        kernel = choose(layer, engine, level)
        same = (name is not None) == (kernel.engine == "onednn")
        if same and name is not None and level in ("sse41", "avx2"):
            same = name == kernel.name
        wrong += [] if same else [(layer.geometry, kernel.name, name)]
    return wrong


@pytest.mark.engine
def test_engines_run_the_kernels_that_are_predicted():
    pytest.importorskip("torch")
    level = cpu.running_level()
    for engine, ran in what_ran(perf.ENGINES, _ASKED).items():
        assert against_the_engine(engine, level, ran) == []
        # What another engine would have run is found out.
        assert against_the_engine(engine, level, [None if name else "jit_uni_int8:avx2" for name in ran])


@pytest.mark.engine
def test_onednn_runs_the_kernels_that_are_predicted_on_sse41():
    pytest.importorskip("torch")
    ran = what_ran(["onednn"], _ASKED, "SSE41")["onednn"]
    assert against_the_engine("onednn", "sse41", ran) == []
    assert against_the_engine("onednn", "avx2", ran)
