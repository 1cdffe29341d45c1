"""Scores of a mask against the truth; numpy, scipy and scikit-image only.

Empty against empty scores 1 (distance 0), empty against something 0 (its distances are undefined): decided here, once.
"""

from napari_unetseg.metrics.compare import METRICS, compare_masks, mean_scores
from napari_unetseg.metrics.forecast import Correction, Forecast, forecast, forecast_corrections
from napari_unetseg.metrics.membranes import membrane_scores, v_info, v_rand
from napari_unetseg.metrics.overlap import Counts, counts, dice, jaccard, relative_volume_difference, score_masks
from napari_unetseg.metrics.surface import assd, distances, hausdorff, hausdorff95

__all__ = [
    "METRICS",
    "Correction",
    "Counts",
    "Forecast",
    "assd",
    "compare_masks",
    "counts",
    "dice",
    "distances",
    "forecast",
    "forecast_corrections",
    "hausdorff",
    "hausdorff95",
    "jaccard",
    "mean_scores",
    "membrane_scores",
    "relative_volume_difference",
    "score_masks",
    "v_info",
    "v_rand",
]
