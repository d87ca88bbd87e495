"""Damaged and hostile model files by the hundred, from a seed; and, as a program, what reads them under guard.

``python tests/hostile_files.py FOLDER`` reads every file of a folder within limits of time and memory, watched by an audit hook, and prints one line
of JSON for each: what became of it.
"""

import io
import json
import os
import pickle
import signal
import struct
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
from npz_members import members as members_of
from npz_members import npy

LIMIT_SECONDS = 5
LIMIT_BYTES = 8 << 30


class Evil:
    """What a pickle would execute."""

    def __reduce__(self):
        return exec, ("import sys; sys.modules['pwned'] = sys",)


def archive(entries, compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as out, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that come twice
        for name, content in entries:
            out.writestr(name, content)
    return buffer.getvalue()


def flipped(data, rng, bits=1):
    data = bytearray(data)
    for _ in range(bits):
        data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    return bytes(data)


def cut(data, rng):
    return data[: int(rng.integers(len(data)))]


def spliced(data, rng):
    """Take a piece out, put it in elsewhere, or fill it with noise."""
    start, length, to = (int(v) for v in rng.integers(0, [len(data), 64, len(data)]))
    piece = data[start : start + length]
    rest = data[:start] + data[start + length :]
    kind = int(rng.integers(3))
    return rest if kind == 0 else rest[:to] + piece + rest[to:] if kind == 1 else data[:start] + rng.bytes(len(piece)) + data[start + length :]


def random_damage(name, data, seed, count):
    """Yield (name, content) of damaged copies of a file."""
    for i in range(count):
        rng = np.random.default_rng([seed, i])
        kind, change = [("flip", flipped), ("flips", lambda d, r: flipped(d, r, 20)), ("cut", cut), ("splice", spliced)][i % 4]
        yield f"{kind}-{i}-{name}", change(data, rng)


def field(number, content):
    """A length-delimited field of a protobuf message."""
    length, size = len(content), b""
    while length > 127:
        size, length = size + bytes([length & 127 | 128]), length >> 7
    return bytes([number << 3 | 2]) + size + bytes([length]) + content


def nested(depth):
    """A graph in a node of a graph, and so on: an If whose attribute ``then_branch`` is the next."""
    graph = field(12, field(1, b"y"))
    for _ in range(depth):
        attribute = field(5, field(1, b"then_branch") + field(6, graph) + b"\xa0\x01\x05")
        graph = field(1, field(1, b"c") + field(2, b"y") + field(4, b"If") + attribute) + field(12, field(1, b"y"))
    return graph


def onnx_files(seed):
    """Yield damaged ONNX models: by chance, and by intent."""
    import test_onnx_damage as damage
    sound = damage.healthy()
    yield from random_damage("random.onnx", sound.SerializeToString(), seed, 80)
    for name, (change, _) in damage.DAMAGED.items():
        proto = damage.healthy()
        change(proto)
        yield f"{name.replace(' ', '_').replace(':', '')}.onnx", proto.SerializeToString()
    for i, location in enumerate(("../secret.bin", "/etc/passwd", "sub/../../secret.bin", "..\\secret.bin", "link.bin", "linked/secret.bin", "file:///etc/passwd", "\0", "pipe.bin", "missing")):
        proto = damage.healthy()
        damage.external(proto, location=location)
        yield f"outside-{i}.onnx", proto.SerializeToString()
    for depth in (8, 40, 3000):
        yield f"nested-{depth}.onnx", b"\x08\x08" + field(7, nested(depth)) + field(8, b"\x10\x0d")
    yield "many.onnx", b"\x3a" + b"\xff\xff\xff\xff\x07" + b"\x0a\x00" * 1000
    yield "pickle.onnx", pickle.dumps(Evil())


def native_files(seed):
    """Yield damaged files of refquant's own format; the texts of some are changed by intent, with the archive around them sound."""
    import test_native as native

    folder = Path(os.environ.get("HOSTILE_SCRATCH", "."))
    path = native.make_sound(folder / "sound.npz")
    yield from random_damage("random.npz", path.read_bytes(), seed + 1, 80)
    for name, (change, _) in native.CHANGED.items():
        yield f"{name.replace(' ', '_')}.npz", native.rewrite(path, change).read_bytes()
    members = list(members_of(path).items())
    text = dict(members)["model.json"]
    for name, entries in {
        "object": [*members[:-1], ("a0.npy", npy(np.array([Evil()], object), allow_pickle=True))], "pickle": [*members, ("a9.npy", pickle.dumps(Evil()))],
        "outside": [*members, ("../../evil.npy", npy([1.0]))], "absolute": [*members, ("/etc/evil.npy", npy([1.0]))], "code": [*members, ("__init__.py", b"import os")],
        "twice": [*members, members[0]], "text-twice": [("model.json", text), ("model.json", text), *members[1:]], "without-text": members[1:], "without-arrays": members[:1],
        "deep": [("model.json", b'{"a":' * 50_000 + b"1" + b"}" * 50_000)], "wide": [("model.json", b"[" + b"0," * 500_000 + b"0]")], "empty": [],
        "numbers": [("model.json", text.replace(b"127", b"1e400"))], "long-number": [("model.json", b'{"version": ' + b"7" * 100_000 + b"}")],
    }.items():
        yield f"{name}.npz", archive(entries)
    yield "bomb.npz", archive([*members, ("a9.npy", npy(np.zeros(1 << 26, np.float32)))], zipfile.ZIP_DEFLATED)
    yield "overlapping.npz", overlapping(text)
    yield "all-pickle.npz", pickle.dumps(Evil())


def prepared_files(seed):
    """Yield damaged files of prepared models; with some, the archive is sound and its arrays are others."""
    import test_native as native
    import test_native_prepared as prepared

    path = prepared.make_sound(Path(os.environ.get("HOSTILE_SCRATCH", ".")) / "prepared.npz")
    yield from random_damage("random.prepared", path.read_bytes(), seed + 3, 60)
    for name, (change, _) in prepared.CHANGED.items():
        yield f"{name.replace(' ', '_')}.prepared", native.rewrite(path, change).read_bytes()
    members = members_of(path)
    arrays = [name for name in members if name != "model.json"]
    for i, odd in enumerate((np.float32(np.nan), np.zeros(0, np.float32), np.full(8, np.inf, np.float32), np.zeros((3, 3), np.int8), np.array(True))):
        yield f"arrays-{i}.prepared", archive([("model.json", members["model.json"]), *((name, npy(odd)) for name in arrays)])
    yield "pickle.prepared", pickle.dumps(Evil())
    yield "object.prepared", archive([("model.json", members["model.json"]), *((name, npy(np.array([Evil()], object), allow_pickle=True)) for name in arrays)])


def overlapping(text, copies=2000):
    """An archive whose directory lists the same 100,000 bytes under many names."""
    data = npy(np.zeros(25_000, np.float32))
    made = bytearray(archive([("model.json", text), ("a0.npy", data)]))
    end = made.rindex(b"PK\x05\x06")
    start = struct.unpack("<I", made[end + 16 : end + 20])[0]
    directory = bytes(made[start:end])
    entry = directory[directory.index(b"PK\x01\x02", 1) :]
    more = b"".join(entry.replace(b"a0.npy", b"a%d.npy" % i) if i < 10 else entry[:28] + struct.pack("<H", len(b"a%d.npy" % i)) + entry[30:46] + b"a%d.npy" % i for i in range(1, copies))
    tail = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, copies + 1, copies + 1, len(directory + more), start, 0)
    return bytes(made[:start]) + directory + more + tail


