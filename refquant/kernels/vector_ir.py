"""A small vocabulary for machine code that LLVM cannot be talked into: vectors, addresses and loops as LLVM IR.

A function that is written with it takes addresses and counts (int64) and scalars. Vectors are ``<lanes x type>`` of LLVM,
legal on every processor; an instruction of one processor is called by its name through `Emitter.call`, and whoever
builds with it has asked `refquant.kernels.processor.cpu_features` before, which may be those of a level that is emulated.
"""

from contextlib import contextmanager
from inspect import Parameter, Signature

from llvmlite import ir
from numba.extending import intrinsic

from refquant.kernels.processor import host_features

__all__ = ["Emitter", "I1", "I8", "I16", "I32", "I64", "F32", "F64", "vector", "emitted_function"]

I1, I8, I16, I32, I64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
F32, F64 = ir.FloatType(), ir.DoubleType()
_SUFFIX = {"i1": "i1", "i8": "i8", "i16": "i16", "i32": "i32", "i64": "i64", "float": "f32", "double": "f64"}


def vector(kind, lanes):
    """The type of `lanes` values of `kind`."""
    return ir.VectorType(kind, lanes)


def _suffix(kind):
    return f"v{kind.count}{_SUFFIX[str(kind.element)]}" if isinstance(kind, ir.VectorType) else _SUFFIX[str(kind)]


