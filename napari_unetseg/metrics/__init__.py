"""Scores of a mask against the truth; numpy, scipy and scikit-image only.

Empty against empty scores 1 (distance 0), empty against something 0 (distances undefined): decided here, once.
"""

from napari_unetseg.metrics.overlap import Counts, counts, dice, jaccard, relative_volume_difference, score_masks

__all__ = ["Counts", "counts", "dice", "jaccard", "relative_volume_difference", "score_masks"]
