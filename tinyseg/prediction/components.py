"""Connected components of a predicted volume: those that are small beside the largest are taken back.

A network that sees one slice at a time finds a tumour also where a slice looks like one, in the cerebellum say. Such
parts are small, and not connected to the tumour. nnU-Net keeps the largest component alone where its cross-validation
says that this helps (Isensee et al. 2021, Nat. Methods 18:203); here a share is given, so that a second tumour of some
size stays.
"""

import numpy as np
import scipy

from tinyseg.backend import check_number

TOUCHING = np.ones((3, 3, 3), bool)  # a voxel and the 26 that share a side, an edge or a corner with it


def drop_small_components(labels: np.ndarray, share: float) -> np.ndarray:
    """Make background of the components of the foreground that are small beside the largest one.

    Parameters
    ----------
    labels : integer ndarray, shape (X, Y, Z)
        Class of each voxel; 0 is background, and all other classes together are the foreground. Voxels that share a
        corner are connected.
    share : float in [0, 1]
        Components of fewer voxels than this part of the largest one become background. 0 keeps all, 1 keeps the
        largest alone, or several of its size.

    Returns
    -------
    ndarray of the shape and dtype of `labels`
        `labels` itself if nothing is to be dropped.

    Raises
    ------
    ValueError
        `share` is not in [0, 1], or `labels` has other than three axes.
    """
    check_number("share", share, "[0, 1]")
    if labels.ndim != 3:
        raise ValueError(f"labels must be a volume (X, Y, Z), but have the shape {labels.shape}.")
    if share == 0:
        return labels
    components, _ = scipy.ndimage.label(labels, TOUCHING, output=np.int32)
    sizes = np.bincount(components.ravel())
    small = sizes < share * sizes[1:].max(initial=0)
    small[0] = False  # the background
    return np.where(small[components], 0, labels).astype(labels.dtype) if small.any() else labels
