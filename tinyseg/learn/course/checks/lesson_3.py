"""Lesson 3: convolutions against SciPy's, and their gradients against difference quotients of SciPy's."""

import importlib

import numpy as np
from scipy.signal import correlate2d

from tinyseg.autograd import Tensor, no_grad
from tinyseg.learn.comparing import case, keeping, keeps_float32, numbers, same, slopes
from tinyseg.ops import depthwise_conv, pointwise_conv
from tinyseg.ops.window import resolve

conv2d = importlib.import_module("tinyseg.ops.conv2d")  # under this name tinyseg.ops has the function

# Words, the shape of x, (KH, KW), stride, pads, dilation.
NONE, ONE = ((0, 0), (0, 0)), ((1, 1), (1, 1))
CASES = (
    ("one image and channel, no border", (1, 1, 4, 5), (2, 3), (1, 1), NONE, (1, 1)),
    ("one image of two channels, a border of 1", (1, 2, 4, 5), (3, 3), (1, 1), ONE, (1, 1)),
    ("two images of three channels", (2, 3, 4, 5), (3, 2), (1, 1), NONE, (1, 1)),
    ("a border of 1 row above and 2 columns to the right", (1, 2, 3, 4), (3, 3), (1, 1), ((1, 0), (0, 2)), (1, 1)),
    ("stride (2, 3)", (2, 2, 7, 8), (3, 3), (2, 3), ONE, (1, 1)),
)
WHOLE = conv2d.STRIP  # numbers in the columns of a strip: more than the images here have
STRIPS = ("two images, each of which strips() cuts into several", (2, 1, 9, 5), (3, 3), (2, 1), ONE, (1, 1))
DILATED = ("dilation (2, 3)", (1, 2, 7, 9), (2, 3), (1, 1), NONE, (2, 3))


def correlate(x, w, stride, pads, dilation):
    """Filter a plane (H, W) with a kernel (KH, KW) by SciPy."""
    spread = np.zeros([(n - 1) * d + 1 for n, d in zip(w.shape, dilation, strict=True)])
    spread[:: dilation[0], :: dilation[1]] = w
    return correlate2d(np.pad(x, pads), spread, "valid")[:: stride[0], :: stride[1]]


def right_depthwise(x, w, stride, pads, dilation):
    """Filter each channel of x (N, C, H, W) with its kernel of w (C, KH, KW)."""
    return np.array(
        [[correlate(p, k, stride, pads, dilation) for p, k in zip(image, w, strict=True)] for image in x]
    )  # fmt: skip


def right_standard(x, w, stride, pads):
    """Convolve x (N, C, H, W) with w (K, C, KH, KW)."""
    plane = [[right_depthwise(image[None], kernel, stride, pads, (1, 1))[0].sum(axis=0) for kernel in w] for image in x]
    return np.array(plane)


def depthwise_cases():
    """Yield the words, x, w, the numbers of a case, and the size of the output."""
    for words, shape, kernel, stride, pads, dilation in (*CASES, DILATED):
        out = resolve(shape, kernel, stride, pads, dilation)[2]
        yield words, numbers(*shape), numbers(shape[1], *kernel, seed=1), stride, pads, dilation, out


def test_1_depthwise_forward():
    for words, x, w, stride, pads, dilation, out in depthwise_cases():
        with case(words):
            with keeping(x=x, w=w):
                found = depthwise_conv.forward(x, w, stride, pads, out, dilation)
            same(found, right_depthwise(x, w, stride, pads, dilation), "y")
    keeps_float32(depthwise_conv.forward, x, w, stride, pads, out, dilation)


def test_2_depthwise_gradient_of_the_kernels():
    for words, x, w, stride, pads, dilation, out in depthwise_cases():
        gy = numbers(*x.shape[:2], *out, seed=2)
        with case(words):
            with keeping(x=x, gy=gy):
                found = depthwise_conv.grad_w(x, gy, w.shape, stride, pads, dilation)
            right = slopes(lambda w: (gy * right_depthwise(x, w, stride, pads, dilation)).sum(), w)
            same(found, right, "gw", 1e-6)


def test_3_depthwise_gradient_of_the_image():
    for words, x, w, stride, pads, dilation, out in depthwise_cases():
        gy = numbers(*x.shape[:2], *out, seed=2)
        with case(words):
            with keeping(gy=gy, w=w):
                found = depthwise_conv.grad_x(gy, w, x.shape, stride, pads, dilation)
            right = slopes(lambda x: (gy * right_depthwise(x, w, stride, pads, dilation)).sum(), x)
            same(found, right, "gx", 1e-6)


