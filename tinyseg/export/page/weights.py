"""The weights in a page: weights.bin in parts, most of them with 16 or 8 bits, which the page multiplies out again.

Each column k of a matrix w (C, K) is stored as integers q = round(w / s), s_k = max_c |w_ck| / limit. A large matrix
gets 8 bits (limit 127): most weights of a large network are in a few of these, at the coarsest resolutions. A smaller
one gets 16 bits (limit 32767), which costs little, and takes away most of the difference to the network that was
trained. Biases, norms and depthwise kernels stay as they are.
"""

import numpy as np

from tinyseg.export.c.weights import HEADER, arrays, pack
from tinyseg.export.network import Network

LARGE = 1 << 16  # numbers of a matrix beyond which it gets 8 bits
KINDS = {"int8": (np.int8, 127), "int16": (np.int16, 32767)}


def pack_parts(
    network: Network, scale: tuple[float, float] = (1, 1), standardize: str = "section"
) -> tuple[bytes, list[tuple[str, int, int]]]:
    """Return weights.bin in parts, and the table of the parts.

    Parameters
    ----------
    network, scale, standardize
        As for `tinyseg.export.c.weights.pack`.

    Returns
    -------
    bytes
        All parts, in little-endian order.
    list of (kind, count, columns)
        ("float", n, 0): n numbers of 32 bits, which are copied as they are. ("int8", n, K) and ("int16", n, K): K
        float32, the scales s, and n integers q; number i of the part is q[i] · s[i % K].
    """
    header = pack(network, scale, standardize)[: HEADER.size]
    parts, table = [header], [("float", HEADER.size // 4, 0)]
    for part, is_matrix in arrays(network):
        if not is_matrix:
            parts.append(part.tobytes())
            table.append(("float", part.size, 0))
            continue
        kind = "int8" if part.size > LARGE else "int16"
        scales, integers = round_columns(part, kind)
        parts += [scales.tobytes(), integers.tobytes()]
        table.append((kind, part.size, part.shape[-1]))
    return b"".join(parts), table


def round_columns(matrix: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the scale of each column of a matrix (..., K), float32 (K,), and its integers, of the matrix's shape."""
    dtype, limit = KINDS[kind]
    scales = (abs(matrix).reshape(-1, matrix.shape[-1]).max(axis=0) / np.float32(limit)).astype("<f4")
    scales[scales == 0] = 1
    return scales, np.rint(matrix / scales).astype(np.dtype(dtype).newbyteorder("<"))
