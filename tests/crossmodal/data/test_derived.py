"""Arrays that are made once, by one of several processes."""

from __future__ import annotations

import os
import signal
import threading

import numpy as np
import pytest

from crossmodal.data.derived import derived

ROWS = np.arange(12).reshape(6, 2)


def fill(new) -> None:
    new(ROWS.shape, ROWS.dtype)[...] = ROWS


def test_of_two_that_ask_at_once_one_makes_it_and_the_other_waits(tmp_path, capsys):
    path, begun, go_on, made, found = tmp_path / "rows.npy", threading.Event(), threading.Event(), [], []

    def make(new) -> None:
        made.append(threading.get_ident())
        begun.set()
        assert go_on.wait(60)
        fill(new)

    both = [threading.Thread(target=lambda: found.append(derived(path, {}, make))) for _ in range(2)]
    both[0].start()
    assert begun.wait(60)
    both[1].start()
    said = ""
    for _ in range(6000):
        said += capsys.readouterr().out
        if "waiting for another process, which makes" in said:
            break
        both[1].join(0.01)
    go_on.set()
    for one in both:
        one.join(60)
    assert len(made) == 1
    assert [one.tolist() for one in found] == [ROWS.tolist()] * 2
    assert "waiting for another process, which makes" in said
    assert sorted(os.listdir(tmp_path)) == ["rows.npy", "rows.npy.json"]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_after_one_that_was_killed_the_next_begins_anew_and_removes_what_it_left(tmp_path):
    path, other = tmp_path / "rows.npy", tmp_path / ".rows-b-abcdefgh.npy"
    other.write_bytes(b"of another file, which is being made")

    def killed(new) -> None:
        fill(new)
        os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if not child:
        derived(path, {}, killed)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert len(os.listdir(tmp_path)) == 3  # with the half and the lock
    assert derived(path, {}, fill).tolist() == ROWS.tolist()
    assert sorted(os.listdir(tmp_path)) == [other.name, "rows.npy", "rows.npy.json"]
