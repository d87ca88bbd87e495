"""ViT-B/16 (Dosovitskiy et al., 2020), with torchvision's names."""

from math import sqrt

__all__ = ["vit_b_16"]

_LAYERS, _HEADS, _EPS = 12, 12, 1e-6


def _attention(x, width):
    tokens, heads = x.shape[1], min(_HEADS, width // 8)
    size = width // heads
    y = x.linear(3 * width, name="in_proj").reshape(None, tokens, 3, heads, size).permute(2, 0, 3, 1, 4)
    query, key, value = (y.select(0, i) for i in range(3))
    weights = ((query * (1 / sqrt(size))) @ key.transpose(-2, -1)).softmax(name="softmax")
    return (weights @ value).permute(0, 2, 1, 3).reshape(None, tokens, width).linear(width, name="out_proj")


def _layer(x, width):
    b = x.builder
    y = x.layer_norm(eps=_EPS, name="ln_1")
    with b.scope("self_attention"):
        y = _attention(y, width)
    x = y.dropout(name="dropout") + x
    y = x.layer_norm(eps=_EPS, name="ln_2")
    with b.scope("mlp"):
        y = y.linear(4 * width, name="0").gelu(name="1").dropout(name="2").linear(width, name="3").dropout(name="4")
    return x + y


def vit_b_16(x, w):
    """ViT-B/16 on (3, 224, 224): 86,567,656 parameters."""
    b, width = x.builder, w(768)
    x = x.conv2d(width, 16, stride=16, name="conv_proj")
    count = x.shape[2] * x.shape[3]
    x = x.reshape(None, width, count).permute(0, 2, 1)
    # The class token stands before the patches of every image; written as a sum, since how many images there are is open.
    x = x.pad((0, 0, 1, 0)) + b.parameter("class_token", (1, 1, width)).pad((0, 0, 0, count))
    with b.scope("encoder"):
        x = (x + b.parameter("pos_embedding", (1, count + 1, width))).dropout(name="dropout")
        for i in range(_LAYERS):
            with b.scope("layers"), b.scope(f"encoder_layer_{i}"):
                x = _layer(x, width)
        x = x.layer_norm(eps=_EPS, name="ln")
    with b.scope("heads"):
        return x.select(1, 0).linear(w(1000), name="head")
