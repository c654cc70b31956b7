"""The C program, compiled by this machine's compilers and run: beside the model, `Predictor` and `tinyseg.data`."""

import ctypes
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tests.export.networks import CASES, trained_like
from tests.scripts import REAL
from tinyseg import no_grad
from tinyseg.data import em_sections
from tinyseg.data.resample import resample, restore
from tinyseg.export.c import program as c_program
from tinyseg.export.c.weights import HEADER, pack
from tinyseg.export.checking import NotRunError
from tinyseg.export.describing import describe
from tinyseg.prediction.predictor import Predictor, labels

SOURCES = pathlib.Path(c_program.__file__).parent
STRICT = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror"]
COMPILERS = [name for name in ("gcc", "clang") if shutil.which(name)]
pytestmark = pytest.mark.skipif(not COMPILERS, reason="there is neither gcc nor clang here")

CALLS = r"""
#include "image.h"
#include "network.h"
size_t size_of_network(void) { return sizeof(struct network); }
void resampled(const double *x, int H, int W, double *y, int h, int w, int integer, int single, double *memory)
{ resample_image(x, H, W, y, h, w, integer, single, memory); }
void restored(const float *p, int h, int w, float *y, int H, int W) { restore_image(p, h, w, y, H, W); }
void standardized(const double *x, float *y, long n) { standardize_image(x, y, n); }
void probabilities(const float *l, long n, int classes, float *p) { find_probabilities(l, n, classes, p); }
"""


def address(array):
    return array.ctypes.data_as(ctypes.c_void_p)


class Library:
    """network.c and image.h as a library of functions."""

    def __init__(self, compiler, folder):
        (folder / "calls.c").write_text(CALLS)
        words = [compiler, *STRICT, "-O3", "-shared", "-fPIC", f"-I{SOURCES}", SOURCES / "network.c"]
        subprocess.run([*words, folder / "calls.c", "-o", folder / "calls.so", "-lm"], check=True)
        self.calls = ctypes.CDLL(str(folder / "calls.so"))
        self.calls.network_memory.restype = ctypes.c_double
        self.calls.network_open.restype = ctypes.c_char_p
        self.calls.size_of_network.restype = ctypes.c_size_t

    def open(self, content):
        """Return the opened network, with the file that it points into, or the sentence that says what is wrong."""
        file = np.frombuffer(content, np.uint8).copy()
        network = ctypes.create_string_buffer(self.calls.size_of_network())
        wrong = self.calls.network_open(network, address(file), ctypes.c_size_t(len(content)))
        return wrong.decode() if wrong else (network, file)

    def run(self, network, x):
        """Return the logits of x (C, H, W), and check that nothing was written behind the working memory."""
        opened, _ = self.open(pack(network))
        C, H, W = x.shape
        image, logits = np.ascontiguousarray(x.transpose(1, 2, 0)), np.zeros((H, W, network.num_classes), np.float32)
        numbers = int(self.calls.network_memory(opened, H, W)) // 4
        memory = np.full(numbers + 1000, 7, np.float32)
        self.calls.network_run(opened, address(image), address(logits), H, W, address(memory))
        assert (memory[numbers:] == 7).all()
        return logits.transpose(2, 0, 1)


@pytest.fixture(scope="module", params=COMPILERS)
def library(request, tmp_path_factory):
    return Library(request.param, tmp_path_factory.mktemp("library"))


@pytest.mark.parametrize("options", CASES, ids=lambda o: "-".join(map(str, o.values())))
def test_c_gives_the_logits_of_the_model(library, options):
    model = trained_like(**options)
    x = np.random.default_rng(1).normal(size=(model.in_channels, 5 * model.multiple, 3 * model.multiple))
    with no_grad():
        expected = model(x[None].astype(np.float32)).data[0]
    found = library.run(describe(model), x.astype(np.float32))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * max(1, abs(expected).max() / 10))


@pytest.mark.parametrize("size", [(37, 53), (64, 20)], ids=str)
@pytest.mark.parametrize("target", [(37, 20), (18, 27), (9, 90), (64, 21), (5, 3), (100, 111)], ids=str)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64"])
def test_c_resamples_as_the_training_does(library, size, target, dtype):
    rng = np.random.default_rng(2)
    image = rng.normal(size=size) if dtype[0] == "f" else rng.integers(0, np.iinfo(dtype).max, size, endpoint=True)
    image = image.astype(dtype)
    x, y, memory = image.astype(np.float64), np.zeros(target), np.zeros((2, *size))
    integer, single = image.dtype.kind != "f", dtype == "float32"
    library.calls.resampled(address(x), *size, address(y), *target, integer, single, address(memory))
    expected = resample(image, target).astype(np.float64)
    if integer:  # a sum that ends in a half may be rounded to either side
        assert (y == expected).mean() > 0.999 and abs(y - expected).max() <= 1
    else:
        np.testing.assert_allclose(y, expected, rtol=0, atol=1e-6 if single else 1e-12)


