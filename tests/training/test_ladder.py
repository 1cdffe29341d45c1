"""Memory that runs out costs a smaller batch, never the training."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from tiny import folder_of_blobs
from torch import nn

import napari_unetseg as nus
from napari_unetseg.data import Batch
from napari_unetseg.devices import is_out_of_memory
from napari_unetseg.errors import OutOfMemory
from napari_unetseg.events import Note, Running, StepDone, Validated
from napari_unetseg.training import fine_tune, job, loop
from napari_unetseg.training.ladder import portions

CPU_SAYS = "[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"


class Hungry(nn.Module):
    """A net on a device with room for `voxels` float32 voxels in training, `tile` in inference."""

    def __init__(self, net: nn.Module, voxels: float, tile: float, error: Exception) -> None:
        super().__init__()
        self.net, self.voxels, self.tile, self.error = net, voxels, tile, error
        self.divisor = net.divisor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        needs = x.numel() / (1 + torch.is_autocast_enabled("cpu"))
        if needs > (self.voxels if self.training else self.tile):
            raise self.error
        return self.net(x)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return folder_of_blobs(tmp_path_factory.mktemp("blobs"), number=4, shape=(160, 160))


@pytest.fixture
def hungry(monkeypatch):
    """Give the machine little memory: ``hungry(voxels, tile, error)``."""
    real = job.build

    def limit(voxels, tile=np.inf, error=None):
        error = error or torch.OutOfMemoryError("CUDA out of memory")
        monkeypatch.setattr(job, "build", lambda *args, **more: Hungry(real(*args, **more), voxels, tile, error))

    return limit


def quick(**training) -> nus.Plan:
    training = {"epochs": 2, "steps_per_epoch": 2, "device": "cpu", "precision": "float32", **training}
    return nus.Plan(net={"name": "unet", "width": 0.1, "depth": 3}, training=training)


def run(data, plan, out=None, resume=False):
    verb = Running(fine_tune.events(data, plan, folder=out, resume=resume))
    events = list(verb)
    return verb.result, events, [e.text for e in events if isinstance(e, Note)]


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), RuntimeError(CPU_SAYS)], ids=repr
)
def test_every_rung_in_order_each_said(folder, hungry, error):
    hungry(64 * 64 * 0.5, error=error)
    model, events, notes = run(folder, quick(batch_size=8, patch=(128, 128)))
    assert [note.partition(": ")[2] for note in notes] == [
        "going on with 4 patches a step.",
        "going on with 2 patches a step.",
        "the 2 patches of a step are computed one after the other.",
        "going on with patches of 64 x 64 voxels.",
        "going on in bfloat16, which needs about half of it.",
    ]
    assert sum(isinstance(e, StepDone) for e in events) == 4
    training = model.plan.training
    assert (training.batch_size, training.patch, training.precision) == (2, (64, 64), "bfloat16")


def test_the_last_rung_is_an_error_that_says_what_to_do(folder, hungry):
    hungry(10)
    with pytest.raises(OutOfMemory, match="one patch of 64 x 64") as caught:
        run(folder, quick(batch_size=2, patch=(64, 64)))
    assert caught.value.hint


def test_other_errors_are_not_taken_for_memory(folder, hungry):
    hungry(10, error=RuntimeError("the weights are on another device"))
    with pytest.raises(RuntimeError, match="another device"):
        run(folder, quick(batch_size=2, patch=(64, 64)))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_a_tile_that_does_not_fit_is_halved(folder, hungry):
    hungry(np.inf, tile=128 * 128)
    model, events, notes = run(folder, quick(batch_size=1, patch=(256, 256), epochs=1))
    assert notes == [
        "Out of memory: images are segmented in tiles of 256 x 256 voxels.",
        "Out of memory: images are segmented in tiles of 128 x 128 voxels.",
    ]
    assert model.scores is not None
    assert model.plan.inference.tile == (128, 128)
    assert sum(isinstance(e, Validated) for e in events) == 1


def test_running_out_changes_nothing_but_the_size(folder, monkeypatch):
    """A step that fails after its backward leaves weights, optimiser and drawing as they were."""
    real, seen = loop._learn, []

    def watched(here):
        before = copy.deepcopy((here.net.state_dict(), here.optimiser.state_dict()["state"], here.feed.state))
        if here.progress.step == 2 and here.batch_size > 2:
            here.optimiser.step = lambda: (_ for _ in ()).throw(torch.OutOfMemoryError())
            with pytest.raises(torch.OutOfMemoryError):
                real(here)
            del here.optimiser.step
            seen.append((before, here))
            raise torch.OutOfMemoryError
        if seen and len(seen) == 1:
            (net, state, drawn), _ = seen[0]
            assert here.feed.state == drawn
            torch.testing.assert_close(here.net.state_dict(), net)
            torch.testing.assert_close(here.optimiser.state_dict()["state"], state)
            seen.append(None)
        return real(here)

    monkeypatch.setattr(loop, "_learn", watched)
    run(folder, quick(batch_size=4, patch=(64, 64)))
    assert len(seen) == 2


def test_portions_are_the_batch():
    batch = Batch(torch.arange(5.0)[:, None, None, None], torch.arange(5)[:, None, None], torch.ones(5, 1, 1) > 0)
    for count in (1, 2, 5):
        parts = list(portions(batch, count))
        assert len(parts) == count
        torch.testing.assert_close(torch.cat([part.target for part in parts]), batch.target)


def test_gradients_of_patches_one_by_one_are_those_of_the_batch(folder, monkeypatch):
    """With instance normalisation and a loss that is a mean over patches, accumulation changes no number."""
    losses = {}
    real = job.prepare_job
    for parts in (1, 4):

        def prepared(*args, parts=parts):
            made = real(*args)
            made.parts = parts
            return made

        monkeypatch.setattr(loop, "prepare_job", prepared)
        plan = quick(batch_size=4, patch=(64, 64), loss="dice")
        losses[parts] = [e.loss for e in run(folder, plan)[1] if isinstance(e, StepDone)]
    np.testing.assert_allclose(losses[1], losses[4], rtol=1e-4)


def test_a_killed_run_goes_on_from_the_rung_it_was_on(folder, hungry, tmp_path):
    plan = quick(batch_size=4, patch=(128, 128), epochs=4)
    hungry(64 * 64 + 1, tile=np.inf)
    whole = [e.loss for e in run(folder, plan)[1] if isinstance(e, StepDone)]
    verb = fine_tune.events(folder, plan, folder=tmp_path / "m")
    for event in verb:
        if isinstance(event, StepDone) and event.step == 5:
            break
    verb.close()
    _, events, notes = run(folder, plan, out=tmp_path / "m", resume=True)
    steps = [e for e in events if isinstance(e, StepDone)]
    assert not notes  # nothing has to run out again
    assert steps[0].step == 5
    np.testing.assert_allclose([e.loss for e in steps], whole[4:], rtol=1e-5)
