"""A generator in a plain loop: its events on the way, its result after it, and closed when the loop is left."""

from __future__ import annotations

import pytest

from napari_unetseg.events import Running, finish


def counting(number, closed):
    try:
        yield from range(number)
    finally:
        closed.append(number)
    return "done"


def test_the_result_is_there_after_the_loop():
    run = Running(counting(3, []))
    assert list(run) == [0, 1, 2]
    assert run.result == "done"
    assert finish(counting(3, [])) == "done"


@pytest.mark.parametrize("leave", ["break", "raise", "close"])
def test_leaving_the_loop_closes_the_generator(leave):
    closed = []

    def outer():
        for number in Running(counting(3, closed)):
            if number == 1 and leave == "break":
                break
            if number == 1 and leave == "raise":
                raise ValueError
            yield number

    run = outer()
    assert next(run) == 0
    if leave == "raise":
        with pytest.raises(ValueError, match=r"^$"):
            next(run)
    elif leave == "break":
        assert list(run) == []
    else:
        run.close()
    assert closed == [3]


def test_an_error_comes_through():
    def failing():
        yield 1
        raise KeyError("one")

    with pytest.raises(KeyError):
        finish(failing())
