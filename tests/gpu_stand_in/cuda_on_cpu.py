"""CUDA kernels on a CPU: a small host for blocks and threads, and a stand-in for `cupy.RawModule`.

A kernel file is compiled by g++ with a few definitions before it. The threads of a block are fibers, run one after the
other up to the next ``__syncthreads()``; a thread that ends early while others wait at a barrier is an error, as it may
hang on a GPU. Every launch is checked against the kernel's own signature: number of arguments, types, arrays' dtypes.
"""

import ctypes
import hashlib
import pathlib
import re
import shutil
import subprocess
import tempfile

import fake_graphs
import numpy as np

HOST = r"""
#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>
#include <ucontext.h>
#define __global__
#define __device__
#define __restrict__
#define __shared__ static
using std::min; using std::max;
struct Dim { unsigned x, y, z; };
static Dim threadIdx, blockIdx, blockDim, gridDim;
static inline float __int_as_float(int bits) { float x; memcpy(&x, &bits, sizeof x); return x; }
namespace host {
// float16: sign, 5 bits of exponent (bias 15), 10 bits of mantissa.
static float from_half(unsigned short h) {
  int exponent = h >> 10 & 31, mantissa = h & 1023;
  float x = exponent == 31 ? (mantissa ? NAN : INFINITY)
          : exponent ? ldexpf(mantissa + 1024, exponent - 25) : ldexpf(mantissa, -24);
  return h >> 15 ? -x : x;
}
static unsigned short to_half(float x) {
  unsigned short sign = std::signbit(x) << 15;
  if (std::isnan(x)) return sign | 0x7e00;
  x = fabsf(x);
  if (x >= 65520) return sign | 0x7c00;  // halfway to 2^16, and above
  if (x < 6.103515625e-05f) return sign | (unsigned short)rintf(ldexpf(x, 24));  // multiples of 2^-24; rintf: to even
  int exponent;
  int mantissa = (int)rintf(ldexpf(frexpf(x, &exponent), 11));  // 1024 ... 2048
  return sign | (unsigned short)((exponent + 14 - 1) * 1024 + mantissa);  // 2048: the next exponent
}
static ucontext_t scheduler, fibers[1024];
static bool finished[1024], waiting[1024];
static int current;
static char stacks[1024][32768];
static void (*body)(void*); static void* body_args;
static void start() { body(body_args); finished[current] = true; swapcontext(&fibers[current], &scheduler); }
// Runs one block; returns false if some threads ended while others waited at a barrier.
static bool block() {
  int n = blockDim.x;
  for (int t = 0; t < n; ++t) {
    finished[t] = waiting[t] = false;
    getcontext(&fibers[t]);
    fibers[t].uc_stack.ss_sp = stacks[t]; fibers[t].uc_stack.ss_size = sizeof stacks[t]; fibers[t].uc_link = &scheduler;
    makecontext(&fibers[t], start, 0);
  }
  for (;;) {
    int ended = 0, stopped = 0;
    for (int t = 0; t < n; ++t) {
      if (!finished[t]) {
        current = t; threadIdx.x = t; waiting[t] = false;
        swapcontext(&scheduler, &fibers[t]);
      }
      ended += finished[t]; stopped += waiting[t];
    }
    if (ended == n) return true;
    if (ended) return false;
  }
}
template <class... A> int run(void (*k)(A...), unsigned* grid, unsigned threads, void** args) {
  gridDim = {grid[0], grid[1], grid[2]}; blockDim = {threads, 1, 1};
  struct Call { void (*k)(A...); void** args; } call{k, args};
  body_args = &call;
  body = [](void* p) {
    auto* c = (Call*)p;
    [&]<size_t... I>(std::index_sequence<I...>) { c->k(*(A*)c->args[I]...); }(std::index_sequence_for<A...>{});
  };
  for (unsigned z = 0; z < grid[2]; ++z) for (unsigned y = 0; y < grid[1]; ++y) for (unsigned x = 0; x < grid[0]; ++x) {
    blockIdx = {x, y, z};
    if (!block()) return 1;
  }
  return 0;
}
}
static inline void __syncthreads() {
  host::waiting[host::current] = true;
  int me = host::current;
  swapcontext(&host::fibers[me], &host::scheduler);
  threadIdx.x = me;
}
"""
SIGNATURE = re.compile(r'extern\s+"C"\s+__global__\s+void\s+(\w+)\s*\(([^)]*)\)')
DTYPES = {"float": np.float32, "double": np.float64, "int": np.int32, "unsigned char": np.uint8, "bool": np.bool_}
DTYPES |= {"long long": np.int64, "unsigned": np.uint32, "unsigned long long": np.uint64, "half": np.float16}
compiler = shutil.which("g++")


