"""A checkpoint comes back bit for bit or is seen to be damaged; a killed save costs none complete."""

import errno
import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from safetensors.numpy import load
from safetensors.numpy import save as dump

from gossamer.errors import InputError
from gossamer.runs import checkpoints
from gossamer.runs.checkpoints import Checkpoint, DamagedCheckpoint, restore, restore_newest, rounds, save


class State(NamedTuple):
    params: Any
    optimiser: Any
    updates: Any
    active: Any
    extra: Any


def make_state(agents=3, seed=0):
    rng = np.random.default_rng(seed)
    params = {
        "layer/0": {"kernel": jnp.asarray(rng.standard_normal((agents, 4, 2)), jnp.float32)},
        "layer.1": (jnp.asarray(rng.standard_normal((agents, 2)), jnp.bfloat16), None),
    }
    return State(
        params=params,
        optimiser=optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3)).init(params),
        updates=jnp.arange(agents, dtype=jnp.int32),
        active=jnp.arange(agents) % 2 == 0,
        extra=[
            rng.standard_normal((2, agents)),  # double precision, which only numpy holds here
            np.float32(0.5),
            np.zeros((0, 3), np.int16),
            np.array([0x7FC00001, 0xFF800000, 0x80000000, 1], np.uint32).view(
                np.float32
            ),  # NaN with payload, -0
            np.asfortranarray(rng.standard_normal((3, 5)).astype(np.float32)),
            jnp.asarray(2**32 - 1, jnp.uint32),
            rng.standard_normal((64, 64)),
        ],
    )


def assert_identical(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for ours, theirs in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        assert isinstance(ours, jax.Array) == isinstance(theirs, jax.Array)
        assert np.asarray(ours).tobytes() == np.asarray(theirs).tobytes()


STATE = make_state()


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    """Two checkpoints; tests that damage them work on a copy."""
    folder = tmp_path_factory.mktemp("pristine")
    for number in (20, 40):
        save(folder, Checkpoint(number, make_state(seed=number), {"offset": number}))
    return folder


@pytest.fixture
def folder(pristine, tmp_path):
    return shutil.copytree(pristine, tmp_path / "checkpoints")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


class TestRoundTrip:
    def test_state_and_metadata_are_exact(self, pristine):
        found = restore_newest(pristine, like=STATE)
        assert (found.round, found.metadata) == (40, {"offset": 40})
        assert_identical(found.state, make_state(seed=40))

    def test_typed_keys_come_back_as_such(self, tmp_path):
        state = {
            "one": jax.random.key(3),
            "many": jax.random.split(jax.random.key(1), (2, 3)),
            "other generator": jax.random.key(3, impl="rbg"),
        }
        save(tmp_path, Checkpoint(0, state, {}))
        for like in (state, jax.eval_shape(lambda: state)):
            found = restore_newest(tmp_path, like).state
            for name, keys in state.items():
                assert found[name].dtype == keys.dtype
                assert (jax.random.bits(found[name].ravel()[0]) == jax.random.bits(keys.ravel()[0])).all()
                assert (jax.random.key_data(found[name]) == jax.random.key_data(keys)).all()
        with pytest.raises(
            InputError, match=r"holds \['one'\] as uint32\[2\], this run expects .* uint32\[4\]"
        ):
            restore_newest(tmp_path, {**state, "one": jax.random.key(3, impl="rbg")})

    def test_any_round_can_be_restored(self, pristine):
        assert rounds(pristine) == [20, 40]
        assert_identical(restore(pristine, 20, like=STATE).state, make_state(seed=20))

    def test_shapes_are_enough_to_restore(self, tmp_path):
        state = (STATE.params, STATE.optimiser)
        save(tmp_path, Checkpoint(0, state, {}))
        like = jax.eval_shape(lambda: state)
        assert_identical(restore_newest(tmp_path, like).state, state)

    @pytest.mark.parametrize("state", [(), {"a": np.zeros((0, 2))}, jnp.float32(3.0)])
    def test_states_of_few_arrays(self, tmp_path, state):
        save(tmp_path, Checkpoint(1, state, {}))
        assert_identical(restore_newest(tmp_path, state).state, state)

    def test_a_relative_folder_works(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        save(Path("run/checkpoints"), Checkpoint(1, STATE.params, {}))
        assert_identical(restore_newest(Path("run/checkpoints"), STATE.params).state, STATE.params)

    def test_restored_arrays_can_be_donated(self, pristine):
        state = restore_newest(pristine, like=STATE).state.params
        add = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf + leaf, tree), donate_argnums=0)
        doubled = jax.tree.map(lambda leaf: leaf + leaf, make_state(seed=40).params)
        assert_identical(add(state), doubled)


