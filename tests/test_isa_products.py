"""Which products saturate, and what the accumulators become: against loops in Python integers."""

import itertools

import numpy as np
import pytest

from refquant.errors import ArgumentError, ShapeError, UnsupportedError
from refquant.isa import ConvGeometry, Product, accumulate_conv, accumulate_linear, saturating_product
from refquant.isa.accumulate import neighbours
from refquant.isa.products import ORDERS, takes_fbgemm_depthwise


def parts(order, channels, kh, kw):
    """The witness: lists of (tap row, tap column, channel); neighbours are adjacent in a list."""
    taps = [(i, j) for i in range(kh) for j in range(kw)]
    if order == "channels":
        return [[(i, j, c) for c in range(channels)] for i, j in taps]
    if order == "rows":
        return [[(i, j, c) for j in range(kw) for c in range(channels)] for i in range(kh)]
    if order == "columns":
        return [[(i, j, c) for j in range(kw) for i in range(kh) for c in range(channels)]]
    return [[(i, j, c) for i, j in taps for c in range(channels)]]


def clamp16(v):
    return min(max(v, -32768), 32767)


def wrap32(v):
    return (v + 2**31) % 2**32 - 2**31


def half_even(v):
    q, r = divmod(v, 2)
    return q + (r and q % 2)


