"""Records what PyTorch's FX workflow computes in every layer of the bundled networks: ``python tests/record_workflow_vectors.py``.

Needs torch on a CPU with AVX512-VNNI. The result, ``data/vectors/workflow_layers.json``, lets refquant be held against
PyTorch's bits where PyTorch is not installed.
"""

import hashlib
import json
from pathlib import Path

import numpy as np

from refquant import data

PATH = Path(__file__).resolve().parent.parent / "data" / "vectors" / "workflow_layers.json"
BACKENDS = ("fbgemm", "onednn", "x86", "qnnpack")
CASES = [("digits_resnet", b) for b in BACKENDS] + [("digits_mobilenet", b) for b in BACKENDS] + [("glyphs_net", "x86")]


def calibration(name):
    """The batches that observers see: 50 digits, or 32 glyphs, at a time."""
    x, _ = data.load_split(name, "calibration")
    size = 32 if name == "glyphs_net" else 50
    return [x[i : i + size] for i in range(0, min(len(x), 4 * size), size)]


def images(name):
    """What the quantized network runs on."""
    return data.load_split(name, "test")[0][:64]


def row(layer):
    """One layer as JSON: name, scale in full precision, zero point, SHA-256 of the codes in NCHW order."""
    digest = hashlib.sha256(np.ascontiguousarray(layer.codes).tobytes()).hexdigest()[:16]
    return [layer.name, float(layer.scale).hex(), int(layer.zero_point), digest]


def record():
    """Return what PyTorch computes in every case."""
    from refquant.backends import torch_fx

    out = {}
    for name, backend in CASES:
        bits = torch_fx.layer_bits(name, backend, calibration(name), images(name))
        out.setdefault(name, {})[backend] = [row(layer) for layer in bits]
    return out


def text(recorded, version):
    """Return the file's text, one layer a line."""
    networks = []
    for name, backends in recorded.items():
        parts = [f' "{b}": [\n' + ",\n".join(f"  {json.dumps(r)}" for r in rows) + "\n ]" for b, rows in backends.items()]
        networks.append(f'"{name}": {{\n' + ",\n".join(parts) + "\n}")
    return f'{{\n"torch": "{version}",\n' + ",\n".join(networks) + "\n}\n"


if __name__ == "__main__":
    import torch

    PATH.parent.mkdir(exist_ok=True)
    PATH.write_text(text(record(), torch.__version__))