class RawModule:
    """As much of `cupy.RawModule` as tinyseg uses."""

    def __init__(self, code, options=()):
        defined = [option for option in options if option.startswith("-D")]
        real = dict(option[2:].split("=") for option in defined).get("REAL")
        self.kernels = {
            name: [_type(parameter.replace("real", real or "real")) for parameter in parameters.split(",")]
            for name, parameters in SIGNATURE.findall(re.sub(r"//.*", "", code))
        }
        runs = "".join(
            f'extern "C" int run_{name}(unsigned* g, unsigned t, void** a) {{ return host::run({name}, g, t, a); }}\n'
            for name in self.kernels
        )
        self.library = ctypes.CDLL(str(_compiled(HOST + code + runs, defined)))

    def get_function(self, name):
        types, run = self.kernels[name], getattr(self.library, f"run_{name}")

        def kernel(grid, block, args):
            assert len(args) == len(types), f"{name} takes {len(types)} arguments, got {len(args)}"
            assert len(block) == 1 and 1 <= block[0] <= 1024 and block[0] & (block[0] - 1) == 0, block
            assert all(g >= 1 for g in grid) and all(g < 65536 for g in grid[1:]), grid
            kept = [_value(name, k, a, t) for k, (a, t) in enumerate(zip(args, types, strict=True))]
            pointers = (ctypes.c_void_p * len(kept))(*(v.ctypes.data for v in kept))
            grid = (ctypes.c_uint * 3)(*(*grid, 1, 1)[:3])

            def go(*arrays, kept=kept):  # during a capture later, with these scalars and addresses
                assert run(grid, ctypes.c_uint(block[0]), pointers) == 0, f"{name}: threads ended while others waited"

            fake_graphs.change(go, *(a._host for a in args if hasattr(a, "_host")))

        return kernel


def _type(parameter):
    """``const float* x`` -> ("float", True, True): type, whether it is a pointer, whether it is read only."""
    words = parameter.replace("*", " * ").replace("__restrict__", " ").split()
    pointer, const = "*" in words, "const" in words
    return " ".join(w for w in words[: words.index("*") if pointer else -1] if w != "const"), pointer, const


def _value(name, k, a, expected):
    """One argument as an array of one element: the number, or the address."""
    kind, pointer, const = expected
    if pointer:
        if isinstance(a, np.uintp):
            assert a == 0, f"{name}: argument {k} is a number, expected an array"
            return np.array([0], np.uint64)
        host = a._host
        assert host.dtype == DTYPES[kind], f"{name}: argument {k} is {host.dtype}, expected {kind}"
        assert host.flags.c_contiguous and (const or host.flags.writeable), f"{name}: argument {k}"
        return np.array([host.ctypes.data], np.uint64)
    assert isinstance(a, np.generic) and a.dtype == DTYPES[kind], f"{name}: argument {k} is {a!r}, expected {kind}"
    return np.array([a])


def _compiled(code, defined):
    folder = pathlib.Path(tempfile.gettempdir()) / "tinyseg-cuda-on-cpu"
    folder.mkdir(exist_ok=True)
    name = hashlib.sha256("".join([code, *defined]).encode()).hexdigest()[:24]
    library = folder / f"{name}.so"
    if not library.exists():
        source, made = library.with_suffix(".cpp"), library.with_suffix(".tmp")
        source.write_text(code)
        command = [compiler, "-std=c++20", "-O1", "-shared", "-fPIC", "-Wno-unknown-pragmas", "-ffp-contract=off"]
        subprocess.run([*command, *defined, "-o", made, source], check=True)
        made.replace(library)
    return library