def conv_by_hand(x, w, product, zx, zw, stride, padding, dilation, groups):
    """One output after the other, in Python integers."""
    x, w = x.tolist(), w.tolist()
    ic, kh, kw = len(w[0]), len(w[0][0]), len(w[0][0][0])
    height, width = len(x[0][0]), len(x[0][0][0])
    oh = (height + 2 * padding[0] - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    ow = (width + 2 * padding[1] - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    out = np.empty((len(x), len(w), oh, ow), np.int32)
    for n, o, y, z in np.ndindex(out.shape):
        first = o // (len(w) // groups) * ic
        total = 0
        for part in parts(product.order if product else "raster", ic, kh, kw):
            products = []
            for i, j, c in part:
                r, s = y * stride[0] - padding[0] + i * dilation[0], z * stride[1] - padding[1] + j * dilation[1]
                inside = 0 <= r < height and 0 <= s < width
                value = x[n][first + c][r][s] if inside else zx
                weight = w[o][c][i][j]
                if product is None:
                    total += (value - zx) * (weight - zw)
                elif product.halved:
                    total += (value - zx) * (2 * half_even(weight) - zw)
                else:
                    counts = inside or product.fill == "zero_point"
                    products.append((value + product.shift) * weight if counts else 0)
                    if counts:
                        value, zero = value + product.shift, zx + product.shift
                        total -= zero * weight + (value - zero) * zw
            products += [0] * (len(products) % 2)
            total += sum(clamp16(products[k] + products[k + 1]) for k in range(0, len(products), 2))
        out[n, o, y, z] = wrap32(total)
    return out


PRODUCTS = [None, Product("raster", "zero_point"), Product("channels"), Product("columns"), Product("rows"), Product("channels", halved=True)]
GEOMETRIES = [
    ((1, 3, 5, 6), (4, 3, 3, 3), {"padding": (1, 1)}),
    ((2, 1, 6, 5), (3, 1, 3, 2), {"padding": (1, 0), "stride": (2, 1)}),
    ((1, 4, 6, 6), (4, 2, 3, 3), {"groups": 2, "dilation": (2, 1), "padding": (2, 1)}),
    ((1, 4, 4, 4), (4, 1, 3, 3), {"groups": 4, "padding": (1, 1)}),
    ((1, 5, 3, 3), (2, 5, 1, 1), {}),
]


@pytest.mark.parametrize("product", PRODUCTS, ids=lambda p: "exact" if p is None else f"{p.order}{'-halved' * p.halved}")
@pytest.mark.parametrize("x_shape, w_shape, arguments", GEOMETRIES)
@pytest.mark.parametrize("zx, zw", [(0, 0), (200, 0), (37, 5)])
def test_conv_equals_witness(x_shape, w_shape, arguments, product, zx, zw):
    rng = np.random.default_rng(zx + len(x_shape))
    x = rng.choice(np.array([0, 128, 200, 254, 255], "u1"), x_shape)
    w = rng.choice(np.array([-128, -127, 90, 126, 127], "i1"), w_shape)
    options = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1, **arguments}
    ref = conv_by_hand(x, w, product, zx, zw, **options)
    comp = accumulate_conv(x, w, product, x_zero_point=zx, w_zero_point=zw, **options)
    assert comp.dtype == np.int32 and comp.shape == ref.shape
    assert np.array_equal(ref, comp)


def linear_by_hand(x, w, product, zero, zw):
    """Python integers; K from `halves[0]` to `halves[1]` is cut behind its first half."""
    out, k = np.empty((*x.shape[:-1], len(w)), np.int32), w.shape[1]
    cut = (k + 1) // 2 if product.halves[0] <= k <= product.halves[1] else k
    for index in np.ndindex(out.shape):
        a, b = [v + product.shift for v in x[index[:-1]].tolist()], w[index[-1]].tolist()
        products, total = [p * q for p, q in zip(a, b)], 0
        for part in (products[:cut], products[cut:]):
            part = part + [0] * (len(part) % 2)
            total += sum(clamp16(part[i] + part[i + 1]) for i in range(0, len(part), 2))
        zx = zero + product.shift
        out[index] = wrap32(total - zx * sum(b) - int(zw[index[-1]]) * sum(v - zx for v in a))
    return out


@pytest.mark.parametrize("shift", [0, 128])
@pytest.mark.parametrize("k", [0, 1, 2, 3, 37, 64, 65, 66, 257, 258, 259, 260, 767, 768])
def test_linear_equals_witness(k, shift):
    rng = np.random.default_rng(k)
    dtype = "i1" if shift else "u1"
    x, w = rng.integers(0, 256, (3, 2, k)).astype("u1").view(dtype), rng.integers(-128, 128, (4, k)).astype("i1")
    zero, zw = -5 if shift else 9, np.array([0, 3, -7, 1])
    for halves in ((0, -1), (60, 70), (257, 767)):
        product = Product("k", halves=halves, shift=shift)
        ref, comp = linear_by_hand(x, w, product, zero, zw), accumulate_linear(x, w, product, x_zero_point=zero, w_zero_point=zw)
        assert comp.dtype == np.int32 and np.array_equal(ref, comp)
    exact = accumulate_linear(x, w, None, x_zero_point=zero, w_zero_point=zw)
    assert np.array_equal(exact, (x.astype(int) - zero) @ (w.astype(int) - zw[:, None]).T)


def test_a_channels_last_convolution_of_one_pixel_is_a_linear_layer():
    rng = np.random.default_rng(0)
    x, w = rng.integers(0, 256, (9, 37)).astype("u1"), rng.integers(-128, 128, (5, 37)).astype("i1")
    linear = accumulate_linear(x, w, Product("k"), x_zero_point=3)
    for order in ("raster", "channels", "k"):
        conv = accumulate_conv(x[:, :, None, None], w[:, :, None, None], Product(order), x_zero_point=3)
        assert np.array_equal(conv[:, :, 0, 0], linear)


def test_orders_are_told_apart():
    """Each two orders give different accumulators on one small case, so a wrong order cannot pass for the right one."""
    rng = np.random.default_rng(1)
    x, w = rng.integers(0, 256, (1, 3, 6, 6)).astype("u1"), rng.integers(-128, 128, (8, 3, 3, 3)).astype("i1")
    results = {order: accumulate_conv(x, w, Product(order)) for order in ORDERS if order != "k"}
    results["exact"] = accumulate_conv(x, w, None)
    for one, other in itertools.combinations(results, 2):
        assert (results[one] != results[other]).mean() > 0.05, (one, other)
    padded = [accumulate_conv(x, w, Product("raster", fill), x_zero_point=200, padding=(1, 1)) for fill in ("nothing", "zero_point")]
    assert (padded[0] != padded[1]).any()


def test_neighbours_name_every_place_once():
    for order, channels, kernel in itertools.product(ORDERS, (1, 2, 3, 8), ((1, 1), (1, 4), (3, 1), (3, 3))):
        flat = neighbours(order, channels, kernel).ravel()
        assert sorted(flat[flat >= 0].tolist()) == list(range(channels * kernel[0] * kernel[1]))


def test_halves_are_told_apart():
    rng = np.random.default_rng(2)
    x, w = rng.integers(0, 256, (20, 257)).astype("u1"), rng.integers(-128, 128, (20, 257)).astype("i1")
    cut, whole = accumulate_linear(x, w, Product("k", halves=(257, 511))), accumulate_linear(x, w, Product("k"))
    assert (cut != whole).mean() > 0.9
    assert np.array_equal(cut[:, :0], whole[:, :0]) and neighbours("k", 257, halves=(257, 511))[64].tolist() == [128, -1]


def geometry(groups=1, ic=16, oc=16, kernel=(3, 3), out_width=8, stride=(1, 1), padding=(1, 1), dilation=(1, 1)):
    return ConvGeometry(groups, ic, oc, kernel, stride, padding, dilation, out_width)


DEPTHWISE = geometry(32, 1, 1)
ONE = {"ic": 1}
EXACT = None
RULES = [
    # engine, level, geometry (None: linear), expected order
    *[("onednn", level, None, "k") for level in ("sse41", "avx2", "avx512", "avx512_vbmi")],
    *[("onednn", level, None, EXACT) for level in ("avx_vnni", "avx_vnni_int8", "avx512_vnni", "amx_int8")],
    *[("onednn", level, geometry(), "channels") for level in ("sse41", "avx2", "avx512", "avx512_vbmi")],
    *[("onednn", level, geometry(), EXACT) for level in ("avx_vnni", "avx512_vnni", "amx_int8")],
    *[("onednn", level, DEPTHWISE, EXACT) for level in ("sse41", "avx2", "avx512", "avx512_vbmi", "avx512_vnni")],
    *[("onednn", level, geometry(4, 2, 2), EXACT) for level in ("sse41", "avx2")],
    *[("onednn", level, geometry(4, 8, 6), EXACT) for level in ("sse41", "avx2")],
    *[("onednn", level, geometry(4, 4, 4), "channels") for level in ("sse41", "avx2", "avx512")],
    *[("onednn", level, geometry(4, 2, 2), "channels") for level in ("avx512", "avx512_vbmi")],
    *[("onednn", level, geometry(**ONE), EXACT) for level in ("sse41", "avx2", "avx512")],
    ("onednn", "avx512_vbmi", geometry(**ONE), "columns"),
    ("onednn", "avx512_vbmi", geometry(**ONE, out_width=4), "rows"),
    ("onednn", "avx512_vbmi", geometry(**ONE, kernel=(1, 5)), "rows"),
    ("onednn", "avx512_vbmi", geometry(**ONE, kernel=(5, 1)), "columns"),
    ("onednn", "avx512_vbmi", geometry(**ONE, dilation=(2, 2)), EXACT),
    ("onednn", "avx512_vbmi", geometry(**ONE, dilation=(2, 1)), "rows"),
    ("onednn", "avx512_vbmi", geometry(**ONE, kernel=(1, 1), padding=(0, 0)), EXACT),
    ("onednn", "avx512_vbmi", geometry(16, 1, 2), "columns"),
    *[("fbgemm", level, None, "k") for level in ("avx2", "avx_vnni", "avx_vnni_int8", "avx512", "avx512_vbmi")],
    *[("fbgemm", level, None, EXACT) for level in ("avx512_vnni", "amx_int8")],
    *[("fbgemm", level, geometry(), "raster") for level in ("avx2", "avx_vnni", "avx512")],
    *[("fbgemm", level, geometry(8, 4, 4), "raster") for level in ("avx2", "avx512")],
    ("fbgemm", "avx512_vnni", geometry(), EXACT),
    *[("fbgemm", level, DEPTHWISE, "raster") for level in ("avx2", "avx512_vnni", "amx_int8")],
    ("fbgemm", "avx512_vnni", geometry(5, 1, 1), EXACT),
    ("fbgemm", "avx2", geometry(5, 1, 1), "raster"),
    *[("onnxruntime", level, None, "k") for level in ("avx2", "avx512", "avx512_vbmi")],
    *[("onnxruntime", level, None, EXACT) for level in ("sse41", "avx_vnni", "avx_vnni_int8", "avx512_vnni", "amx_int8")],
    *[("onnxruntime", "avx2", g, "raster") for g in (geometry(), geometry(**ONE), geometry(16, 1, 2), geometry(4, 4, 4))],
    ("onnxruntime", "avx2", DEPTHWISE, EXACT),
    ("onnxruntime", "sse41", geometry(), EXACT),
]  # fmt: skip


@pytest.mark.parametrize("engine, level, shape, order", RULES)
def test_rules(engine, level, shape, order):
    product = saturating_product(engine, "linear" if shape is None else "conv2d", level, geometry=shape)
    assert (product and product.order) == order
    if product:
        assert product.fill == ("nothing" if engine == "onednn" or shape is None else "zero_point")
        assert product.evidence in ("measured", "emulated", "read") and not product.halved and product.shift == 0
        expected = {"sse41": (257, 511), "avx2": (257, 767)} if engine == "onednn" and shape is None else {}
        assert product.halves == expected.get(level, (0, -1))


def test_signed_activations():
    ask = saturating_product
    for level in ("sse41", "avx2"):
        assert ask("onednn", "linear", level, x_dtype="int8").shift == 128
        assert ask("onednn", "linear", level, x_dtype="int8", x_zero_point=3) is None
        assert ask("onednn", "conv2d", level, x_dtype="int8", geometry=geometry(4, 2, 2)) is None
    assert ask("onednn", "linear", "avx512", x_dtype="int8") is None
    for level in ("sse41", "avx2", "avx512"):
        assert ask("onednn", "conv2d", level, x_dtype="int8", geometry=geometry()).halved
        assert ask("onednn", "conv2d", level, x_dtype="int8", geometry=DEPTHWISE).halved
        assert ask("onednn", "conv2d", level, x_dtype="int8", geometry=geometry(**ONE)) is None
    assert ask("onednn", "conv2d", "avx512_vnni", x_dtype="int8", geometry=geometry()) is None
    assert ask("onnxruntime", "linear", "avx2", x_dtype="int8") is None
    with pytest.raises(UnsupportedError, match="uint8 activations only"):
        ask("fbgemm", "linear", "avx2", x_dtype="int8")


def test_halved_weights_cannot_saturate_and_lose_the_lowest_bit():
    x = np.full((1, 2, 1, 1), 127, "i1")
    for weight, expected in ((127, 128), (126, 126), (125, 124), (-127, -128), (-125, -124), (1, 0), (3, 4)):
        w = np.full((1, 2, 1, 1), weight, "i1")
        assert accumulate_conv(x, w, Product("channels", halved=True))[0, 0, 0, 0] == 2 * 127 * expected


def test_fbgemm_depthwise_rule():
    assert takes_fbgemm_depthwise(geometry(8, 1, 1)) and takes_fbgemm_depthwise(geometry(8, 1, 2, (5, 5), padding=(2, 2), stride=(2, 1)))
    for other in (
        geometry(8, 1, 3), geometry(12, 1, 1), geometry(8, 1, 1, (3, 5)), geometry(8, 1, 1, (9, 9), padding=(4, 4)),
        geometry(8, 1, 1, stride=(3, 1)), geometry(8, 1, 1, dilation=(2, 2)), geometry(8, 1, 1, padding=(0, 0)), geometry(8, 2, 1),
    ):  # fmt: skip
        assert not takes_fbgemm_depthwise(other)


def test_wrong_arguments():
    x, w = np.zeros((2, 4), "u1"), np.zeros((3, 4), "i1")
    with pytest.raises(ArgumentError, match="pass geometry"):
        saturating_product("onednn", "conv2d", "avx2")
    with pytest.raises(ArgumentError, match="op='conv'"):
        saturating_product("onednn", "conv", "avx2")
    with pytest.raises(ArgumentError, match="w int8"):
        accumulate_linear(x, w.view("u1"), None)
    with pytest.raises(ArgumentError, match="saturating_product returns"):
        accumulate_linear(x, w, "k")
    with pytest.raises(ArgumentError, match="x_dtype='int8'"):
        accumulate_linear(x.view("i1"), w, Product("k"))
    with pytest.raises(ShapeError):
        accumulate_linear(x[:, :3], w, None)
    with pytest.raises(ShapeError):
        accumulate_conv(x, w, None)
    with pytest.raises(ArgumentError, match="order='taps'"):
        neighbours("taps", 3)
