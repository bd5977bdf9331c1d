"""A copy of an agent's folder follows what is written, through the lives of an agent, and is sound at any moment."""

import os
from pathlib import Path

import numpy as np
import pytest

from gossamer.network.mirror import Held, changes_of, take_over
from gossamer.runs import checkpoints
from gossamer.runs.checkpoints import Checkpoint
from gossamer.runs.folder import MetricsLog, write_json

LIKE = {"w": np.zeros(3)}


class Writer:
    """Writes a folder as an agent does: lines, and checkpoints that count on them."""

    def __init__(self, folder, offset=0, done=0):
        self.folder, self.done = folder, done
        folder.mkdir(exist_ok=True)
        self.log = MetricsLog(folder / "metrics.jsonl")
        self.log.truncate(offset)
        write_json(folder / "process.json", {"begun_at": done})

    def rounds(self, count):
        for _ in range(count):
            self.done += 1
            self.log.append([{"round": self.done}])

    def save(self):
        state = {"w": np.full(3, float(self.done))}
        checkpoint = Checkpoint(self.done, state, {"offset": self.log.offset})
        checkpoints.save(self.folder / "checkpoints", checkpoint)


def update(folder, copy, held):
    changes = changes_of(folder, held)
    take_over(copy, changes)
    return held.and_then(changes)


def content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def require_sound(copy):
    """Every checkpoint can be restored, and the metrics are as long as it says."""
    for number in checkpoints.rounds(copy / "checkpoints"):
        saved = checkpoints.restore(copy / "checkpoints", number, LIKE)
        np.testing.assert_array_equal(saved.state["w"], float(number))
        assert (copy / "metrics.jsonl").stat().st_size >= saved.metadata["offset"]


def test_a_copy_follows_a_folder(tmp_path):
    generator = np.random.default_rng(0)
    writer, copy, held = Writer(tmp_path / "agent"), tmp_path / "copy", Held()
    for _ in range(12):
        writer.rounds(int(generator.integers(3)))
        if generator.random() < 0.4:
            writer.save()
        if generator.random() < 0.5:
            held = update(writer.folder, copy, held)
            assert content(copy) == content(writer.folder)
            require_sound(copy)
    writer.log.close()


def test_only_what_is_new_is_carried(tmp_path):
    writer = Writer(tmp_path / "agent")
    writer.rounds(3)
    writer.save()
    held = Held().and_then(changes_of(writer.folder))
    nothing = changes_of(writer.folder, held)
    assert (nothing.grown, nothing.checkpoints) == ({}, {})
    assert nothing.kept == {"checkpoints/3"}
    writer.rounds(1)
    assert changes_of(writer.folder, held).grown == {"metrics.jsonl": (39, b'{"round": 4}\n')}
    writer.log.close()


def test_a_new_life_that_was_cut_back_replaces_what_the_copy_has(tmp_path):
    """Lines after the last checkpoint come again, and others; the copy has neither twice."""
    writer, copy = Writer(tmp_path / "agent"), tmp_path / "copy"
    writer.rounds(2)
    writer.save()
    offset = writer.log.offset
    writer.rounds(3)
    update(writer.folder, copy, Held())
    writer.log.close()

    again = Writer(tmp_path / "agent", offset, done=2)
    held = update(again.folder, copy, Held())
    assert content(copy) == content(again.folder)
    again.rounds(5)
    again.save()
    update(again.folder, copy, held)
    assert content(copy) == content(again.folder)
    require_sound(copy)
    again.log.close()


def test_a_copy_begins_a_folder_elsewhere(tmp_path):
    writer = Writer(tmp_path / "agent")
    writer.rounds(2)
    writer.save()
    writer.log.close()
    update(writer.folder, tmp_path / "copy", Held())
    take_over(tmp_path / "elsewhere", changes_of(tmp_path / "copy"))
    assert content(tmp_path / "elsewhere") == content(writer.folder)


@pytest.mark.parametrize("reads", [1, None], ids=["first", "last"])
def test_a_checkpoint_that_goes_while_it_is_read_is_left_out(tmp_path, monkeypatch, reads):
    writer = Writer(tmp_path / "agent")
    writer.rounds(1)
    writer.save()
    writer.log.close()
    saved = writer.folder / "checkpoints" / "1"
    reads = reads or len(content(saved))
    read_bytes, count = Path.read_bytes, 0

    def read_and_go(path):
        nonlocal count
        data, count = read_bytes(path), count + 1
        if count == reads:
            os.replace(saved, saved.with_name("removing-1"))
        return data

    monkeypatch.setattr(Path, "read_bytes", read_and_go)
    assert changes_of(writer.folder).checkpoints == {}
    assert count >= reads


def test_a_copy_is_sound_wherever_taking_over_is_cut_short(tmp_path, monkeypatch):
    writer = Writer(tmp_path / "agent")
    writer.rounds(2)
    writer.save()
    first = changes_of(writer.folder)
    writer.rounds(2)
    writer.save()
    writer.rounds(2)
    writer.save()
    second = changes_of(writer.folder, Held().and_then(first))
    writer.log.close()

    replace, cut = os.replace, 0
    while True:
        copy, left = tmp_path / f"copy-{cut}", cut
        take_over(copy, first)

        def killed(*arguments):
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
            replace(*arguments)

        monkeypatch.setattr(os, "replace", killed)
        try:
            take_over(copy, second)
        except KeyboardInterrupt:
            monkeypatch.setattr(os, "replace", replace)
            require_sound(copy)
            assert checkpoints.rounds(copy / "checkpoints")
            cut += 1
            continue
        break
    assert cut >= 3
    monkeypatch.setattr(os, "replace", replace)
    assert content(copy) == content(writer.folder)
