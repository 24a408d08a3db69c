from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.config import Settings, load_settings, loading
from cloche.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

GIB = 1024**3


class Files:
    """The places configuration comes from, all below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environ = {"HOME": str(folder / "home")}
        self.system = folder / "etc.toml"
        self.user = folder / "home/.config/cloche/config.toml"
        self.user.parent.mkdir(parents=True)
        self.repository = folder / "repository"
        self.repository.mkdir()
        self.asked = self.repository / "cloche.toml"

    def load(self, **flags: object) -> Settings:
        named = {name.replace("__", "."): value for name, value in flags.items()}
        return load_settings(self.environ, named, self.repository)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    made = Files(tmp_path)
    monkeypatch.setattr(loading, "SYSTEM_FILE", made.system)
    return made


def refused(files: Files, **flags: object) -> UsageError:
    with pytest.raises(UsageError) as caught:
        files.load(**flags)
    return caught.value


def test_nothing_configured(files: Files) -> None:
    settings = files.load()
    assert settings == Settings()
    assert (settings.vm.cpus, settings.vm.memory, settings.vm.provider) == (2, 2 * GIB, "auto")
    assert settings.session.max_concurrent == 4


def test_later_sources_win_key_by_key(files: Files) -> None:
    files.system.write_text("[vm]\ncpus = 8\nmemory = '8GiB'\ndisk = '1T'\n[session]\nmax_concurrent = 9\n")
    files.user.write_text("[vm]\nmemory = '6GiB'\nprovider = 'fake'\n")
    files.environ |= {"CLOCHE_VM_PROVIDER": "qemu", "CLOCHE_IMAGE_HOST_CA": "true", "CLOCHE_VM_CPUS": ""}
    files.asked.write_text("[run]\nmemory = '4GiB'\n")
    settings = files.load(vm__provider="sandbox", vm__cpus=None)
    assert settings.session.max_concurrent == 9
    assert (settings.vm.cpus, settings.vm.disk) == (8, 1024 * GIB)
    assert settings.vm.memory == 4 * GIB
    assert settings.vm.provider == "sandbox"
    assert settings.image.host_ca is True


def test_every_setting_has_a_variable(files: Files) -> None:
    files.environ |= {
        "CLOCHE_SESSION_MAX_CONCURRENT": "7",
        "CLOCHE_VM_CPUS": "3",
        "CLOCHE_VM_MEMORY": "512M",
        "CLOCHE_VM_DISK": "1073741824",
        "CLOCHE_VM_NETWORK": "none",
        "CLOCHE_LIMITS_CPUS": "16",
        "CLOCHE_LIMITS_MEMORY": "32G",
        "CLOCHE_IMAGE_MIRROR": "http://mirror.example/debian",
    }
    settings = files.load()
    assert settings.session.max_concurrent == 7
    assert (settings.vm.cpus, settings.vm.memory, settings.vm.disk) == (3, GIB // 2, GIB)
    assert settings.vm.network == "none"
    assert (settings.limits.cpus, settings.limits.memory) == (16, 32 * GIB)
    assert settings.image.mirror == "http://mirror.example/debian"


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("[vm]\ncpus = 'two'\n", (2, 1), ["[vm] cpus", "'two'", "a whole number of at least 1"]),
        ("[vm]\n  cpus = 0\n", (2, 3), ["[vm] cpus", "0", "at least 1"]),
        ("[vm]\ncpus = true\n", (2, 1), ["[vm] cpus", "True", "whole number"]),
        ("[vm]\nmemory = '2 elephants'\n", (2, 1), ["[vm] memory", "elephants", "2GiB"]),
        ("[vm]\nmemory = 64\n", (2, 1), ["[vm] memory", "64", "at least 1M"]),
        ("[vm]\nprovider = 'a b'\n", (2, 1), ["[vm] provider", "a b", '"auto" or "qemu"']),
        ("[vm]\nnetwork = 'all'\n", (2, 1), ["[vm] network", "all", 'one of "user", "none"']),
        ("[image]\nhost_ca = 'yes'\n", (2, 1), ["[image] host_ca", "true or false"]),
        ("[image]\nmirror = ''\n", (2, 1), ["[image] mirror", "a text"]),
        ("[runs-on]\nbig = 3\n", (1, 1), ["[runs-on]", "a table of labels and image names"]),
        ("vm = 3\n", (1, 1), ["'vm'", "expected a table, [vm]"]),
        ("[vm]\n\n[session]\nmax_concurrent = -1\n", (4, 1), ["[session] max_concurrent", "-1"]),
        ("[session]\nwait = 'long'\n", (2, 1), ["[session] wait", "long", "10m"]),
        ("[session]\nwait = inf\n", (2, 1), ["[session] wait", "inf"]),
        ("[session]\nsession_timeout = 59\n", (2, 1), ["[session] session_timeout", "59", "at least 1m"]),
        ("[limits]\ntime = '0s'\n", (2, 1), ["[limits] time", "0s", "at least 1s"]),
        ("[session]\ncpus = 1\n", (2, 1), ["no setting [session] cpus"]),
        ("[vm\n", (1, 4), ["not TOML"]),
        ("[vm]\ncpus = \n", (2, 8), ["not TOML"]),
    ],
)
def test_wrong_values_say_where_what_and_what_was_expected(
    files: Files, text: str, place: tuple[int, int], words: list[str]
) -> None:
    files.user.write_text(text)
    error = refused(files)
    assert error.position is not None
    assert (error.position.file, error.position.line, error.position.column) == (str(files.user), *place)
    for word in words:
        assert word in error.message


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("[vm]\ncpu = 2\n", "did you mean 'cpus'?"),
        ("[sessions]\n", "did you mean 'session'?"),
        ("[run-on]\n", "did you mean 'runs-on'?"),
        ("[vm]\nzzz = 2\n", "known here: provider, cpus, memory, disk, network"),
    ],
)
def test_unknown_keys_get_a_suggestion(files: Files, text: str, hint: str) -> None:
    files.system.write_text(text)
    assert refused(files).hint == hint


def test_unknown_variables_get_a_suggestion(files: Files) -> None:
    files.environ["CLOCHE_VM_CPU"] = "2"
    error = refused(files)
    assert "CLOCHE_VM_CPU" in error.message
    assert error.hint == "did you mean 'CLOCHE_VM_CPUS'?"


def test_other_variables_are_none_of_ours(files: Files) -> None:
    files.environ |= {"CLOCHE_CONFORMANCE": "x", "VM_CPUS": "x", "CLOCHE": "x"}
    assert files.load() == Settings()


def test_a_wrong_variable_is_named(files: Files) -> None:
    files.environ["CLOCHE_VM_MEMORY"] = "lots"
    assert "CLOCHE_VM_MEMORY is 'lots'; expected a size" in refused(files).message


def test_a_wrong_flag_is_named(files: Files) -> None:
    assert "--memory is 'lots'; expected a size" in refused(files, vm__memory="lots").message


# Files that are not what they should be


@pytest.mark.parametrize(
    "data",
    [b"\xff\xfe", b"a = " + b"[" * 30000, b"a = " + b"9" * 5000, b"#" * 70000],
    ids=["not UTF-8", "deep", "a huge number", "long"],
)
def test_a_file_that_is_hardly_toml_is_refused(files: Files, data: bytes) -> None:
    files.user.write_bytes(data)
    assert str(files.user) in str(refused(files))


def test_a_folder_is_no_file(files: Files) -> None:
    files.user.mkdir()
    assert "not a regular file" in refused(files).message


@given(data=st.binary(max_size=200))
def test_any_file_is_read_or_refused(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / "cloche").mkdir()
    (folder / "cloche/config.toml").write_bytes(data)
    (folder / "cloche.toml").write_bytes(data)
    for environ, repository in [({"XDG_CONFIG_HOME": str(folder)}, None), ({"HOME": str(folder)}, folder)]:
        with contextlib.suppress(UsageError):
            load_settings(environ, repository=repository)


# What a repository may say


def test_a_repository_may_ask_for_less(files: Files) -> None:
    files.asked.write_text("[run]\ncpus = 1\nmemory = '512M'\nnetwork = 'none'\n")
    settings = files.load()
    assert (settings.vm.cpus, settings.vm.memory, settings.vm.network) == (1, GIB // 2, "none")


def test_a_repository_may_ask_for_what_the_operator_allows(files: Files) -> None:
    files.user.write_text("[limits]\ncpus = 8\nmemory = '16GiB'\n")
    files.asked.write_text("[run]\ncpus = 8\nmemory = '16GiB'\nnetwork = 'user'\n")
    assert (files.load().vm.cpus, files.load().vm.memory) == (8, 16 * GIB)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[run]\ncpus = 3\n", "[run] cpus asks for 3; this machine allows 2"),
        ("[run]\nmemory = '4GiB'\n", "[run] memory asks for 4 GiB; this machine allows 2 GiB"),
        ("[vm]\nprovider = 'sandbox'\n", "[vm] cannot be set by a repository"),
        ("[session]\nmax_concurrent = 99\n", "[session] cannot be set by a repository"),
        ("[limits]\ncpus = 99\n", "[limits] cannot be set by a repository"),
        ("[image]\nmirror = 'http://evil.example'\n", "[image] cannot be set by a repository"),
        ("[runs-on]\nubuntu-latest = 'evil'\n", "[runs-on] cannot be set by a repository"),
        ("[run]\nprovider = 'sandbox'\n", "[run] provider cannot be set by a repository"),
        ("[run]\nhost_ca = true\n", "[run] host_ca cannot be set by a repository"),
        ("[run]\ncpu = 1\n", "no setting [run] cpu"),
        ("[run]\ndisk = '17GiB'\n", "[run] disk asks for 17 GiB; this machine allows 16 GiB"),
        ("[run]\nwait = '1h'\n", "[run] wait cannot be set by a repository"),
        ("[setup]\n", "[setup] run is None; expected a text"),
        ("[setup]\nrun = 1\n", "[setup] run is 1; expected a text"),
        ("[setup]\ncommand = 'x'\n", "no setting [setup] command"),
        ("setup = 'x'\n", "'setup' is a value; expected a table"),
        ("[other]\n", "no setting [other]"),
        ("run = 1\n", "'run' is a value; expected a table"),
        ("[run]\ncpus = '1'\n", "[run] cpus is '1'; expected a whole number"),
    ],
)
def test_a_repository_may_not_widen(files: Files, text: str, message: str) -> None:
    files.asked.write_text(text)
    error = refused(files)
    assert message in error.message
    assert error.position is not None
    assert error.position.file == str(files.asked)


def test_a_repository_may_narrow_every_limit(files: Files) -> None:
    files.user.write_text("[limits]\ntime = '2h'\noutput = '100M'\ndisk = '32GiB'\n")
    files.asked.write_text("[run]\ntime = '20m'\noutput = '10M'\ndisk = '20GiB'\n")
    settings = files.load()
    assert (settings.limits.time, settings.limits.output) == (1200.0, 10 * 1024**2)
    assert settings.vm.disk == 20 * GIB


def test_a_repository_may_bound_what_is_not_bounded(files: Files) -> None:
    files.asked.write_text("[run]\ntime = '20m'\noutput = '10M'\n")
    assert files.load().limits.time == 1200.0
    assert files.load(limits__time="3h", limits__output="1G").limits.time == 10800.0


def test_what_is_allowed_stays_what_the_operator_allows(files: Files) -> None:
    files.user.write_text("[vm]\ncpus = 6\n[limits]\nmemory = '16GiB'\n")
    files.asked.write_text("[run]\ncpus = 1\nmemory = '1GiB'\n")
    settings = files.load()
    assert (settings.vm.cpus, settings.allowed("cpus")) == (1, 6)
    assert (settings.vm.memory, settings.allowed("memory")) == (GIB, 16 * GIB)
    assert settings.allowed("time") is None


def test_how_a_run_goes_is_the_repositorys_to_say(files: Files) -> None:
    files.user.write_text("[run]\nstop_on_failure = true\nstep_timeout = '1m'\n")
    assert (files.load().run.stop_on_failure, files.load().run.step_timeout) == (True, 60.0)
    files.asked.write_text("[run]\nstop_on_failure = false\nstep_timeout = '2h'\n")
    assert (files.load().run.stop_on_failure, files.load().run.step_timeout) == (False, 7200.0)
    assert files.load(run__stop_on_failure=True).run.stop_on_failure is True


def test_the_operators_commands_are_the_outer_ones(files: Files) -> None:
    files.user.write_text("[setup]\nrun = 'theirs'\n[cleanup]\nrun = 'put away'\n")
    files.asked.write_text('[setup]\nrun = """\nours\n"""\n\n[cleanup]\nrun = "tidy"\n')
    settings = files.load()
    assert [(one.name, one.run) for one in settings.setups] == [
        ("Set up", "theirs"),
        ("Set up (cloche.toml)", "ours\n"),
    ]
    assert [(one.name, one.run) for one in settings.cleanups] == [
        ("Clean up (cloche.toml)", "tidy"),
        ("Clean up", "put away"),
    ]
    assert str(settings.cleanups[0].position) == f"{files.asked}:7:1"
    assert Settings().setups == Settings().cleanups == ()


def test_the_options_of_limits_are_named_as_they_are_written(files: Files) -> None:
    assert "--output-limit is '1'; expected a size" in refused(files, limits__output="1").message
    assert "--time is 'soon'; expected a duration" in refused(files, limits__time="soon").message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[run]\ntime = '3h'\n", "[run] time asks for 3 h 0 min; this machine allows 2 h 0 min"),
        ("[run]\noutput = '1G'\n", "[run] output asks for 1 GiB; this machine allows 100 MiB"),
    ],
)
def test_a_repository_may_not_outlast_the_operator(files: Files, text: str, message: str) -> None:
    files.user.write_text("[limits]\ntime = '2h'\noutput = '100M'\n")
    files.asked.write_text(text)
    assert refused(files).message == message


def test_a_repository_does_not_get_a_network_back(files: Files) -> None:
    files.user.write_text("[vm]\nnetwork = 'none'\n")
    files.asked.write_text("[run]\nnetwork = 'user'\n")
    assert "network" in refused(files).message


def test_a_flag_of_the_user_overrules_the_repository(files: Files) -> None:
    files.asked.write_text("[run]\ncpus = 1\n")
    assert files.load(vm__cpus=6).vm.cpus == 6


# runs-on


@pytest.mark.parametrize(
    "labels",
    [
        ["ubuntu-latest"],
        ["Ubuntu-24.04"],
        ["ubuntu-latest-16-cores"],
        ["self-hosted", "Linux", "X64"],
        ["self-hosted"],
        ["self-hosted", "ubuntu-22.04"],
        ["cloche-4cpu-8gb"],
        ["cloche-4cpu", "ubuntu-latest"],
    ],
)
def test_labels_of_the_default_image(labels: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.uname", lambda: type("uname", (), {"machine": "x86_64"}))
    assert Settings().image_for(labels) == "default"


@pytest.mark.parametrize(
    "labels",
    [["windows-latest"], ["macos-14"], ["gpu"], ["self-hosted", "arm64"], ["ubuntu-24.04-arm"], []],
)
def test_labels_that_nothing_serves(labels: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.uname", lambda: type("uname", (), {"machine": "x86_64"}))
    assert Settings().image_for(labels) is None


def test_labels_of_the_operator(files: Files) -> None:
    files.system.write_text("[runs-on]\nGPU = 'cuda'\n'debian-*' = 'debian'\n")
    files.user.write_text("[runs-on]\n'ubuntu-20.04' = 'old'\n'debian-*' = 'debian-mine'\n")
    settings = files.load()
    assert settings.image_for(["gpu", "linux"]) == "cuda"
    assert settings.image_for(["debian-12"]) == "debian-mine"
    assert settings.image_for(["ubuntu-20.04"]) == "old"
    assert settings.image_for(["ubuntu-22.04"]) == "default"
    assert settings.image_for(["gpu", "ubuntu-20.04"]) is None


def test_another_image_than_the_default() -> None:
    settings = Settings(runs_on={"ubuntu-20.04": "old"})
    assert settings.image_for(["ubuntu-22.04"], "mine") == "mine"
    assert settings.image_for(["self-hosted"], "mine") == "mine"
    assert settings.image_for(["ubuntu-20.04"], "mine") == "old"
