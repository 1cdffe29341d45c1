"""Where the next strokes are worth most (`squares` in an image, `places` in a project), and strokes that look like
slips (`slips`).
"""

from __future__ import annotations

from napari_unetseg.guidance.places import Candidate, Suggestion, candidates_of, suggest
from napari_unetseg.guidance.slips import (
    SuspiciousStroke,
    contradictions,
    doubted_strokes,
    find_slips,
    suspicious_strokes,
)
from napari_unetseg.guidance.squares import Proposal, class_doubt, propose, rank

__all__ = [
    "Candidate",
    "Proposal",
    "Suggestion",
    "SuspiciousStroke",
    "candidates_of",
    "class_doubt",
    "contradictions",
    "doubted_strokes",
    "find_slips",
    "propose",
    "rank",
    "suggest",
    "suspicious_strokes",
]
