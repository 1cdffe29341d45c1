"""V_rand and V_info: how well membranes part an image into cells (ISBI 2012 challenge, Arganda-Carreras et al. 2015).

Both compare two partitions on the foreground of the truth, and are the harmonic mean of a precision (nothing merged)
and a recall (nothing split).
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from napari_unetseg.metrics.overlap import check_shapes

__all__ = ["membrane_scores", "v_info", "v_rand"]

THRESHOLDS = tuple(step / 10 for step in range(11))


def v_rand(pred: np.ndarray, truth: np.ndarray) -> float:
    """Foreground-restricted Rand score of two label images.

    Parameters
    ----------
    pred, truth : ndarray of integers
        Cell labels of one shape, 0 between the cells. Voxels where the truth is 0 do not count; a voxel that only
        `pred` leaves unlabelled counts as a cell of its own.

    Returns
    -------
    float
        In [0, 1]; not a number if the truth has no cell.
    """
    return _scores(pred, truth)[0]


def v_info(pred: np.ndarray, truth: np.ndarray) -> float:
    """Foreground-restricted information-theoretic score of two label images; as `v_rand`.

    1 where both have one cell; 0 where only one of them has.
    """
    return _scores(pred, truth)[1]


def membrane_scores(cells: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Best V_rand and V_info of a map of cell interiors, after thinning its membranes.

    The map is cut at 0, 0.1, .. 1 (strictly above); what is left over is membrane, thinned to lines one pixel wide by
    a watershed, plane by plane with 4 neighbours. Scores are averaged over the planes that have cells, then the best
    cut is taken.

    Parameters
    ----------
    cells : ([Z,] Y, X) ndarray
        Probability of cell interior in [0, 1], or a mask (integers or bool, cells > 0), which has only one cut.
    truth : ([Z,] Y, X) ndarray
        Mask of the cell interiors: cells > 0, their connected parts being the cells.

    Returns
    -------
    dict
        ``{"v_rand": ..., "v_info": ...}``, not a number if the truth has no cell.
    """
    cells, truth = np.asarray(cells), np.asarray(truth)
    check_shapes(cells, truth)
    cuts = THRESHOLDS if np.issubdtype(cells.dtype, np.floating) else (0,)
    planes = cells.reshape(-1, *cells.shape[-2:]), truth.reshape(-1, *truth.shape[-2:])
    pairs = [(plane, ndimage.label(wanted > 0)[0]) for plane, wanted in zip(*planes, strict=True) if (wanted > 0).any()]
    if not pairs:
        return {"v_rand": float("nan"), "v_info": float("nan")}
    means = [np.mean([_scores(_thinned(plane > cut), wanted) for plane, wanted in pairs], axis=0) for cut in cuts]
    rand, info = np.max(means, axis=0)
    return {"v_rand": float(rand), "v_info": float(info)}


def _thinned(cells: np.ndarray) -> np.ndarray:
    """Labels of the cells grown until only lines of one pixel are left between them."""
    from skimage.segmentation import watershed

    labels, n = ndimage.label(cells)
    return watershed(~cells, labels, connectivity=1, watershed_line=True) if n else labels


def _scores(pred: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    check_shapes(pred, truth)
    inside = np.asarray(truth) > 0
    n = int(inside.sum())
    if n == 0:
        return float("nan"), float("nan")
    a, b, ab, alone = _tables(np.asarray(pred)[inside], np.asarray(truth)[inside])
    # voxels without a cell in pred are `alone`, as a share of all: so many cells of the size 1 / n
    rand_a, rand_b, rand_ab = (a**2).sum(), (b**2).sum() + alone / n, (ab**2).sum() + alone / n
    rest = alone * np.log(n)
    h_a, h_b, h_ab = -_x_log_x(a), -_x_log_x(b) + rest, -_x_log_x(ab) + rest
    # harmonic mean of what each partition tells about the other; two partitions into one cell tell all
    info = 2 * (h_a + h_b - h_ab) / (h_a + h_b) if h_a + h_b > 1e-12 else 1.0
    return float(2 * rand_ab / (rand_a + rand_b)), float(max(info, 0.0))


def _tables(pred: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Shares of the cells of the truth, of pred, of their overlaps, and of what pred leaves unlabelled."""
    _, truth = np.unique(truth, return_inverse=True)
    labelled = pred != 0
    _, pred = np.unique(pred[labelled], return_inverse=True)
    _, ab = np.unique(truth[labelled].astype(np.int64) * (pred.size + 1) + pred, return_counts=True)
    n = truth.size
    return np.bincount(truth) / n, np.bincount(pred) / n, ab / n, 1 - pred.size / n


def _x_log_x(x: np.ndarray) -> float:
    return float((x * np.log(x)).sum())
