"""Solutions of notebook 2, what a convolution costs."""

import numpy as np

# %% 1
# A separable layer with R depthwise kernels a channel takes R (k² + K) C multiply-adds
# a pixel, a standard one k² K C. It pays while R < k² K / (k² + K), which is the saving
# with R = 1. Exact for every kernel takes R = min(K, k²), and that is always more: no
# saving without loss.


def solution_1(K, k):
    return int(np.ceil(k * k * K / (k * k + K))) - 1


# %% 2
# Nearly all of SD-UNet's work is pointwise. Fewer or grouped channels would save more
# than cleverness with taps, and large kernels are cheap. (In seconds the depthwise half
# weighs more: it waits for memory, not for arithmetic.)


def around_and_across(model, rows, taps=9):
    """Multiply-adds of depthwise sums and of all else, with 3 × 3 made `taps`."""
    found, modules = [0, 0], dict(model.named_modules())
    for row in rows:
        for p in modules[row.name].parameters():
            if p.data.ndim > 1:  # no bias; a depthwise kernel has three dimensions
                work = p.size * row.output[-2] * row.output[-1]
                growth = taps / 9 if p.shape[-1] == 3 and p.data.ndim > 2 else 1
                found[p.data.ndim != 3] += work * growth
    return np.array(found)


def solution_2(unet, sdunet, unet_rows, sdunet_rows):
    work, dense = (
        around_and_across(sdunet, sdunet_rows),
        around_and_across(unet, unet_rows),
    )
    larger = around_and_across(sdunet, sdunet_rows, taps=49)
    larger_dense = around_and_across(unet, unet_rows, taps=49)
    total = work.sum()
    return work[1] / total, larger.sum() / total, larger_dense.sum() / dense.sum()


# %% 3
# For a window p the error is (A - B) p, its mean square tr((A - B) Σ (A - B)ᵀ), that is
# ‖(A - B) Σ^½‖². So the singular value decomposition of A Σ^½ gives the best matrix of
# rank 1 in that measure, and Σ^-½ takes it back to kernels. Random kernels have nothing
# in common, but their answers on an image do: most of what an image holds is smooth.


def roots(S):
    """Return S^½ and S^-½."""
    values, V = np.linalg.eigh(S)
    return (V * np.sqrt(values)) @ V.T, (V / np.sqrt(values)) @ V.T


def rank_1(M):
    U, s, V = np.linalg.svd(M)
    return s[0] * np.outer(U[:, 0], V[0])


def solution_3(A, S):
    root, inverse = roots(S)
    return rank_1(A @ root) @ inverse
