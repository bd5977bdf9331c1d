"""Compiled programs are kept for the next process, and a cache that fails costs time only."""

import json
import os
import resource
import stat
import subprocess
import sys
import warnings

import jax
import pytest
from jax.experimental import serialize_executable
from jax.experimental.compilation_cache.compilation_cache import reset_cache

from gossamer.cli import main
from gossamer.system import compilation_cache
from gossamer.system.compilation_cache import (
    CacheWarning,
    cache_root,
    disable_cache,
    persistent_cache,
    processor,
    prune,
)

SETTINGS = (
    "jax_compilation_cache_dir",
    "jax_enable_compilation_cache",
    "jax_persistent_cache_min_compile_time_secs",
)


@pytest.fixture
def user(tmp_path, monkeypatch):
    """A user with an empty cache directory who has set none of JAX's variables."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in ("DIR", "MIN_COMPILE_TIME_SECS"):
        monkeypatch.delenv(f"JAX_COMPILATION_CACHE_{name}", raising=False)
    monkeypatch.delenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", raising=False)
    before = {name: getattr(jax.config, name) for name in SETTINGS}
    jax.config.update("jax_compilation_cache_dir", None)
    reset_cache()
    yield tmp_path
    for name, value in before.items():
        jax.config.update(name, value)
    reset_cache()


def run_program():
    """As a new process would: JAX does not know the function yet."""

    def tripled(x):
        return 3 * x

    return int(jax.jit(tripled)(14))


def programs():
    return list(cache_root().glob("*/jit_tripled-*-cache"))


def test_a_program_is_compiled_once(user):
    events = []
    jax.monitoring.register_event_listener(lambda event, **_: events.append(event))
    for _ in range(2):
        with persistent_cache() as folder:
            assert run_program() == 42
    assert [each.parent for each in programs()] == [folder]
    assert [each.rsplit("/", 1)[1] for each in events if each.endswith(("misses", "hits"))] == [
        "cache_misses",
        "cache_hits",
    ]


def test_settings_are_restored_even_where_blocks_are_nested(user):
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    before = [getattr(jax.config, name) for name in SETTINGS]
    with persistent_cache() as outer:
        with persistent_cache() as inner:
            assert inner == outer
        assert jax.config.jax_compilation_cache_dir == str(outer)
        jax.jit(lambda x: x / 4)(2.0)
    assert [getattr(jax.config, name) for name in SETTINGS] == before
    run_program()
    assert not programs()


def test_settings_of_the_caller_come_first(user, monkeypatch):
    jax.config.update("jax_compilation_cache_dir", str(user / "own"))
    with persistent_cache() as folder:
        assert folder == user / "own"
    assert jax.config.jax_compilation_cache_dir == str(user / "own")
    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    with persistent_cache() as folder:
        assert folder is None
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.setenv("JAX_ENABLE_COMPILATION_CACHE", "true")
    disable_cache()
    assert os.environ["JAX_ENABLE_COMPILATION_CACHE"] == "false"  # for processes that are started
    with persistent_cache() as folder:
        assert folder is None
    assert not cache_root().exists()


def test_a_minimum_that_the_user_sets_is_kept(user, monkeypatch):
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "100")
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 100.0)
    with persistent_cache():
        run_program()
    assert not programs()


def test_other_users_cannot_write_programs(user):
    with persistent_cache() as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE(cache_root().stat().st_mode) == 0o700
    cache_root().chmod(0o770)
    with pytest.warns(CacheWarning, match="other users can write to"), persistent_cache() as folder:
        assert folder is None


def test_without_a_directory_programs_still_run(user):
    (user / "gossamer").write_text("a file where the directory should be")
    with warnings.catch_warnings(record=True, action="default") as told, persistent_cache() as folder:
        assert (folder, run_program()) == (None, 42)
    assert [each.category for each in told if issubclass(each.category, UserWarning)] == [CacheWarning]


def test_a_damaged_entry_is_replaced_silently(user):
    with persistent_cache():
        run_program()
    (entry,) = programs()
    entry.write_bytes(entry.read_bytes()[:50])
    with warnings.catch_warnings(record=True, action="default") as told, persistent_cache():
        assert run_program() == 42
    assert not [each for each in told if issubclass(each.category, UserWarning)]
    assert entry.stat().st_size > 50


def test_a_full_disk_is_reported_once_and_leaves_nothing(user):
    with warnings.catch_warnings(record=True, action="default") as told, persistent_cache():
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (60, limits[1]))  # a file is cut short, as on a full disk
        try:
            assert run_program() == 42
            assert float(jax.jit(lambda x: x / 4)(2.0)) == 0.5
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [each.category for each in told if issubclass(each.category, UserWarning)] == [CacheWarning]
    assert any("File too large" in str(each.message) for each in told)
    assert not list(cache_root().glob("*/jit_*"))


def test_what_was_not_used_for_longest_goes_first(tmp_path, monkeypatch):
    monkeypatch.setattr(compilation_cache, "MOST_BYTES", 25)
    for age, name in enumerate(["now", "yesterday", "long-ago"]):
        path = tmp_path / name / "program-cache"
        path.parent.mkdir()
        path.write_bytes(bytes(10))
        os.utime(path, (10**9 - age, 10**9 - 100))
    prune(tmp_path)
    assert sorted(path.parent.name for path in tmp_path.glob("*/*")) == ["now", "yesterday"]


LOGGED = (
    "E1201 cpu_aot_loader.cc:195] Loading XLA:CPU AOT result. Target machine feature +prefer-no-gather is not  "
    "supported on the host machine. Machine type used for XLA:CPU compilation doesn't match.\n"
)


def test_a_jaxlib_that_objects_to_its_own_programs_is_not_asked_again(user, monkeypatch, capfd):
    loads = []

    def load(*_):
        loads.append(os.write(2, LOGGED.encode()))

    monkeypatch.setattr(serialize_executable, "deserialize_and_load", load)
    for _ in range(2):
        with persistent_cache() as folder:
            assert folder is None
            assert run_program() == 42
    assert len(loads) == 1
    assert capfd.readouterr().err == ""
    main(["doctor"])
    said = " ".join(capfd.readouterr().out.split())
    assert "openxla/xla#44565: Target machine feature +prefer-no-gather is not supported" in said


def test_a_jaxlib_that_cannot_load_programs_does_not_keep_any(user, monkeypatch):
    def load(*_):
        raise NotImplementedError("not on this backend")

    monkeypatch.setattr(serialize_executable, "deserialize_and_load", load)
    with persistent_cache() as folder:
        assert folder is None


def test_processors_with_other_features_have_other_directories(tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    text = "processor\t: {}\nmodel name\t: Any\ncpu MHz\t\t: {}\nflags\t\t: sse {}\n\nprocessor\t: 1\n"

    def digest(*values):
        cpuinfo.write_text(text.format(*values))
        return processor(cpuinfo)

    assert digest(0, 2100, "avx2") == digest(1, 3500, "avx2") != digest(0, 2100, "avx512f")
    cpuinfo.unlink()
    assert processor(cpuinfo)


@pytest.mark.parametrize(
    "command",
    [
        "train cartpole-balance",
        "train --resume run",
        "demo",
        "launch cartpole-balance",
        "launch --resume run",
        "agent cartpole-balance --name 0",
        "evaluate run",
        "reproduce diffdac-fig3",
        "reproduce --all",
    ],
)
def test_no_cache_is_understood_where_programs_are_compiled(monkeypatch, command):
    class Disabled(Exception):
        pass

    def disable():
        raise Disabled

    monkeypatch.setattr(compilation_cache, "disable_cache", disable)
    with pytest.raises(Disabled):
        main([*command.split(), "--no-cache"])


PROGRAM = """
import jax, sys
from gossamer.system.compilation_cache import persistent_cache
with persistent_cache() as folder:
    print(sum(jax.jit(lambda x, n=n: n * x)(2.0) for n in range(20)), folder)
"""


@pytest.mark.slow
def test_ten_processes_may_start_on_an_empty_cache(user):
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for _ in range(10)
    ]
    said = {each.communicate()[0].splitlines()[-1] for each in started}
    (folder,) = cache_root().iterdir()
    assert said == {f"380.0 {folder}"}
    assert len(list(folder.glob("*-cache"))) >= 20


@pytest.mark.slow
def test_a_run_learns_the_same_cold_warm_and_without_a_cache(user):
    tiny = ["--agents", "5", "--topology", "ring", "--hidden", "8", "8", "--max-steps", "20", "--rounds", "3"]
    metrics, entries = [], []
    for flags in ([], [], ["--no-cache"]):
        out = user / f"run-{len(metrics)}"
        command = [sys.executable, "-m", "gossamer", "train", "cartpole-balance", *tiny, "--out", str(out)]
        done = subprocess.run([*command, *flags], capture_output=True, text=True, check=True)
        assert "compil" not in done.stderr
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        metrics.append(
            [{name: line[name] for name in line if name not in ("time", "power")} for line in lines]
        )
        entries.append({path.name for path in cache_root().rglob("*-cache")})
    assert metrics[0] == metrics[1] == metrics[2]
    assert entries[0] == entries[1] == entries[2] != set()
