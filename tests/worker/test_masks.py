"""What the user looks at comes first."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_unetseg.events import Control, PreviewReady, Running, TileDone
from napari_unetseg.io import write
from napari_unetseg.nets import Model, build
from napari_unetseg.plan import Plan
from napari_unetseg.volume import Geometry, Volume
from napari_unetseg.worker import loop  # noqa: F401 - all verbs are registered
from napari_unetseg.worker.verbs import VERBS, Bench


def segmented(tmp_path, dims, planes, **args):
    """Events of the verb, and the mask."""
    torch.manual_seed(0)
    plan = Plan(
        net={"dims": dims, "width": 0.1, "depth": 2, "norm": "instance"},
        data={"normalisation": {"kind": "zscore"}},
        training={"patch": (4, 16, 16)[-dims:], "device": "cpu", "precision": "float32"},
    )
    Model(build(plan.net).eval(), plan, ("background", "cell")).save(tmp_path / "model")
    values = np.random.default_rng(0).normal(size=(1, planes, 24, 20)).astype(np.float32)
    image = write(tmp_path / "scan.nii", Volume(values, Geometry((1.0,) * 3)))
    given = {"image": str(image), "model": str(tmp_path / "model"), **args}
    run = Running(VERBS["predict"](given, Control(), Bench(tmp_path)))
    return list(run), np.load(run.result["mask"])


@pytest.mark.parametrize("dims", [2, 3])
def test_the_plane_on_screen_comes_before_the_rest_of_a_volume(tmp_path, dims):
    events, mask = segmented(tmp_path, dims, 40, index=13)
    first = events[0]
    assert isinstance(first, PreviewReady)
    assert (first.view.index, first.mask.shape) == (13, (24, 20))
    assert (first.mask == mask[13]).mean() > (0.999 if dims == 2 else 0.8)  # a slab has statistics of its own
    assert all(isinstance(event, TileDone) for event in events[1:])


@pytest.mark.parametrize(("planes", "args"), [(3, {"index": 1}), (40, {}), (40, {"index": None})])
def test_nothing_comes_first_where_it_would_be_most_of_the_work_or_nobody_looks(tmp_path, planes, args):
    events, _ = segmented(tmp_path, 2, planes, **args)
    assert not any(isinstance(event, PreviewReady) for event in events)
