"""The run folder: taken or unwritable places are refused untouched, and what was logged is read back."""

import json
import math
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gossamer.errors import InputError
from gossamer.runs import folder
from gossamer.runs.folder import (
    EventLog,
    MetricsLog,
    create_run,
    provenance,
    read_config,
    read_metrics,
    replace_config,
    summarise,
    write_json,
)


def contents(folder):
    return {str(path.relative_to(folder)): path.is_file() and path.read_bytes() for path in folder.rglob("*")}


class TestRunFolder:
    def test_config_is_read_back(self, tmp_path):
        data = {"seed": 3, "rates": [0.1, 1e-300], "out": None, "name": "δ"}
        path = create_run(tmp_path / "deep" / "run", data)
        assert path == tmp_path / "deep" / "run"
        assert read_config(path) == {"format": 2, **data}
        assert contents(path).keys() == {"config.json"}

    def test_an_empty_directory_is_taken(self, tmp_path):
        assert read_config(create_run(tmp_path, {"seed": 0})) == {"format": 2, "seed": 0}

    def test_a_run_is_never_overwritten(self, tmp_path):
        create_run(tmp_path, {"seed": 0})
        with pytest.raises(
            InputError, match=rf"already holds a run; continue it \(--resume {re.escape(str(tmp_path))}\)"
        ):
            create_run(tmp_path, {"seed": 1})
        assert read_config(tmp_path) == {"format": 2, "seed": 0}

    def test_a_directory_in_use_is_refused(self, tmp_path):
        (tmp_path / "notes").write_text("mine")
        with pytest.raises(InputError, match=r"not empty; give another folder \(--out\)"):
            create_run(tmp_path, {})
        assert contents(tmp_path) == {"notes": b"mine"}

    def test_a_file_is_refused(self, tmp_path):
        (tmp_path / "file").write_text("mine")
        with pytest.raises(InputError, match=r"is a file; give another folder \(--out\)"):
            create_run(tmp_path / "file", {})
        assert contents(tmp_path) == {"file": b"mine"}

    def test_a_place_below_a_file_is_refused(self, tmp_path):
        (tmp_path / "file").write_text("mine")
        with pytest.raises(InputError, match=r"cannot be written \(Not a directory\)"):
            create_run(tmp_path / "file" / "run", {})
        assert contents(tmp_path) == {"file": b"mine"}

    @pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a file system that nobody may write to")
    def test_an_unwritable_parent_is_refused(self):
        with pytest.raises(InputError, match="/proc/run cannot be written"):
            create_run(Path("/proc/run"), {})

    def test_parents_made_in_vain_are_removed(self, tmp_path):
        with pytest.raises(InputError, match="File name too long"):
            create_run(tmp_path / "new" / ("x" * 300), {})
        assert contents(tmp_path) == {}

    def test_a_failing_write_leaves_nothing(self, tmp_path, monkeypatch):
        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(folder.os, "replace", full)
        with pytest.raises(InputError, match="No space left on device"):
            create_run(tmp_path / "new" / "run", {})
        assert contents(tmp_path) == {}

    @pytest.mark.parametrize("data", [{"rate": math.nan}, {"path": Path("a")}])
    def test_data_that_is_not_json_is_refused(self, tmp_path, data):
        with pytest.raises(InputError, match="not plain JSON data"):
            create_run(tmp_path / "run", data)
        assert contents(tmp_path) == {}

    def test_another_folder_is_no_run(self, tmp_path):
        with pytest.raises(
            InputError, match=r"is not a run folder; it must be a directory that holds config\.json"
        ):
            read_config(tmp_path)

    @pytest.mark.parametrize("content", [b'{"seed": ', b"\xff\xfe\xfd"])
    def test_an_unreadable_config_is_refused(self, tmp_path, content):
        (tmp_path / "config.json").write_bytes(content)
        with pytest.raises(InputError, match=r"config\.json cannot be read"):
            read_config(tmp_path)

    def test_a_config_that_is_no_object_is_refused(self, tmp_path):
        (tmp_path / "config.json").write_text("[]")
        with pytest.raises(InputError, match="holds no JSON object"):
            read_config(tmp_path)