def data_files(seed):
    """Yield damaged files of images and labels."""
    sound = archive([("x.npy", npy(np.zeros((2, 1, 8, 8), np.float32))), ("labels.npy", npy(np.arange(2)))])
    yield from random_damage("random.data", sound, seed + 2, 20)
    yield "object.data", archive([("x.npy", npy(np.array([Evil()], object), allow_pickle=True)), ("labels.npy", npy([1]))])
    yield "header.data", archive([("x.npy", b"\x93NUMPY\x01\x00")])
    yield "bomb.data", archive([("x.npy", npy(np.zeros(1, np.float32)))]).replace(b"x.npy", b"x.npz")
    yield "missing.data", archive([("y.npy", npy([1.0]))])
    yield "pickle.data", pickle.dumps(Evil())


def generate(folder, seed=0):
    """Write all files into a folder; beside it lie a secret and links to it."""
    folder = Path(folder)
    (folder / "sub").mkdir(parents=True)
    (folder.parent / "secret.bin").write_bytes(b"secret" * 288)
    (folder / "link.bin").symlink_to(folder.parent / "secret.bin")
    (folder / "linked").symlink_to(folder.parent)
    os.mkfifo(folder / "pipe.bin")
    os.environ["HOSTILE_SCRATCH"] = str(folder.parent)
    names = []
    for maker in (onnx_files, native_files, prepared_files, data_files):
        for name, content in maker(seed):
            assert name not in names, name
            names.append(name)
            (folder / name).write_bytes(content)
    return names


