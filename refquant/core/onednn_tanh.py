"""oneDNN's polynomials for tanh: 32 pieces of degree 6, two a binade, the first the number itself."""

import numpy as np

from refquant.core.fma import fma32

__all__ = ["onednn_tanh"]

_F = np.float32
# A row a degree, from 0 on; a column a piece. The last piece is 1.
_BITS = """
00000000 39bfffff 39ffffff 3a3ffffe 3a7ffffb 3abffff7 3affffeb 3b3fffdc 3b7fffab 3bbfff70 3bfffeab 3c3ffdc0 3c7ffaab 3cbff701 3cffeaad 3d3fdc08 3d7faacd 3dbf7081 3dfeacc9 3e3dc7fd 3e7acbf5 3eb77a9f 3eec9a9f 3f22991f 3f42f7d6 3f67b7cc 3f76ca83 3f7ebbe9 3f7fd40c 3f7fff32 3f7ffffc 3f800000
3f800000 3f800018 3f7fffe8 3f7fffda 3f7fffdc 3f7fffdc 3f7fffac 3f7fff70 3f7ffeec 3f7ffdc0 3f7ffbed 3f7ff704 3f7feff5 3f7fdbca 3f7fbfff 3f7f7041 3f7f009b 3f7dc36c 3f7c0aa8 3f7734b8 3f70a4de 3f5f1fd8 3f495493 3f18b9ec 3ed706cb 3e390b06 3d90b11f 3c21a053 3aaf7fdb 37ccc1a3 355c6733 00000000
00000000 be4e0ff1 3d25b1b1 3d6b6dab 3c9fb1d5 babff06f 3c07b3f6 bb3fc1bc 3a9f5921 bbbf06f2 bbb0f402 bc47db9e bc73d5e7 bca25bda bcfca780 bd40e07c bd7dab03 bdbe4a0f bdfb14a5 be36cc8d be6bd102 be9fe7c5 beba0f10 bec206a8 bea3c388 be277d62 bd8b7960 bc209f49 baad44ca b7c6eeac b663aa41 00000000
00000000 45b3ae96 c414eb20 c450e02e c3152b4e bead2f56 c2162e02 beb4bd5a c11a59a4 bed2f507 c020d32c 3dd0f506 bf2a75e2 bff950e3 bed47334 be809b8c beb64532 be961a5b be9b63ac bea0d4b2 be828a77 be378612 bdc20908 3d2d3957 3dd46e89 3db3f629 3d2c5e7b 3bd20403 3a59dfae 3770af45 372cc014 00000000
00000000 cc981a1b 4a7edd3d 4ab1007c 48fedd9c 41a557b5 477ee32a 422557f5 45ff3ce4 42a55641 446e0867 c33dc19a 42915214 43af4fad 4110fe88 c1099b75 3fc8a8dc bfbeaef5 be365aad 3f4d9652 3ddfa08f 3e34e9b8 3e2d07a6 3dc63567 3cdaeb78 bcd17537 bc92829c bb43ab99 b9b471dd b6baad5a b78bafc7 00000000
00000000 52f688d5 d0505c72 d08f98e3 ce505cc9 c7162b8a cc5061d6 c7162bdf ca50b37f c7162a3a c8422086 471a714e c5ece1f1 c70e3d90 c3eba94a 43e0c424 c21f4552 42217cc8 405e7dc4 c10dd401 3e96b602 bd1a6d2f bd393883 bd674682 bd310016 b961e269 3ba32495 3a7680d5 38b3173c 35a9deea 375c3f2a 00000000
00000000 d8995ed1 558285ea 55b2cd69 53028625 4bc9991f 5082898a 4b4999b3 4e02c07c 4ac99764 4b72c822 ca40c0e1 489413e4 49b12224 46134c4e c60c2d57 43c83910 c3c872d1 c186bc9e 42325bc3 bf2ffa4a 3d9a203c bc545a43 bae08fee 3c80225d 3b1fd1df ba36b9d1 b91de544 b71f100f b408e2ed b685fec8 00000000
"""
_POLYNOMIALS = np.array([[int(bits, 16) for bits in row.split()] for row in _BITS.strip().splitlines()], np.uint32).view(_F)
_BIAS, _HALF_BINADES = np.uint32(0x39800000), np.uint32(0xFFC00000)
_ITSELF_BELOW, _ONE_FROM = (np.uint32(bits).view(_F) for bits in (0x39DDB3D7, 0x41102CB3))


def onednn_tanh(x, fma=fma32):
    """Return the hyperbolic tangent of float32 numbers.

    Parameters
    ----------
    x : ndarray of float32
    fma : callable
        Computes ``a · b + c``: in one rounding, or as `refquant.core.fma.mul_add32`, where a processor has no such instruction, in two.

    Returns
    -------
    ndarray of float32
        Of NaN, 1 with its sign.

    Exactness
    ---------
    Bit-exact: of ``|x|`` what is above its half binade, a polynomial by `fma`; below 2**-11.2 x itself, from 9.01 on 1.

    Source
    ------
    oneDNN, src/cpu/x64/injectors/jit_uni_eltwise_injector.cpp, ``tanh_compute_vector_fwd``.

    Examples
    --------
    >>> onednn_tanh(np.float32([-10.0, 0.0, 0.5])).tolist()
    [-1.0, 0.0, 0.46211716532707214]
    """
    x = np.asarray(x, _F)
    size = np.abs(x)
    bits = size.view(np.uint32)
    piece = ((bits - _BIAS) & _HALF_BINADES) >> np.uint32(22) & np.uint32(31)
    with np.errstate(all="ignore"):
        r = size - (bits & _HALF_BINADES).view(_F)
        p = _POLYNOMIALS[6][piece]
        for degree in (5, 4, 3, 2, 1, 0):
            p = fma(p, r, _POLYNOMIALS[degree][piece])
    y = np.where(size < _ITSELF_BELOW, size, np.where(size < _ONE_FROM, p, _F(1)))
    return np.copysign(y, x)[()]