@pytest.mark.parametrize(("small", "size"), [((9, 14), (18, 27)), ((20, 30), (13, 30)), ((1, 7), (5, 3))], ids=str)
def test_c_restores_as_prediction_does(library, small, size):
    p = np.random.default_rng(3).random(small, dtype=np.float32)
    y = np.zeros(size, np.float32)
    library.calls.restored(address(p), *small, address(y), *size)
    np.testing.assert_allclose(y, restore(p, size), rtol=0, atol=1e-6)


def test_a_section_of_one_grey_value_becomes_zeros(library):
    x, y = np.full(77, 0.1), np.ones(77, np.float32)
    library.calls.standardized(address(x), address(y), ctypes.c_long(77))
    assert (y == 0).all()


def test_large_logits_become_probabilities(library):
    logits = np.array([[1000, -1000, 0], [-5, 3, 3]], np.float32)
    p = np.zeros((3, 2), np.float32)
    library.calls.probabilities(address(logits), ctypes.c_long(2), 3, address(p))
    np.testing.assert_allclose(p.T, [[1, 0, 0], [1.677e-4, 0.49992, 0.49992]], rtol=1e-3)
    one = np.zeros((1, 2), np.float32)
    library.calls.probabilities(address(np.array([[-1000], [1000]], np.float32)), ctypes.c_long(2), 1, address(one))
    np.testing.assert_array_equal(one, [[0, 1]])


def test_the_page_has_an_exponential_of_its_own(tmp_path):
    (tmp_path / "heap.c").write_text("unsigned char __heap_base;")
    words = [COMPILERS[0], "-w", "-O2", "-shared", "-fPIC", "-Wl,-Bsymbolic", SOURCES / "page.c", SOURCES / "network.c"]
    subprocess.run([*words, tmp_path / "heap.c", "-o", tmp_path / "page.so", "-lm"], check=True)
    exp = ctypes.CDLL(str(tmp_path / "page.so")).exp
    exp.restype, exp.argtypes = ctypes.c_double, [ctypes.c_double]
    x = np.linspace(-700, 709, 10007)
    np.testing.assert_allclose([exp(value) for value in x], np.exp(x), rtol=2e-15)
    assert [exp(value) for value in (0, -800, 800, np.inf, -np.inf)] == [1, 0, np.inf, np.inf, 0] and np.isnan(
        exp(np.nan)
    )
    assert exp(-744.0) == pytest.approx(np.exp(-744.0), rel=0.5)  # what is left of a number's digits there


def test_a_damaged_header_is_refused_and_never_run(library):
    """Each of the words that describe the network, changed: what is opened has as many weights as the file holds."""
    content = pack(describe(trained_like(name="sdunet", width=4, levels=2)))
    assert isinstance(library.open(content), tuple)
    assert "shorter" in library.open(content[: HEADER.size - 1])
    assert "length" in library.open(content[:-4]) and "length" in library.open(content + b"0000")
    words = np.frombuffer(content[: HEADER.size], "<i4")
    for k in range(8):
        for value in {0, 1, 2, 3, 5, -1, 17, 2**30, -(2**31)} - {int(words[k])}:
            changed = words.copy()
            changed[k] = value
            assert isinstance(library.open(changed.tobytes() + content[HEADER.size :]), str), (k, value)


def predictor_of(model, scale=1.0, standardize="section"):
    model.meta = {"preprocessing": {"scale": scale, "standardize": standardize}}
    return Predictor(model)


def build(folder, predictor, compiler, *options):
    """Write the program, and compile it as the user is told to, with further options."""
    c_program.write_c(folder, predictor)
    words = [*compiler, *options, folder / "network.c", folder / "main.c", "-lm", "-o", folder / "segment"]
    subprocess.run(list(map(str, words)), check=True)
    return [str(folder / "segment")]


