"""What masks, nets and strokes are worth: masks against truth (`score_files`), nets against each other
(`compare_nets`), strokes against models that have not seen them (`cross_check`).
"""

from napari_unetseg.validate.compare import Comparison, compare_nets
from napari_unetseg.validate.files import score_files
from napari_unetseg.validate.slips import cross_check
from napari_unetseg.validate.statistics import holm, paired_tests, summarise, summarised

__all__ = [
    "Comparison",
    "compare_nets",
    "cross_check",
    "holm",
    "paired_tests",
    "score_files",
    "summarise",
    "summarised",
]
