"""DICOM: series in folders and studies, multi-frame objects, single pictures; masks as DICOM-SEG.

Nothing that says whose image it is leaves this package, but in a DICOM-SEG, which has to name its patient.
"""

from napari_unetseg.io.dicom.family import Dicom
from napari_unetseg.io.dicom.series import (
    Series,
    inputs_of,
    is_input,
    is_segmentation,
    list_series,
    one_per_series,
    sniffed,
)

__all__ = ["Dicom", "Series", "inputs_of", "is_input", "is_segmentation", "list_series", "one_per_series", "sniffed"]