class TestDamage:
    @pytest.mark.parametrize("kind", ["truncated", "emptied", "flipped", "deleted"])
    def test_damage_to_any_file_is_seen(self, pristine, tmp_path, kind):
        files = [str(file.relative_to(pristine)) for file in (pristine / "40").rglob("*") if file.is_file()]
        assert len(files) == 2
        for index, name in enumerate(files):
            folder = tmp_path / str(index)
            shutil.copytree(pristine, folder)
            damage(folder / name, kind)
            with pytest.raises(InputError, match=r"40 is damaged \("):
                restore(folder, 40, like=STATE)

    def test_every_byte_of_the_record_matters(self, folder):
        file = folder / "40" / "checkpoint.json"
        content = file.read_bytes()
        for position in range(0, len(content), 7):
            file.write_bytes(flip(content, position))
            with pytest.raises(InputError, match="40 is damaged"):
                restore(folder, 40, like=STATE)

    @pytest.mark.parametrize("kind", ["truncated", "flipped", "deleted"])
    def test_the_one_before_is_used(self, folder, kind):
        damage(largest(folder / "40"), kind)
        with pytest.warns(DamagedCheckpoint) as caught:
            found = restore_newest(folder, like=STATE)
        (warning,) = caught
        message = str(warning.message)
        assert message.startswith(f"{folder / '40'} is damaged (state.safetensors")
        assert message.endswith(f"); {folder / '20'} is used instead")
        assert (found.round, found.metadata) == (20, {"offset": 20})
        assert_identical(found.state, make_state(seed=20))

    def test_an_emptied_directory_is_damage(self, folder):
        shutil.rmtree(folder / "40")
        (folder / "40").mkdir()
        with pytest.warns(DamagedCheckpoint, match=r"checkpoint\.json: No such file or directory"):
            assert restore_newest(folder, like=STATE).round == 20

    def test_a_renamed_checkpoint_is_damage(self, folder):
        (folder / "40").rename(folder / "60")
        with pytest.warns(DamagedCheckpoint, match="60 is damaged"):
            assert restore_newest(folder, like=STATE).round == 20

    def test_arrays_that_are_not_those_of_the_record_are_damage(self, folder):
        """Every digest is right, so that only the content of the files tells."""
        record = json.loads((folder / "40" / "checkpoint.json").read_text())["record"]
        arrays = load(b := (folder / "40" / "state.safetensors").read_bytes())
        fewer = dict(list(arrays.items())[1:])
        reshaped = {name: array.reshape(-1, 1) for name, array in arrays.items()}
        promised_more = b.replace(b'"shape":[3]', b'"shape":[9]', 1)
        for content in (dump(fewer), dump(reshaped), promised_more, b"\xff" * 8 + b, b""):
            reseal(folder / "40", record, content)
            with pytest.raises(InputError, match=r"40 is damaged \(state\.safetensors does not hold"):
                restore(folder, 40, like=STATE)

    def test_records_without_what_is_needed_are_damage(self, folder):
        record = json.loads((folder / "40" / "checkpoint.json").read_text())["record"]
        content = (folder / "40" / "state.safetensors").read_bytes()
        for key in ("metadata", "leaves", "sha256"):
            fewer = {name: value for name, value in record.items() if name != key}
            reseal(folder / "40", fewer, content)
            if key != "sha256":
                with pytest.raises(InputError, match=rf"40 is damaged \(checkpoint\.json lacks {key}\)"):
                    restore(folder, 40, like=STATE)

    @pytest.mark.parametrize("name", ["state.safetensors", "checkpoint.json"])
    def test_only_regular_files_of_the_expected_size_are_read(self, folder, name):
        file = folder / "40" / name
        for replace in (lambda: os.mkfifo(file), lambda: file.symlink_to("/dev/zero"), lambda: grow(file)):
            file.unlink()
            replace()
            with pytest.raises(InputError, match="is not a regular file of at most"):
                restore(folder, 40, like=STATE)

    def test_none_left_is_an_error_that_names_all(self, folder):
        for number in (20, 40):
            damage(largest(folder / str(number)), "flipped")
        with pytest.raises(
            InputError, match=r"no checkpoint in .* can be read: .*/40 is .*; .*/20 is .*new run"
        ):
            restore_newest(folder, like=STATE)

    def test_a_damaged_later_checkpoint_does_not_outlive_the_next_save(self, folder):
        damage(largest(folder / "40"), "flipped")
        save(folder, Checkpoint(30, STATE, {}), keep=1)
        assert names(folder) == ["30"]
        assert restore_newest(folder, like=STATE).round == 30


