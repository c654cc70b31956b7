"""Sums over pixels, cut in one way for any number of threads: gradients of weights and of biases.

Another order of a float32 sum gives other bits. Therefore no sum is cut by threads. Bands of rows, or pieces of pixels,
are divided into a number of *shares* that follows from the shape alone. Each share has sums of its own, which are added
up at the end, the first share first; a thread computes as many shares as fall to it. Where the sums are large beside
what is added to them, as the weights of a network's deepest level, shares would cost more than they save: then the
threads divide the sums among themselves, and each is computed over all pixels.
"""

from tinyseg.fast.cpu.arena import empty
from tinyseg.fast.cpu.kernel_cache import SUBROUTINE, njit
from tinyseg.fast.cpu.parallel import parallel

LONG = 1 << 13  # pixels after which the float32 sums of a share are flushed
BANDS_FOR = 2  # threads that bands are cut for where they are summed, whatever the number of threads
MOST_SHARES = 64  # shares: more threads than that have nothing to do
LEAST = 4  # shares below which the sums are divided
COST = 8  # a share reads at least so many times as many floats as it has sums


def divide_sums(sums, read):
    """Whether `sums` sums, which read `read` floats in all, are divided among the threads, and the pixels are not."""
    return read < LEAST * COST * sums


def shares(tasks, sums, read):
    """Return the number of shares of `tasks` bands or pieces, which read `read` floats in all for `sums` sums."""
    return max(1, min(MOST_SHARES, tasks, read // (COST * sums)))


@njit(**SUBROUTINE)
def flush(sums, i, n, total):
    """Add sums[i : i + n] to `total` and clear them: a float32 sum that is cut in this way rounds less."""
    for k in range(i, i + n):
        total[k] += sums[k]
        sums[k] = 0


@parallel
def _sum_parts(piece, parts, out):
    flat, total = parts.reshape(parts.shape[0], -1), out.reshape(-1)[piece * 4096 : (piece + 1) * 4096]
    for t in range(len(flat)):
        part = flat[t, piece * 4096 : (piece + 1) * 4096]
        if t == 0:
            for i in range(len(total)):
                total[i] = part[i]
        else:
            for i in range(len(total)):
                total[i] += part[i]


def sum_parts(parts):
    """Return the sum over the first axis: of what each share has summed for itself."""
    out = empty(parts.shape[1:])
    _sum_parts(-(-out.size // 4096), parts, out)
    return out