class Emitter:
    """Writes the body of one LLVM function. Arguments and results are LLVM values; addresses are int64."""

    def __init__(self, builder):
        self.builder = builder
        self.module = builder.module

    def constant(self, value, kind=I64):
        """A number; for a vector type, in every lane."""
        return ir.Constant(kind, [value] * kind.count if isinstance(kind, ir.VectorType) else value)

    def _operand(self, value, kind):
        return value if isinstance(value, ir.Value) else self.constant(value, kind)

    def add(self, a, b):
        return self.builder.add(a, self._operand(b, a.type))

    def sub(self, a, b):
        return self.builder.sub(a, self._operand(b, a.type))

    def mul(self, a, b):
        return self.builder.mul(a, self._operand(b, a.type))

    def shift_right(self, a, b):
        return self.builder.ashr(a, self._operand(b, a.type))

    def shift_left(self, a, b):
        return self.builder.shl(a, self._operand(b, a.type))

    def both(self, a, b):
        return self.builder.and_(a, self._operand(b, a.type))

    def less(self, a, b):
        return self.builder.icmp_signed("<", a, self._operand(b, a.type))

    def equal(self, a, b):
        return self.builder.icmp_signed("==", a, self._operand(b, a.type))

    def has_bit(self, flags, bit):
        return self.builder.icmp_signed("!=", self.both(flags, bit), self.constant(0, flags.type))

    def smaller(self, a, b):
        b = self._operand(b, a.type)
        return self.builder.select(self.less(a, b), a, b)

    def larger(self, a, b):
        b = self._operand(b, a.type)
        return self.builder.select(self.less(a, b), b, a)

    def splat(self, value, lanes):
        kind = vector(value.type, lanes)
        first = self.builder.insert_element(ir.Constant(kind, ir.Undefined), value, self.constant(0, I32))
        return self.shuffle(first, first, [0] * lanes)

    def shuffle(self, a, b, order):
        return self.builder.shuffle_vector(a, b, ir.Constant(vector(I32, len(order)), order))

    def pointer(self, address, kind):
        return self.builder.inttoptr(address, kind.as_pointer())

    def load(self, address, kind, align=1):
        return self.builder.load(self.pointer(address, kind), align=align)

    def store(self, value, address, align=1):
        self.builder.store(value, self.pointer(address, value.type), align=align)

    def prefetch(self, address):
        """Ask for the cache line at an address, which need not exist, to be brought into the L2 cache."""
        flags = self.constant(0, I32), self.constant(2, I32), self.constant(1, I32)
        self.call("llvm.prefetch.p0", ir.VoidType(), self.pointer(address, I8), *flags)

    def in_order(self, *values):
        """The values themselves, by way of an empty line of assembly: what uses them stays behind what makes all of them, where LLVM's
        scheduler would mix the two. For vectors in registers of AVX2; elsewhere nothing is done.
        """
        kinds = [value.type for value in values]
        if "avx2" not in host_features():
            return list(values)
        constraints = ",".join(["=x"] * len(values) + [str(i) for i in range(len(values))])
        same = self.builder.asm(ir.FunctionType(ir.LiteralStructType(kinds), kinds), "", constraints, values, False)
        return [self.builder.extract_value(same, i) for i in range(len(values))]

    def _first(self, count, lanes):
        index = ir.Constant(vector(I64, lanes), list(range(lanes)))
        return self.less(index, self.splat(count, lanes))

    def load_first(self, address, kind, count):
        """Load the first `count` lanes; the others are 0 and their memory is not touched."""
        name, mask = f"llvm.masked.load.{_suffix(kind)}.p0", self._first(count, kind.count)
        return self.call(name, kind, self.pointer(address, kind), self.constant(1, I32), mask, self.constant(0, kind))

    def store_first(self, value, address, count):
        """Store the first `count` lanes."""
        kind = value.type
        if kind.element == I8 and "avx512bw" not in host_features():
            self._store_first_bytes(value, address, count)
            return
        name, mask = f"llvm.masked.store.{_suffix(kind)}.p0", self._first(count, kind.count)
        self.call(name, ir.VoidType(), value, self.pointer(address, kind), self.constant(1, I32), mask)

    def _store_first_bytes(self, value, address, count):
        """Without masks for bytes: all of them in one store, or by way of the stack in parts of 32, 16, 8, … bytes."""
        bytes_of = self.variable(value)
        source, done = self.builder.ptrtoint(bytes_of, I64), self.constant(0)
        size = 1 << (value.type.count.bit_length() - 1)  # 48 bytes are 32 and 16
        while size:
            with self.when(self.has_bit(count, size)):
                part = self.load(self.add(source, done), vector(I8, size))
                self.store(part, self.add(address, done))
            done = self.add(done, self.both(count, size))
            size //= 2

    def unary(self, name, value):
        """A function of LLVM that keeps the type: ``floor``, ``ceil``, ``trunc``, ``roundeven``, ``abs``."""
        return self.call(f"llvm.{name}.{_suffix(value.type)}", value.type, value)

    def fma(self, a, b, c):
        """``a * b + c``, rounded once."""
        return self.call(f"llvm.fma.{_suffix(a.type)}", a.type, a, b, c)

    def variable(self, value):
        """A register that loops and branches may change: a stack slot, which LLVM turns into a register."""
        with self.builder.goto_entry_block():
            slot = self.builder.alloca(value.type)
        self.builder.store(value, slot)
        return slot

    def get(self, slot):
        return self.builder.load(slot)

    def set(self, slot, value):
        self.builder.store(value, slot)

    def call(self, name, result, *args):
        """Call an LLVM intrinsic by its full name; of x86, one that the processor lacks is written out."""
        if name.startswith("llvm.x86."):
            from refquant.kernels.models import missing_here

            model = missing_here(name)
            if model is not None:
                return model(self, *args)
        function = self.module.globals.get(name)
        if function is None:
            function = ir.Function(self.module, ir.FunctionType(result, [a.type for a in args]), name)
        return self.builder.call(function, args)

    def when(self, condition):
        """Context: run the body if `condition` holds."""
        return self.builder.if_then(condition)

    def either(self, condition):
        """Context: a pair of contexts, the first for `condition`, the second for its contrary."""
        return self.builder.if_else(condition)

    @contextmanager
    def loop(self, stop, start=0, step=1):
        """Context: run the body for `start`, `start` + `step`, … below `stop`; gives the index."""
        function = self.builder.function
        head, body, end = (function.append_basic_block(name) for name in ("head", "body", "end"))
        slot = self.variable(self._operand(start, stop.type))
        self.builder.branch(head)
        self.builder.position_at_end(head)
        index = self.get(slot)
        self.builder.cbranch(self.less(index, stop), body, end)
        self.builder.position_at_end(body)
        yield index
        self.set(slot, self.add(index, step))
        self.builder.branch(head)
        self.builder.position_at_end(end)

    def channel_groups(self, channels, lanes, counts):
        """Go through channels in groups of vectors: gives (first channel, vectors, None), at the end (first, 1, channels left).

        `counts` are the sizes of groups, the greatest first, 1 the last. Each size's code stands in a loop or branch of its own.
        """
        done = self.constant(0)
        for count in counts:
            step = count * lanes
            stop = self.add(done, self.mul(self.builder.sdiv(self.sub(channels, done), self.constant(step)), step))
            with self.loop(stop, start=done, step=step) as first:
                yield first, count, None
            done = stop
        rest = self.sub(channels, done)
        with self.when(self.less(self.constant(0), rest)):
            yield done, 1, rest

    def function(self, name, result, emit, *args):
        """Call the function `name`; where the module has none yet, ``emit(emitter, *arguments)`` writes it."""
        function = self.module.globals.get(name)
        if function is None:
            function = ir.Function(self.module, ir.FunctionType(result, [a.type for a in args]), name)
            function.linkage = "internal"
            function.attributes.add("noinline")
            inner = Emitter(ir.IRBuilder(function.append_basic_block("entry")))
            value = emit(inner, *function.args)
            if value is None:
                inner.builder.ret_void()
            else:
                inner.builder.ret(value)
        return self.builder.call(function, args)


def emitted_function(name, result, kinds, emit):
    """Make a function for jitted code out of one that writes LLVM IR.

    Parameters
    ----------
    name : str
        One and the same name must mean the same code.
    result : numba type
        int64 or none.
    kinds : sequence of numba types
        Of the arguments: integers and floats.
    emit : callable
        ``emit(emitter, *arguments)`` writes the body and returns its value.
    """

    def codegen(context, builder, signature, args):
        kind = context.get_value_type(result) if result.key != "none" else ir.VoidType()
        value = Emitter(builder).function(name, kind, emit, *args)
        return context.get_dummy_value() if isinstance(kind, ir.VoidType) else value

    def definition(typingctx, *args):
        return result(*kinds), codegen

    names = ["typingctx", *(f"a{i}" for i in range(len(kinds)))]
    definition.__signature__ = Signature([Parameter(n, Parameter.POSITIONAL_OR_KEYWORD) for n in names])
    definition.__name__ = definition.__qualname__ = name
    return intrinsic(definition)