POINTWISE = (
    ("one image of two channels, mapped to two", (1, 2, 3, 4), 2),
    ("one image of three channels, mapped to two", (1, 3, 2, 4), 2),
    ("two images", (2, 3, 2, 4), 4),
)


def test_4_pointwise_forward():
    for words, shape, K in POINTWISE:
        x, w = numbers(*shape), numbers(K, shape[1], seed=1)
        with case(words):
            same(pointwise_conv.forward(x, w), np.einsum("kc,ncij->nkij", w, x), "y")


def test_5_pointwise_gradients():
    for words, shape, K in POINTWISE:
        x, w, gy = numbers(*shape), numbers(K, shape[1], seed=1), numbers(shape[0], K, *shape[2:], seed=2)
        with case(f"{words}, the gradient of the image"):
            same(pointwise_conv.grad_x(gy, w), np.einsum("kc,nkij->ncij", w, gy), "gx")
        with case(f"{words}, the gradient of the weights"):
            same(pointwise_conv.grad_w(x, gy), np.einsum("nkij,ncij->kc", gy, x), "gw")


def test_6_windows_as_columns():
    for words, x, kernel, stride, out in (
        ("one channel, windows of 2 × 2", np.arange(12.0).reshape(1, 1, 3, 4), (2, 2), (1, 1), (2, 3)),
        ("two channels, windows of 2 × 3, stride (1, 2)", numbers(1, 2, 4, 7), (2, 3), (1, 2), (3, 3)),
    ):
        (KH, KW), (OH, OW), C = kernel, out, x.shape[1]
        right = np.zeros((C * KH * KW, OH * OW))
        for row, (c, u, v) in enumerate(np.ndindex(C, KH, KW)):
            for column, (i, j) in enumerate(np.ndindex(OH, OW)):
                right[row, column] = x[0, c, i * stride[0] + u, j * stride[1] + v]
        with case(words):
            same(conv2d.im2col(x, kernel, out, stride), right, "the columns")


def standard_cases():
    """Yield the words, x, w, the numbers of a case, and the size of the output; at last with images cut into strips."""
    for words, shape, kernel, stride, pads, _ in (*CASES, STRIPS):
        out = resolve(shape, kernel, stride, pads)[2]
        conv2d.STRIP = 60 if words == STRIPS[0] else WHOLE
        yield words, numbers(*shape), numbers(2, shape[1], *kernel, seed=1), stride, pads, out
    conv2d.STRIP = WHOLE


def test_7_standard_forward():
    for words, x, w, stride, pads, out in standard_cases():
        with case(words):
            with keeping(x=x, w=w):
                found = conv2d.forward(x, w, stride, pads, out)
            same(found, right_standard(x, w, stride, pads), "y")
    keeps_float32(conv2d.forward, x, w, stride, pads, out)


def test_8_standard_gradients():
    for words, x, w, stride, pads, out in standard_cases():
        gy = numbers(len(x), len(w), *out, seed=2)
        with case(f"{words}, the gradient of the weights"):
            right = slopes(lambda w: (gy * right_standard(x, w, stride, pads)).sum(), w)
            same(conv2d.grad_w(x, gy, w.shape, stride, pads), right, "gw", 1e-6)
        with case(f"{words}, the gradient of the image"):
            right = slopes(lambda x: (gy * right_standard(x, w, stride, pads)).sum(), x)
            same(conv2d.grad_x(gy, w, x.shape, stride, pads), right, "gx", 1e-6)


def draw(path):
    """Draw a section, what depthwise kernels make of it, and a mixture of these."""
    from tinyseg.data.synthetic import em_sections
    from tinyseg.learn.course.pictures import figure
    from tinyseg.learn.figures import show_images

    image = em_sections(num_sections=1, size=128, seed=5)[0][0].astype(np.float32) / 255
    smooth = np.ones((3, 3)) / 9
    across = np.array([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 4
    kernels = np.array([smooth, across, across.T], np.float32)
    with no_grad():
        three = Tensor(np.repeat(image[None, None], 3, axis=1))
        d = depthwise_conv.depthwise_conv2d(three, kernels, padding="same")
        y = pointwise_conv.pointwise_conv2d(d * d, np.array([[0.0, 1.0, 1.0]], np.float32)).data[0, 0]
    with figure(path, "Your depthwise convolution, and your pointwise one", 5) as axes:
        pictures = [image, *d.data[0], np.sqrt(y)]
        titles = [
            "a section",
            "smoothed",
            "left to right",
            "top to bottom",
            "both, squared,\nmixed by (0, 1, 1)",
        ]
        show_images(axes, pictures, titles)