class TestOtherFiles:
    def test_a_config_is_replaced_whole(self, tmp_path):
        replace_config(create_run(tmp_path / "run", {"rounds": 20}), {"rounds": 40})
        assert read_config(tmp_path / "run") == {"format": 2, "rounds": 40}
        with pytest.raises(InputError, match="not plain JSON data"):
            replace_config(tmp_path / "run", {"rounds": math.inf})
        assert read_config(tmp_path / "run") == {"format": 2, "rounds": 40}
        assert contents(tmp_path / "run").keys() == {"config.json"}

    def test_a_config_without_a_folder_is_refused(self, tmp_path):
        with pytest.raises(InputError, match=r"missing cannot be written \(No such file or directory\)"):
            replace_config(tmp_path / "missing", {})

    def test_json_files_hold_null_for_what_is_not_finite(self, tmp_path):
        write_json(tmp_path / "result.json", {"returns": (1.5, math.nan), "task": np.int64(3)})
        assert json.loads((tmp_path / "result.json").read_text()) == {"returns": [1.5, None], "task": 3}

    def test_a_json_file_below_a_file_is_refused(self, tmp_path):
        (tmp_path / "file").write_text("mine")
        with pytest.raises(InputError, match=r"cannot be written \(Not a directory\)"):
            write_json(tmp_path / "file" / "result.json", {})


class TestProvenance:
    def test_names_versions_and_devices(self):
        import jax

        found = provenance()
        json.dumps(found)
        assert found["python"] == ".".join(map(str, sys.version_info[:3]))
        assert (found["jax"], found["numpy"]) == (jax.__version__, np.__version__)
        assert found["device_count"] == jax.device_count()
        assert (found["cores"], type(found["processor"])) == (os.cpu_count(), str)
        assert found["prng"] == "threefry2x32"
        with jax.default_prng_impl("rbg"):
            assert provenance()["prng"] == "rbg"
        assert found.keys() >= {
            "gossamer",
            "jaxlib",
            "flax",
            "optax",
            "platform",
            "device_kind",
            "git_revision",
        }

    def test_revision_is_that_of_the_tracked_source_only(self, tmp_path):
        def git(*arguments):
            identity = ("-c", "user.name=a", "-c", "user.email=a@b")
            command = ("git", "-C", str(tmp_path), *identity, *arguments)
            return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

        git("init", "--quiet")
        source, other = tmp_path / "source.py", tmp_path / "installed.py"
        source.write_text("a")
        other.write_text("b")
        git("add", "source.py")
        git("commit", "--quiet", "-m", "first")
        git("tag", "-a", "v1", "-m", "tags are no revisions")
        head = git("rev-parse", "HEAD")
        assert folder._git_revision(source) == head
        assert folder._git_revision(other) is None
        source.write_text("changed")
        assert folder._git_revision(source) == f"{head}-dirty"

    def test_without_git_there_is_no_revision(self, monkeypatch):
        monkeypatch.setenv("PATH", "")
        assert provenance()["git_revision"] is None

    def test_a_missing_package_has_no_version(self):
        assert folder._version("no-such-package-anywhere") is None

    def test_readers_of_records_do_not_wait_for_slow_imports(self):
        code = "import sys, gossamer.runs.folder; print({'tensorboardX', 'orbax'} & set(sys.modules))"
        done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        assert done.stdout.strip() == "set()"


json_rows = st.dictionaries(
    st.text(max_size=5),
    st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
)


@pytest.fixture
def log(tmp_path):
    with MetricsLog(tmp_path / "metrics.jsonl") as log:
        yield log


