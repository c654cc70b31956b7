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

# Prints the lanes and rows of a processor, and the machine code of its tile.
EMIT = """
import json, sys
import llvmlite.binding as llvm
from llvmlite import ir
from numba.core.codegen import CPUCodegen

triple, cpu, features = sys.argv[1:]
CPUCodegen.magic_tuple = lambda self: (triple, cpu, features)
from tinyseg.fast.cpu import simd

size, floats = ir.IntType(64), ir.FloatType().as_pointer()
kinds = [size, size, floats, size, size, size, floats, size, floats, size, ir.FloatType(), floats, size]
module = ir.Module("tile")
module.triple = triple
function = ir.Function(module, ir.FunctionType(ir.VoidType(), kinds), "tile")
builder = ir.IRBuilder(function.append_basic_block())
simd.emit_tile(builder, simd.ROWS, *function.args)
builder.ret_void()
llvm.initialize_all_targets()
llvm.initialize_all_asmprinters()
machine = llvm.Target.from_triple(triple).create_target_machine(cpu=cpu, features=features, opt=3)
module = llvm.parse_assembly(str(module))
passes = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=3))  # as numba does
passes.getModulePassManager().run(module, passes)
print(json.dumps([simd.LANES, simd.ROWS, machine.emit_assembly(module)]))
"""


@pytest.mark.parametrize(("features", "expected"), [("+sse4.2", "4 6"), ("+avx,+avx2,+fma", "8 6"), (AVX512, "16 12")])
def test_a_user_says_which_processor_to_compile_for(features, expected):
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("these are features of x86")
    code = "from tinyseg.fast.cpu import simd; print(simd.LANES, simd.ROWS)"
    environment = os.environ | {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": features}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == expected.split()


def inner_loop(assembly):
    """Return the shortest code, from a label to a jump back to it, that multiplies."""
    loops = re.findall(r"(?=\n((\S+):.*?\n\t(?:j\w+|b\.\w+)\s+\2)\n)", assembly, re.DOTALL)
    return min((loop for loop, _ in loops if re.search("mulps|vfmadd|fmla", loop)), key=len)


@pytest.mark.parametrize("cpu", PROCESSORS)
def test_the_tile_is_a_loop_without_calls_in_which_every_sum_has_a_register(cpu):
    triple, features, lanes, rows = PROCESSORS[cpu]
    done = subprocess.run([sys.executable, "-c", EMIT, triple, cpu, features], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *found, assembly = json.loads(done.stdout)
    assert found == [lanes, rows]
    loop = inner_loop(assembly)
    together, products, sums = (
        len(re.findall(rf"\b{name}\b", loop)) for name in (r"(?:vfmadd\w*ps|fmla(?:\.4s)?)", "v?mulps", "v?addps")
    )
    if "+fma" not in features and triple == X86:
        assert (together, products, sums) == (0, 2 * rows, 2 * rows)
    else:
        assert (together, products, sums) == (2 * rows, 0, 0)
    assert not re.search(r"\bcall|\bbl\b|fmaf", assembly)  # a call of a function for each lane
    assert not re.search(r"\brsp\b|\bsp\b", loop)  # a sum on the stack
