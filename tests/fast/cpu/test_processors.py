"""The tile on processors that are not here: the machine code that LLVM makes of it is read."""

import json
import os
import platform
import re
import subprocess
import sys

import pytest

X86, ARM, APPLE = "x86_64-pc-linux-gnu", "aarch64-unknown-linux-gnu", "arm64-apple-macosx14.0.0"
AVX512 = "+avx,+avx2,+fma,+avx512f"
PROCESSORS = {
    "nehalem": (X86, "+sse4.2", 4, 6),
    "goldmont-plus": (X86, "+sse4.2", 4, 6),  # Celeron and Pentium of cheap laptops
    "tremont": (X86, "+sse4.2", 4, 6),
    "sandybridge": (X86, "+avx", 8, 6),  # no multiply-add
    "haswell": (X86, "+avx,+avx2,+fma", 8, 6),
    "skylake-avx512": (X86, AVX512, 16, 12),
    "cortex-a72": (ARM, "", 4, 12),  # Raspberry Pi 4
    "cortex-a76": (ARM, "", 4, 12),  # Raspberry Pi 5
    "apple-m1": (APPLE, "", 4, 12),
}

# Prints the lanes and rows of a processor, and the machine code of its tile: of floats, or of integers.
EMIT = """
import json, sys
import llvmlite.binding as llvm
from llvmlite import ir
from numba.core.codegen import CPUCodegen

triple, cpu, features, kind = sys.argv[1:]
CPUCodegen.magic_tuple = lambda self: (triple, cpu, features)
from tinyseg.fast.cpu import simd, simd_int8, tile

size, single = ir.IntType(64), ir.FloatType()
floats, ints, bytes_ = (kind.as_pointer() for kind in (single, ir.IntType(32), ir.IntType(8)))
if kind == "floats":
    kinds = [size, size, floats, size, size, size, floats, size, floats, size, single, floats, size, ir.IntType(1)]
    rows = simd.ROWS
else:
    kinds, rows = [size, size, bytes_, size, size, bytes_, ints, floats, single, bytes_, size], simd_int8.ROWS8
module = ir.Module("tile")
module.triple = triple
function = ir.Function(module, ir.FunctionType(ir.VoidType(), kinds), "tile")
builder = ir.IRBuilder(function.append_basic_block())
if kind == "floats":
    tile.emit_tile(builder, rows, *function.args)
else:
    simd_int8.emit_tile8(builder, rows, simd_int8.DOT, *function.args)
builder.ret_void()
llvm.initialize_all_targets()
llvm.initialize_all_asmprinters()
machine = llvm.Target.from_triple(triple).create_target_machine(cpu=cpu, features=features, opt=3)
module = llvm.parse_assembly(str(module))
passes = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=3))  # as numba does
passes.getModulePassManager().run(module, passes)
print(json.dumps([simd.LANES, rows, machine.emit_assembly(module)]))
"""


@pytest.mark.parametrize(("features", "expected"), [("+sse4.2", "4 6"), ("+avx,+avx2,+fma", "8 6"), (AVX512, "16 12")])
def test_a_user_says_which_processor_to_compile_for(features, expected):
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("these are features of x86")
    code = "from tinyseg.fast.cpu import simd; print(simd.LANES, simd.ROWS)"
    environment = os.environ | {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": features}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == expected.split()


def emit(triple, cpu, features, kind):
    """Return the lanes, the rows and the machine code of a tile."""
    done = subprocess.run([sys.executable, "-c", EMIT, triple, cpu, features, kind], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def inner_loop(assembly, products):
    """Return the shortest code, from a label to a jump back to it, that multiplies."""
    loops = re.findall(r"(?=\n((\S+):.*?\n\t(?:j\w+|b\.\w+)\s+\2)\n)", assembly, re.DOTALL)
    return min((loop for loop, _ in loops if re.search(products, loop)), key=len)


@pytest.mark.parametrize("cpu", PROCESSORS)
def test_the_tile_is_a_loop_without_calls_in_which_every_sum_has_a_register(cpu):
    triple, features, lanes, rows = PROCESSORS[cpu]
    *found, assembly = emit(triple, cpu, features, "floats")
    assert found == [lanes, rows]
    loop = inner_loop(assembly, "mulps|vfmadd|fmla")
    together, products, sums = (
        len(re.findall(rf"\b{name}\b", loop)) for name in (r"(?:vfmadd\w*ps|fmla(?:\.4s)?)", "v?mulps", "v?addps")
    )
    if "+fma" not in features and triple == X86:
        assert (together, products, sums) == (0, 2 * rows, 2 * rows)
    else:
        assert (together, products, sums) == (2 * rows, 0, 0)
    assert not re.search(r"\bcall|\bbl\b|fmaf", assembly)  # a call of a function for each lane
    assert not re.search(r"\brsp\b|\bsp\b", loop)  # a sum on the stack


# Features, and how often the instructions of a product of integers stand in the loop.
OF_INTEGERS = {
    "goldmont-plus": ("+sse4.2", {"pmaddubsw": 8, "pmaddwd": 8}),
    "haswell": ("+avx,+avx2,+fma", {"vpmaddubsw": 10, "vpmaddwd": 10}),
    "alderlake": ("+avx,+avx2,+fma,+avxvnni", {"vpdpbusd": 10}),
    "skylake-avx512": (f"{AVX512},+avx512bw,+avx512vl", {"vpmaddubsw": 24, "vpmaddwd": 24}),
    "cascadelake": (f"{AVX512},+avx512bw,+avx512vl,+avx512vnni", {"vpdpbusd": 24}),
    "znver5": (f"{AVX512},+avx512bw,+avx512vl,+avx512vnni", {"vpdpbusd": 24}),
}


@pytest.mark.parametrize("cpu", OF_INTEGERS)
def test_the_tile_of_integers_takes_the_instructions_that_there_are(cpu):
    features, expected = OF_INTEGERS[cpu]
    _, _, assembly = emit(X86, cpu, features, "integers")
    loop = inner_loop(assembly, "v?pmaddubsw|vpdpbusd")
    assert {name: len(re.findall(rf"\b{name}\b", loop)) for name in expected} == expected
    assert not re.search(r"\bcall", assembly) and not re.search(r"\brsp\b", loop)  # a sum on the stack


@pytest.mark.parametrize(("cpu", "triple"), [("cortex-a76", ARM), ("apple-m1", APPLE), ("x86-64", X86)])
def test_the_tile_of_integers_compiles_elsewhere(cpu, triple):
    assert "mul" in emit(triple, cpu, "", "integers")[2]