class TestMetrics:
    @given(batches=st.lists(st.lists(json_rows, max_size=3), max_size=3))
    def test_rows_are_read_back(self, tmp_path_factory, batches):
        path = tmp_path_factory.mktemp("run") / "metrics.jsonl"
        with MetricsLog(path) as log:
            for batch in batches:
                log.append(batch)
                assert log.offset == path.stat().st_size
        assert read_metrics(path) == [row for batch in batches for row in batch]

    def test_rows_are_readable_as_soon_as_appended(self, log):
        log.append([{"round": 0}])
        assert read_metrics(log.path) == [{"round": 0}]

    def test_all_rows_go_in_one_write(self, log, monkeypatch):
        writes = []
        monkeypatch.setattr(
            log, "_file", type("File", (), {"write": writes.append, "flush": lambda self: None})()
        )
        monkeypatch.setattr(type(log._file), "write", lambda self, data: writes.append(data))
        log.append([{"round": 0}, {"round": 1}])
        assert writes == [b'{"round": 0}\n{"round": 1}\n']
        monkeypatch.undo()

    def test_non_finite_becomes_null_at_every_depth(self, log):
        log.append([{"a": math.nan, "b": {"c": [1.0, math.inf]}, "d": (-math.inf,), "e": np.float32("nan")}])
        assert read_metrics(log.path) == [{"a": None, "b": {"c": [1.0, None]}, "d": [None], "e": None}]

    def test_numpy_numbers_are_numbers(self, log):
        log.append([{"a": np.float32(0.5), "b": np.int64(3), "c": np.bool_(True)}])
        assert read_metrics(log.path) == [{"a": 0.5, "b": 3, "c": True}]

    def test_opening_again_continues(self, log):
        log.append([{"round": 0}])
        log.close()
        with MetricsLog(log.path) as again:
            assert again.offset == len(b'{"round": 0}\n')
            again.append([{"round": 1}])
        assert read_metrics(log.path) == [{"round": 0}, {"round": 1}]

    def test_truncation_forgets_what_came_after(self, log):
        log.append([{"round": 0}])
        offset = log.offset
        log.append([{"round": 1}])
        log.truncate(offset)
        log.append([{"round": 2}])
        assert read_metrics(log.path) == [{"round": 0}, {"round": 2}]
        log.truncate(0)
        assert read_metrics(log.path) == []

    def test_a_file_shorter_than_recorded_is_refused(self, log):
        log.append([{"round": 0}])
        with pytest.raises(
            InputError, match="holds 13 bytes where 14 were recorded: the metrics were damaged"
        ):
            log.truncate(14)
        assert read_metrics(log.path) == [{"round": 0}]

    def test_an_offset_inside_a_line_is_refused(self, log):
        log.append([{"round": 0}])
        with pytest.raises(InputError, match="no line that ends at byte 5: the metrics were damaged"):
            log.truncate(5)
        assert read_metrics(log.path) == [{"round": 0}]

    @given(kept=st.integers(0, 26))
    def test_a_crash_at_any_byte_costs_only_the_line_it_cut(self, tmp_path_factory, kept):
        path = tmp_path_factory.mktemp("run") / "metrics.jsonl"
        path.write_bytes(b'{"round": 0}\n{"round": 1}\n'[:kept])
        complete = [{"round": number} for number in range(kept // 13)]
        assert read_metrics(path) == complete
        with MetricsLog(path) as log:
            log.append([{"round": 9}])
        assert read_metrics(path) == [*complete, {"round": 9}]

    @pytest.mark.parametrize("line", [b'{"round": 1', b"", b"3", b"\xff"])
    def test_a_bad_line_is_named(self, tmp_path, line):
        path = tmp_path / "metrics.jsonl"
        path.write_bytes(b'{"round": 0}\n' + line + b'\n{"round": 2}\n')
        with pytest.raises(
            InputError, match=r"line 2 of .*metrics\.jsonl is .*; every line must be a JSON object"
        ):
            read_metrics(path)

    def test_a_missing_file_is_refused(self, tmp_path):
        with pytest.raises(InputError, match=r"cannot be read \(No such file or directory\)"):
            read_metrics(tmp_path / "metrics.jsonl")

    def test_an_unwritable_file_is_refused(self, tmp_path):
        with pytest.raises(InputError, match=r"cannot be written \(Is a directory\)"):
            MetricsLog(tmp_path)

    def test_sync_reaches_the_disk(self, log, monkeypatch):
        synced = []
        monkeypatch.setattr(folder.os, "fsync", synced.append)
        log.sync()
        assert synced == [log._file.fileno()]


def read_events(folder):
    """All events of all files in the order TensorBoard reads them, with their checksums verified."""
    from tensorboardX.proto import event_pb2
    from tensorboardX.record_writer import masked_crc32c

    events = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            assert struct.unpack("<I", data[8:12])[0] == masked_crc32c(data[:8])
            body = data[12 : 12 + length]
            assert struct.unpack("<I", data[12 + length : 16 + length])[0] == masked_crc32c(body)
            events.append(getattr(event_pb2, "Event").FromString(body))  # noqa: B009 - made at import by protobuf
            data = data[16 + length :]
    return events


def scalars(event):
    return {value.tag: value.simple_value for value in event.summary.value}


class TestEvents:
    def test_scalars_are_read_back_once_flushed(self, tmp_path):
        with EventLog(tmp_path) as log:
            log.write(25_000, {"charts/episodic_return": 21.5, "losses/actor": -0.25}, wall_time=1.5e9)
            log.write(2**40, {"charts/SPS": 4.0})
            log.flush()
            head, first, second = read_events(tmp_path)
        assert head.file_version == "brain.Event:2"
        assert (first.step, first.wall_time) == (25_000, 1.5e9)
        assert scalars(first) == {"charts/episodic_return": 21.5, "losses/actor": -0.25}
        assert (second.step, scalars(second)) == (2**40, {"charts/SPS": 4.0})
        assert second.wall_time > 1.5e9

    def test_closing_keeps_what_was_not_flushed(self, tmp_path):
        log = EventLog(tmp_path)
        log.write(1, {"a": 1.0})
        log.close()
        assert scalars(read_events(tmp_path)[-1]) == {"a": 1.0}

    def test_resuming_hides_later_events_and_keeps_earlier_files(self, tmp_path):
        for purge_step in (None, 20, 30):
            with EventLog(tmp_path, purge_step=purge_step) as log:
                log.write(25, {"a": 1.0})
        assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 3
        # TensorBoard drops earlier events at or after the step of an event whose session log says START (1).
        marks = [(event.step, event.session_log.status) for event in read_events(tmp_path)]
        assert marks == [(0, 0), (25, 0), (0, 0), (20, 1), (25, 0), (0, 0), (30, 1), (25, 0)]


class TestSummarise:
    def test_small_populations_are_listed(self):
        values = np.arange(100, dtype=np.int32)
        assert summarise(values) == {"each": list(range(100))}

    @given(arrays(np.float64, st.integers(101, 400), elements=st.floats(-1e6, 1e6)))
    def test_large_populations_against_sorting(self, values):
        found = summarise(values)
        ordered = np.sort(values)

        def level(q):  # linear interpolation between the order statistics around q (n - 1)
            position = q * (len(ordered) - 1)
            below = math.floor(position)
            above = min(below + 1, len(ordered) - 1)
            return ordered[below] + (position - below) * (ordered[above] - ordered[below])

        expected = {"min": 0, "q05": 0.05, "q25": 0.25, "median": 0.5, "q75": 0.75, "q95": 0.95, "max": 1}
        assert list(found["quantiles"]) == list(expected)
        # Both interpolate in double precision; values up to 1e6 leave about 1e-10.
        np.testing.assert_allclose(
            list(found["quantiles"].values()), [level(q) for q in expected.values()], rtol=1e-12, atol=1e-8
        )
        agents = found["sample"]["agent"]
        assert found["sample"]["value"] == values[agents].tolist()

    @given(st.integers(101, 20_000))
    def test_sampled_agents_are_distinct_and_evenly_spaced(self, count):
        agents = summarise(np.zeros(count))["sample"]["agent"]
        assert (len(agents), agents[0], agents[-1]) == (16, 0, count - 1)
        # Rounding moves each end of a gap by at most one half.
        assert np.abs(np.diff(agents) - (count - 1) / 15).max() <= 1
        assert np.diff(agents).min() > 0

    def test_agents_that_diverged_are_not_hidden(self, log):
        values = np.zeros(200, np.float32)
        values[[0, 7]] = np.nan, np.inf
        log.append([{"loss": summarise(values)}])
        (row,) = read_metrics(log.path)
        assert row["loss"]["quantiles"]["max"] is None
        assert row["loss"]["sample"]["value"][0] is None

    def test_size_does_not_grow_with_the_population(self):
        sizes = [len(json.dumps(summarise(np.zeros(count)))) for count in (101, 100_000)]
        assert sizes[1] < 2 * sizes[0] < 2000


def test_config_is_synced_before_it_is_named(tmp_path, monkeypatch):
    calls = []
    replace = os.replace
    monkeypatch.setattr(folder.os, "fsync", lambda descriptor: calls.append("sync"))
    monkeypatch.setattr(folder.os, "replace", lambda a, b: (calls.append("rename"), replace(a, b)))
    create_run(tmp_path / "run", {})
    assert calls == ["sync", "rename", "sync"]