def read(path):
    """Read a file by its ending and run what it holds; return what one of our own models computes."""
    import refquant as rq
    from refquant.cli.drift import read_data

    if path.suffix == ".onnx":
        rq.interop.from_onnx(path).run(np.zeros((1, 2, 6, 6), np.float32))
    elif path.suffix == ".npz":
        return rq.load(path).run(np.ones((2, 3), np.float32))[0].tobytes().hex()
    elif path.suffix == ".prepared":
        return calibrated_and_converted(path)
    else:
        read_data(str(path))
    return ""


def calibrated_and_converted(path):
    """Go on with a prepared model, and return what the converted one computes."""
    import refquant as rq

    model, x = rq.load(path), np.ones((2, 3), np.float32)
    model(x)
    return rq.workflow.convert_fx(model).run(x)[0].tobytes().hex()


def watch(folder):
    """Forbid what reading a model never needs: writing, leaving the folder, starting programs, unpickling."""
    libraries = tuple(os.path.realpath(p) for p in {*sys.path, sys.prefix, sys.base_prefix, Path(__file__).resolve().parent.parent} if p)
    seen = []

    def hook(event, args):
        if event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.connect", "os.remove", "os.rename", "os.rmdir", "shutil.rmtree", "pickle.find_class"):
            seen.append(f"{event} {args[:2]}")
        if event == "open" and isinstance(args[0], str):
            writes = isinstance(args[1], str) and set(args[1]) & set("wax+") or isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            path = os.path.realpath(args[0])
            inside = path.startswith(str(folder) + os.sep)
            if writes or not (inside or path.startswith(libraries) or path.startswith(("/proc/", "/sys/", "/dev/null"))):
                seen.append(f"open {args[0]} {args[1]}")

    sys.addaudithook(hook)
    return seen


def main(folder):
    """Read every file of a folder and print what became of it."""
    import resource

    from refquant.errors import RefquantError

    folder = Path(folder).resolve()
    import refquant as rq

    sound = folder.parent / "sound.npz"
    rq.load(sound).run(np.ones((2, 3), np.float32))  # loads and compiles all that is needed
    rq.interop.from_onnx(folder.parent / "sound.onnx").run(np.zeros((1, 2, 6, 6), np.float32))
    calibrated_and_converted(folder.parent / "prepared.npz")
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT_BYTES, LIMIT_BYTES))
    seen = watch(folder)

    def stop(signum, frame):
        raise TimeoutError

    signal.signal(signal.SIGALRM, stop)
    for path in sorted(p for p in folder.iterdir() if p.is_file() and not p.is_symlink() and p.suffix != ".bin"):
        seen.clear()
        signal.alarm(LIMIT_SECONDS)
        try:
            said = read(path)
            outcome = "read"
        except RefquantError as error:
            outcome, said = "refused", str(error)
        except BaseException as error:  # noqa: B036 - whatever else escapes is what is looked for
            outcome, said = "escaped", repr(error)
        signal.alarm(0)
        print(json.dumps({"name": path.name, "outcome": outcome, "said": said[:400], "touched": list(seen), "pwned": "pwned" in sys.modules}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