def reseal(path, record, content):
    (path / "state.safetensors").write_bytes(content)
    if "sha256" in record:
        record = {**record, "sha256": hashlib.sha256(content).hexdigest()}
    (path / "checkpoint.json").write_text(checkpoints._sealed(record))


def grow(file):
    with file.open("wb") as sparse:
        sparse.truncate(1 << 40)


def damage(file, kind):
    content = file.read_bytes()
    if kind == "deleted":
        file.unlink()
    elif kind == "flipped":
        file.write_bytes(flip(content, len(content) // 2))
    else:
        file.write_bytes(content[:-1] if kind == "truncated" else b"")


def flip(content, position):
    return content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]


def largest(folder):
    return max((file for file in folder.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)


class TestFit:
    def test_another_number_of_agents_is_no_damage(self, pristine):
        message = (
            r"40 holds \.params\['layer.1'\]\[0\] as bfloat16\[3, 2\], .* expects .* as bfloat16\[5, 2\]"
        )
        with pytest.raises(InputError, match=message):
            restore_newest(pristine, like=make_state(agents=5))

    def test_another_dtype(self, pristine):
        like = STATE._replace(updates=np.arange(3))
        with pytest.raises(
            InputError, match=r"\.updates as int32\[3\], this run expects \.updates as int64\[3\]"
        ):
            restore_newest(pristine, like=like)

    def test_another_structure(self, pristine):
        like = STATE._replace(optimiser=optax.sgd(1e-3).init(STATE.params))
        with pytest.raises(InputError, match=r"40 holds \.optimiser\[1\].* where this run has \.updates"):
            restore_newest(pristine, like=like)

    def test_more_or_fewer_arrays(self, pristine):
        for extra, count in ((STATE.extra[:-1], 15), ([*STATE.extra, np.zeros(1)], 17)):
            with pytest.raises(InputError, match=f"holds 16 arrays, this run expects {count}; resume with"):
                restore_newest(pristine, like=STATE._replace(extra=extra))

    def test_another_format(self, folder):
        record = json.loads((folder / "40" / "checkpoint.json").read_text())["record"]
        for number in (0, 3, "2", None):
            reseal(folder / "40", {**record, "format": number}, b"")
            with pytest.raises(
                InputError, match=r"has format .*; this version of gossamer reads formats 1 and 2"
            ):
                restore(folder, 40, like=STATE)

    def test_no_checkpoint(self, tmp_path):
        for folder in (tmp_path, tmp_path / "missing"):
            assert rounds(folder) == []
            with pytest.raises(InputError, match="holds no checkpoint; give the checkpoints of a run"):
                restore_newest(folder, like=STATE)

    def test_no_such_round(self, pristine):
        with pytest.raises(InputError, match="holds no checkpoint of round 30; it holds 20, 40"):
            restore(pristine, 30, like=STATE)


class TestSave:
    def test_keeps_the_newest(self, tmp_path):
        for number in (0, 9, 10, 100):
            save(tmp_path, Checkpoint(number, STATE.updates, {}), keep=3)
        assert rounds(tmp_path) == [9, 10, 100]
        save(tmp_path, Checkpoint(101, STATE.updates, {}))
        assert names(tmp_path) == ["100", "101"]

    def test_the_same_round_is_replaced(self, tmp_path):
        for value in (1, 2):
            save(tmp_path, Checkpoint(5, jnp.int32(value), {"value": value}), keep=1)
        found = restore_newest(tmp_path, jnp.int32(0))
        assert (int(found.state), found.metadata) == (2, {"value": 2})
        assert names(tmp_path) == ["5"]

    def test_what_is_not_a_checkpoint_stays(self, tmp_path):
        for name in ("notes", "007", "-1", "1.old"):
            (tmp_path / name).mkdir()
        for number in (1, 2):
            save(tmp_path, Checkpoint(number, STATE.updates, {}), keep=1)
        assert names(tmp_path) == sorted(["notes", "007", "-1", "1.old", "2"])
        assert rounds(tmp_path) == [2]

    def test_all_is_synced_before_it_is_named(self, tmp_path, monkeypatch):
        calls = []
        replace, fsync = os.replace, os.fsync

        def record_sync(descriptor):
            calls.append(os.readlink(f"/proc/self/fd/{descriptor}"))
            fsync(descriptor)

        def record_rename(source, target):
            calls.append("rename")
            replace(source, target)

        monkeypatch.setattr(checkpoints.os, "fsync", record_sync)
        monkeypatch.setattr(checkpoints.os, "replace", record_rename)
        path = save(tmp_path, Checkpoint(1, STATE.updates, {}))
        before, after = calls[: calls.index("rename")], calls[calls.index("rename") + 1 :]
        written = {str(tmp_path / "saving-1" / inner.relative_to(path)) for inner in (path, *path.rglob("*"))}
        assert set(before) == written
        assert after == [str(tmp_path)]

    @pytest.mark.parametrize(
        "metadata", [{"a": float("nan")}, {"a": (1, 2)}, {"a": {1: 2}}, {"a": STATE.updates}]
    )
    def test_metadata_that_would_not_come_back_is_refused(self, tmp_path, metadata):
        with pytest.raises(InputError, match="it must be plain JSON data"):
            save(tmp_path / "new", Checkpoint(1, STATE.updates, metadata))
        assert names(tmp_path) == []

    @pytest.mark.parametrize(("leaf", "kind"), [(3, "int"), ("text", "str")], ids=str)
    def test_leaves_that_are_no_arrays_are_refused(self, tmp_path, leaf, kind):
        with pytest.raises(TypeError, match=rf"leaf \['a'\] is of type {kind}; a checkpoint holds"):
            save(tmp_path, Checkpoint(1, {"a": leaf}, {}))
        assert rounds(tmp_path) == []

    @pytest.mark.parametrize(("number", "keep"), [(-1, 2), (1, 0)])
    def test_numbers_too_small_are_refused(self, tmp_path, number, keep):
        with pytest.raises(InputError, match="it must be at least"):
            save(tmp_path, Checkpoint(number, STATE.updates, {}), keep=keep)


KILLED_SAVES = """
import os, shutil, signal, sys
import numpy as np
from gossamer.runs.checkpoints import Checkpoint, save

def saver(folder, module, name, calls):
    state = {"weight": np.arange(1000.0)}
    save(folder, Checkpoint(1, state, {}), keep=1)
    original, counts = getattr(module, name), iter(range(calls))
    def kill(*arguments, **options):
        if next(counts) == calls - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **options)
    setattr(module, name, kill)
    save(folder, Checkpoint(2, state, {}), keep=1)

from pathlib import Path
for case in sys.argv[2:]:
    name, calls = case.split(":")
    module = shutil if name == "rmtree" else os
    process = os.fork()
    if process == 0:
        saver(Path(sys.argv[1]) / case, module, name, int(calls))
        os._exit(0)
    print(case, os.WTERMSIG(os.waitpid(process, 0)[1]))
"""

# Call of which function kills, and the round that must survive: the sync of the arrays, of the record and of the
# directory; the rename of the new checkpoint; that of the old; its removal.
KILLS = {
    "fsync:1": 1,
    "fsync:2": 1,
    "fsync:3": 1,
    "replace:1": 1,
    "replace:2": 2,
    "rmtree:1": 2,
    "rmdir:1": 2,
}


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """One folder for each way to be killed; one process forks all, since importing takes seconds."""
    folder = tmp_path_factory.mktemp("killed")
    command = [sys.executable, "-W", "ignore", "-c", KILLED_SAVES, str(folder), *KILLS]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    signals = dict(line.split() for line in done.stdout.splitlines() if line.split()[0] in KILLS)
    assert signals == dict.fromkeys(KILLS, str(int(signal.SIGKILL)))
    return folder


@pytest.mark.parametrize(("kill", "survivor"), KILLS.items())
def test_a_killed_save_leaves_a_complete_checkpoint(killed, kill, survivor):
    folder, like = killed / kill, {"weight": np.arange(1000.0)}
    assert any(name.startswith(("saving-", "removing-")) for name in names(folder)) or kill == "replace:2"
    found = restore_newest(folder, like)
    assert found.round == survivor
    assert_identical(found.state, like)
    save(folder, Checkpoint(3, like, {}))
    assert names(folder) == ["2", "3"] if survivor == 2 else ["1", "3"]


def test_what_the_system_refuses_to_write_is_its_error_and_what_was_saved_is_kept(tmp_path):
    """A limit on the length of files stands for a full disk."""
    save(tmp_path, Checkpoint(1, {"weight": jnp.ones(3)}, {}))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    noise = np.random.default_rng(0).normal(size=200_000)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        with pytest.raises(OSError, match="File too large") as refused:
            save(tmp_path, Checkpoint(2, {"weight": noise}, {}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert refused.value.errno == errno.EFBIG
    assert rounds(tmp_path) == [1]