def segment(program, folder, images, *more):
    """Run the program on images (N, H, W); return its masks and what it printed."""
    c_program.write_pgm(folder / "image.pgm", images)
    files = [str(folder / name) for name in ("weights.bin", "image.pgm", "mask.pgm")]
    done = subprocess.run([*program, *files, *more], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return c_program.read_pgm(folder / "mask.pgm"), done


def sections_of(n, dtype="uint8"):
    """Synthetic sections (n, 96, 96) over the range of a type of integers."""
    images = em_sections(num_sections=n, size=96, seed=4)[0].astype(float)
    return ((images - images.min()) / np.ptp(images) * np.iinfo(dtype).max).astype(dtype)


def masks_of(predictor, sections):
    """What tinyseg gives for sections (S, C, H, W), and where it is in no doubt."""
    predictor.take_statistics(sections)
    p = np.stack([predictor(section) for section in sections])
    first, second = np.sort(p, axis=1)[:, -1], np.sort(p, axis=1)[:, -2] if p.shape[1] > 1 else 0.5
    return np.stack([labels(each) for each in p]), abs(first - second) > 1e-4


SANITIZE = [
    "-O1",
    "-g",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
    "-Wno-psabi",
]  # gcc: Debian keeps clang's in another package


@pytest.mark.parametrize("standardize", ["section", "stack", "unit"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_the_program_gives_the_masks_of_a_stack(tmp_path, standardize, dtype):
    predictor = predictor_of(trained_like(name="sdunet", width=8, levels=3), (0.5, 0.7), standardize)
    stack = sections_of(3, dtype)[:, :70]
    expected, sure = masks_of(predictor, stack[:, None])
    program = build(tmp_path, predictor, [COMPILERS[0]], *STRICT, "-O3")
    masks, done = segment(program, tmp_path, stack)
    assert set(np.unique(masks)) <= {0, 255} and sure.mean() > 0.99 and 0.02 < expected.mean() < 0.98
    np.testing.assert_array_equal(masks[sure] > 0, expected[sure] > 0)
    shares = [f"section {k}: foreground {100 * (mask > 0).mean():.2f} %" for k, mask in enumerate(masks)]
    assert done.stdout.splitlines() == shares
    assert "96 x 70 pixels, 67 x 35 for the network" in done.stderr and "MB of memory" in done.stderr


@pytest.mark.parametrize("options", CASES, ids=lambda o: "-".join(map(str, o.values())))
def test_sanitizers_find_nothing(tmp_path, options):
    """Address and undefined behaviour; images that fit in no direction, and one of a single row."""
    predictor = predictor_of(trained_like(**options), 0.6)
    program = build(tmp_path, predictor, [COMPILERS[0]], *STRICT, *SANITIZE)
    channels = predictor.model.in_channels
    for H, W in ((23, 37), (1, 9)):
        stack = np.random.default_rng(5).integers(0, 256, (channels, H, W), dtype=np.uint8)
        masks, _ = segment(program, tmp_path, stack)
        expected, sure = masks_of(predictor, stack[None])
        one = predictor.model.num_classes == 1
        np.testing.assert_array_equal((masks > 0 if one else masks)[sure], expected[sure])


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "does not hold as many images"),
        (b"\x89PNG", "is no PGM file"),
        (b"P5\n4 x\n255\n", "damaged PGM"),
        (b"P5\n# a comment\n4 4\n255\n123", "truncated"),
        (b"P5 4 4 255 " + bytes(16) + b"P5 4 5 255 " + bytes(20), "several sizes"),
        (b"P5 99999999999 99999999999 255 ", "(damaged PGM|not enough)"),
    ],
)
def test_a_file_that_is_no_pgm_is_refused(tmp_path, content, sentence):
    program = build(tmp_path, predictor_of(trained_like(name="sdunet", width=4, levels=2)), [COMPILERS[0]], *SANITIZE)
    (tmp_path / "a.pgm").write_bytes(content)
    words = [*program, "weights.bin", "a.pgm", "mask.pgm"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.count("a.pgm: ") == 1
    assert re.search(sentence, done.stderr)


def test_the_image_is_not_replaced_by_its_mask(tmp_path):
    program = build(tmp_path, predictor_of(trained_like(name="sdunet", width=4, levels=2)), [COMPILERS[0]])
    c_program.write_pgm(tmp_path / "a.pgm", np.full((1, 8, 8), 3, np.uint8))
    before = (tmp_path / "a.pgm").read_bytes()
    for more in ([], ["0.5", "a.pgm"]):
        words = [*program, "weights.bin", "a.pgm", "mask.pgm" if more else "a.pgm", *more]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 1 and "a.pgm: " in done.stderr and "another name" in done.stderr
        assert (tmp_path / "a.pgm").read_bytes() == before


def test_an_earlier_mask_stays_if_the_image_cannot_be_read(tmp_path):
    program = build(tmp_path, predictor_of(trained_like(name="sdunet", width=4, levels=2)), [COMPILERS[0]])
    (tmp_path / "a.pgm").write_bytes(b"\x89PNG")
    (tmp_path / "mask.pgm").write_bytes(b"of yesterday")
    words = [*program, "weights.bin", "a.pgm", "mask.pgm"]
    assert subprocess.run(words, cwd=tmp_path, capture_output=True, check=False).returncode == 1
    assert (tmp_path / "mask.pgm").read_bytes() == b"of yesterday"


@pytest.mark.parametrize("threshold", ["0,5", "half", "", "50", "-1", "nan"])
def test_a_threshold_with_a_comma_is_not_taken_for_zero(tmp_path, threshold):
    program = build(tmp_path, predictor_of(trained_like(name="sdunet", width=4, levels=2)), [COMPILERS[0]])
    c_program.write_pgm(tmp_path / "a.pgm", np.full((1, 8, 8), 3, np.uint8))
    words = [*program, "weights.bin", "a.pgm", "mask.pgm", threshold]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "expected a number from 0 to 1, such as 0.5" in done.stderr
    assert not (tmp_path / "mask.pgm").exists()


@pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("words", [["/dev/full"], ["mask.pgm", "0.5", "/dev/full"]], ids=["mask", "probabilities"])
def test_a_full_disk_is_said_whatever_the_size_of_the_image(tmp_path, words):
    program = build(tmp_path, predictor_of(trained_like(name="sdunet", width=4, levels=2)), [COMPILERS[0]])
    for side in (8, 128):
        c_program.write_pgm(tmp_path / "a.pgm", np.full((1, side, side), 3, np.uint8))
        done = subprocess.run(
            [*program, "weights.bin", "a.pgm", *words], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 1 and "/dev/full: could not be written to its end" in done.stderr


@pytest.mark.parametrize(
    ("at", "kind", "value"), [(36, "<i4", 77), (48, "<f4", np.nan), (56, "<i4", 77), (64, "<f8", np.nan),
                              (64, "<f8", 1e300), (72, "<f8", -1)],
    ids=["norm", "eps", "standardization", "scale", "large scale", "negative scale"],
)  # fmt: skip
def test_weights_whose_preparation_or_norm_is_damaged_are_refused(tmp_path, at, kind, value):
    program = build(tmp_path, predictor_of(trained_like(name="sdunet", width=4, levels=2)), [COMPILERS[0]], *SANITIZE)
    content = bytearray((tmp_path / "weights.bin").read_bytes())
    word = np.array(value, kind).tobytes()
    content[at : at + len(word)] = word
    (tmp_path / "weights.bin").write_bytes(content)
    c_program.write_pgm(tmp_path / "a.pgm", np.full((1, 8, 8), 3, np.uint8))
    words = [*program, "weights.bin", "a.pgm", "mask.pgm"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and re.match(r"weights\.bin: (it )?is damaged: its header", done.stderr)


@pytest.mark.skipif(not shutil.which("g++"), reason="there is no g++ here")
def test_a_program_in_cpp_links_with_the_network(tmp_path):
    (tmp_path / "own.cpp").write_text(
        '#include "image.h"\n#include "network.h"\n'
        "int main() { static network net; return network_open(&net, &net, 3) ? 0 : 1; }"
    )
    subprocess.run(["gcc", "-c", SOURCES / "network.c", "-o", tmp_path / "network.o"], check=True)
    words = ["g++", "-Wall", "-Wextra", "-Werror", f"-I{SOURCES}", tmp_path / "own.cpp", tmp_path / "network.o"]
    subprocess.run([*words, "-lm", "-o", tmp_path / "own"], check=True)
    subprocess.run([tmp_path / "own"], check=True)


@pytest.mark.skipif(not (REAL / "isbi2012").is_dir(), reason="there are no sections of ISBI 2012 here")
def test_real_sections(tmp_path):
    import tifffile

    stack = tifffile.imread(REAL / "isbi2012" / "train-volume.tif", key=range(2))
    predictor = predictor_of(trained_like(name="sdunet", width=16), 0.5)
    c_program.write_c(tmp_path, predictor)
    found = c_program.run_c(tmp_path, stack[:, None])
    np.testing.assert_allclose(found, [predictor(section) for section in stack[:, None]], rtol=0, atol=1e-5)


# What zig compiles for, and how the result begins.
TARGETS = {
    "aarch64-linux-musl": b"\x7fELF", "arm-linux-musleabihf": b"\x7fELF", "riscv64-linux-musl": b"\x7fELF",
    "x86_64-windows-gnu": b"MZ", "x86_64-macos": b"\xcf\xfa\xed\xfe", "aarch64-macos": b"\xcf\xfa\xed\xfe",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_other_machines(tmp_path, target):
    """The program compiles for them without a warning; where an emulator is there, it gives the masks of this one."""
    pytest.importorskip("ziglang", reason="ziglang is not installed: pip install ziglang")
    predictor = predictor_of(trained_like(name="sdunet", width=8, levels=3), 0.5)
    zig = [sys.executable, "-m", "ziglang", "cc", "-target", target, "-O3", *STRICT]
    program = build(tmp_path, predictor, zig)
    assert pathlib.Path(program[0]).read_bytes().startswith(TARGETS[target])
    emulator = shutil.which(f"qemu-{target.partition('-')[0]}")
    if "linux" in target and emulator:
        stack = sections_of(1)
        expected, sure = masks_of(predictor, stack[:, None])
        masks, _ = segment([emulator, *program], tmp_path, stack)
        np.testing.assert_array_equal(masks[sure] > 0, expected[sure] > 0)


@pytest.mark.slow
def test_the_packaged_module_is_built_from_these_sources(tmp_path):
    zig = pytest.importorskip("ziglang", reason="ziglang is not installed: pip install ziglang")
    root = pathlib.Path(__file__).parents[3]
    make = shutil.which("make")
    if not (zig and make and (root / "Makefile").is_file()):
        pytest.skip("there is no make here")
    built = tmp_path / "network.wasm"
    bin_folder = pathlib.Path(sys.executable).parent
    subprocess.run([make, "-s", "-C", root, "wasm", f"WASM={built}", f"BIN={bin_folder}"], check=True)
    assert built.read_bytes() == (SOURCES.parent / "page" / "network.wasm").read_bytes(), "run `make wasm`"


def test_a_network_that_is_no_u_net_of_the_library_is_refused(tmp_path):
    model = trained_like(name="sdunet", width=8, levels=3)
    model.decoder[0].block.norm.eps = 0.1
    with pytest.raises(ValueError, match=r"decoder\.0\.block\.norm differs.*--format onnx"):
        c_program.write_c(tmp_path, predictor_of(model))
    assert not list(tmp_path.iterdir())


def test_a_network_is_written_without_a_predictor(tmp_path):
    model = trained_like(name="sdunet", width=4, levels=2)
    expected = predictor_of(model)  # says how images are prepared
    c_program.write_c(tmp_path / "one", model)
    c_program.write_c(tmp_path / "two", expected)
    assert (tmp_path / "one" / "weights.bin").read_bytes() == (tmp_path / "two" / "weights.bin").read_bytes()
    with pytest.raises(ValueError, match=r"was given a str: read a file with tinyseg\.checkpoint\.load"):
        c_program.write_c(tmp_path / "three", "best.safetensors")


@pytest.mark.parametrize("shape", [(8, 8), (1, 8, 8)])
def test_running_it_on_one_grey_image_says_which_axes_are_missing(tmp_path, shape):
    c_program.write_c(tmp_path, predictor_of(trained_like(name="sdunet", width=4, levels=2)))
    with pytest.raises(ValueError, match=r"\(S, C, H, W\), but are uint8.*image\[None, None\]"):
        c_program.run_c(tmp_path, np.zeros(shape, np.uint8))


def test_a_network_of_volumes_is_refused(tmp_path):
    model = trained_like(name="sdunet", width=4, levels=2, in_channels=4)
    model.meta = {"preprocessing": {"kind": "brain", "size": 0, "how": "crop", "standardize": "volume"}}
    with pytest.raises(ValueError, match=r"4 modalities.*--format onnx"):
        c_program.write_c(tmp_path, Predictor(model))


def test_a_machine_without_a_compiler_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "ziglang", None)
    with pytest.raises(NotRunError, match="no C compiler"):
        c_program.find_compiler()
