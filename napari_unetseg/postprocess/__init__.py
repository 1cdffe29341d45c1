"""What is done to a mask after the net: named steps, each ``(mask, spacing, **options) -> mask``; and what is measured.

Masks are whole numbers ``([Z,] Y, X)``, 0 background, 1.. classes; a step treats every class by itself, and a
volume as one thing, never plane by plane. Lengths, areas and volumes in options are physical: in the unit of
`spacing`, its square or its cube. Objects hold together over faces, edges and corners, the background over faces only.
"""

from napari_unetseg.postprocess.measures import features, measure, measure_volume
from napari_unetseg.postprocess.options import STEPS, Option, check_steps
from napari_unetseg.postprocess.split import number_objects, split_touching
from napari_unetseg.postprocess.steps import after_net, apply_steps, parted
from napari_unetseg.postprocess.table import write_rows

__all__ = [
    "STEPS",
    "Option",
    "after_net",
    "apply_steps",
    "check_steps",
    "features",
    "measure",
    "measure_volume",
    "number_objects",
    "parted",
    "split_touching",
    "write_rows",
]
