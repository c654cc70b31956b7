"""Every CUDA source compiles, for two generations of GPUs and without one, and has the kernels that are launched."""

import ast
import ctypes
import importlib.util
import pathlib
import re

import pytest
from cuda_on_cpu import SIGNATURE

import tinyseg
from tinyseg.fast.gpu import launch as cuda

PACKAGE = pathlib.Path(tinyseg.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.cu"))
LAUNCHERS = sorted(path for path in (PACKAGE / "fast" / "gpu").glob("*.py") if path.name != "launch.py")
names = {"ids": lambda path: path.relative_to(PACKAGE).as_posix()}


@pytest.fixture(scope="module")
def nvrtc():
    """NVIDIA's compiler as a library, from the wheel nvidia-cuda-nvrtc-cu12."""
    try:
        spec = importlib.util.find_spec("nvidia.cuda_nvrtc")
    except ModuleNotFoundError:
        spec = None
    folders = [] if spec is None else spec.submodule_search_locations
    libraries = [path for folder in folders for path in pathlib.Path(folder, "lib").glob("libnvrtc.so.*")]
    if not libraries:
        pytest.skip("no NVRTC: the wheel nvidia-cuda-nvrtc-cu12, for Linux on x86-64, is not installed")
    return ctypes.CDLL(str(libraries[0]))


def compiled(nvrtc, code, options):
    """Compile as CuPy does. Returns whether it worked, the compiler's remarks and the size of the program."""
    program = ctypes.c_void_p()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), code.encode(), b"code.cu", 0, None, None)
    options = [option.encode() for option in options]
    status = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    size = ctypes.c_size_t()
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    size.value = 0
    nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size))
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return status == 0, log.value.decode(), size.value


def source(path):
    """What `tinyseg.fast.gpu.launch.load` hands to the compiler."""
    return cuda.COMMON.read_text(encoding="utf-8") + path.read_text(encoding="utf-8")


def kernels_of(path):
    return {name for name, _ in SIGNATURE.findall(re.sub(r"//.*", "", path.read_text(encoding="utf-8")))}


def launched_by(path):
    """The names in ``kernel("name")``, or in an expression that chooses between names."""
    calls = (node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call))
    arguments = [call.args[0] for call in calls if ast.unparse(call.func) == "kernel"]
    found = [
        [n.value for n in ast.walk(a) if isinstance(n, ast.Constant) and isinstance(n.value, str)] for a in arguments
    ]
    assert all(found), f"{path.name}: the name of a kernel is not written out where it is launched"
    return {name for one in found for name in one}


def types_of(path):
    """What `real` may be in a source: without it, only float is asked for."""
    return list(cuda.REAL.values()) if re.search(r"\breal\b", path.read_text(encoding="utf-8")) else ["float"]


def test_the_kernels_of_activations_are_compiled_for_float16():
    """The others see parameters, losses in float32 and dropout's mask."""
    others = {"dropout", "loss", "optim", "targets", "weight_standardization"}
    assert {path.stem for path in SOURCES if types_of(path) == ["float"]} == others


@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
@pytest.mark.parametrize(
    ("path", "real"),
    [pytest.param(path, real, id=f"{names['ids'](path)}-{real}") for path in SOURCES for real in types_of(path)],
)
def test_it_compiles(path, real, arch, nvrtc):
    works, log, size = compiled(nvrtc, source(path), (*cuda.OPTIONS, f"-DREAL={real}", f"-arch={arch}"))
    assert works and size > 0, log
    assert log.strip("\0\n ") == "", log  # warnings are errors


def test_the_compiler_sees_mistakes(nvrtc):
    works, log, _ = compiled(nvrtc, 'extern "C" __global__ void f(float* x) { x[0] = y; }', cuda.OPTIONS)
    assert not works and '"y" is undefined' in log


@pytest.mark.parametrize("path", LAUNCHERS, **names)
def test_what_is_launched_is_there(path):
    file = path.with_suffix(".cu")
    names = launched_by(path)
    assert names == (kernels_of(file) if file.exists() else set())


def test_every_source_has_its_launcher():
    assert [path for path in SOURCES if path.with_suffix(".py") not in LAUNCHERS] == []


@pytest.mark.parametrize("path", SOURCES, **names)
def test_every_kernel_is_seen(path):
    """By the expression that the checks above, and the stand-in, go by."""
    code = re.sub(r"//.*", "", path.read_text(encoding="utf-8"))
    assert len(kernels_of(path)) == code.count("__global__") > 0
    assert len(code.splitlines()) <= 320
