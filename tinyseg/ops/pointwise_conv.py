r"""Pointwise (1 x 1) convolution: the same C -> K linear map at every pixel.

With the pixels of one image as the columns of a matrix, X[n] (C, H·W):

    forward   Y[n]  = W X[n] + b           y[n,k,i,j] = sum_c w[k,c] * x[n,c,i,j] + b[k]
    grad_x    GX[n] = Wᵀ GY[n]
    grad_w    gW    = sum_n GY[n] X[n]ᵀ
    grad_b    gb[k] = sum_{n,i,j} gy[n,k,i,j]

A depthwise convolution followed by a pointwise one is a depthwise separable convolution. It takes KH·KW·C + C·K
multiplications per pixel, where a KH x KW convolution from C to K channels takes KH·KW·C·K (Gadosey et al. 2020,
Equations 1 and 2).

Shapes: x (N, C, H, W), w (K, C), b (K,), y (N, K, H, W).
"""

from tinyseg.autograd import Array, Tensor
from tinyseg.backend import kernels, xp_of
from tinyseg.backend.half import HalfFunction
from tinyseg.ops.window import add_bias, check_nchw, grad_bias


# ----- the maths (NumPy or CuPy) ---------------------------------------------
def forward(x, w):
    """Map the channels of every pixel: (N, C, H, W) -> (N, K, H, W)."""
    N, C, H, W = x.shape
    Y = xp_of(x).matmul(w, x.reshape(N, C, H * W))  # (K,C) @ (N,C,HW) -> (N,K,HW)
    return Y.reshape(N, len(w), H, W)


def grad_x(gy, w):
    """Gradient of the input: the transposed map."""
    return forward(gy, w.T)


def grad_w(x, gy):
    """Gradient of the weights, (K, C)."""
    (N, C, H, W), K = x.shape, gy.shape[1]
    X, GY = x.reshape(N, C, H * W), gy.reshape(N, K, H * W)
    return xp_of(x).matmul(GY, X.transpose(0, 2, 1)).sum(axis=0)  # (N,K,HW) @ (N,HW,C) -> (K,C)


# ----- the node of the graph -------------------------------------------------
class PointwiseConv2d(HalfFunction):
    activations = slice(1)  # x

    def forward(self, x, w, *b):
        if w.ndim != 2:
            raise ValueError(f"pointwise_conv2d takes w of shape (K, C), but got {w.shape}.")
        check_nchw("pointwise_conv2d", x, channels=w.shape[1])
        self.saved = x, w
        y = kernels(__name__, x, w).forward(x, w)
        return add_bias("pointwise_conv2d", y, *b)

    def backward(self, gy):
        x, w = self.saved
        k = kernels(__name__, x, w)
        gx = k.grad_x(gy, w) if self.needs[0] else None
        gw = k.grad_w(x, gy) if self.needs[1] else None
        return gx, gw, *grad_bias(gy, *self.needs[2:])


def pointwise_conv2d(x: Tensor | Array, w: Tensor | Array, b: Tensor | Array | None = None) -> Tensor:
    """Apply one linear map over the channels of every pixel; equations in the module docstring.

    Parameters
    ----------
    x : Tensor or ndarray, shape (N, C, H, W)
    w : Tensor or ndarray, shape (K, C)
    b : Tensor or ndarray, shape (K,), optional

    Returns
    -------
    Tensor, shape (N, K, H, W), x's dtype
    """
    inputs = (x, w) if b is None else (x, w, b)
    return PointwiseConv2d()(*inputs)
