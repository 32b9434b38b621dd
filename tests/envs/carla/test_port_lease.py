"""Leases of ports, which are files in a folder in which other users of the machine can create files too."""

import copy
import os
import pickle
import stat
import subprocess
import sys
import time

import pytest

from sb3_visual_td3.envs.carla import port_lease
from sb3_visual_td3.envs.carla.failures import SimulatorUnusableError
from sb3_visual_td3.envs.carla.port_lease import lease_free, lease_running

HOST, PORT = "127.0.0.1", 24_100
NAME = f"carla-{HOST}-{PORT}.lock"
STRANGER = 65_534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another user")


@pytest.fixture
def shared(tmp_path, monkeypatch):
    """Create a folder for temporary files that every user can write to, like /tmp."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    folder.chmod(0o1777)
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


@pytest.fixture
def precious(tmp_path):
    """Create a file of the user that must not change."""
    file = tmp_path / "precious.txt"
    file.write_text("my thesis")
    yield file
    assert file.read_text() == "my thesis"


@pytest.fixture
def folder(shared):
    return shared / f"sb3_visual_td3-{os.geteuid()}"


def check_lease_works():
    lease = lease_running(HOST, [PORT])
    with pytest.raises(SimulatorUnusableError, match=f"{PORT} .by process {os.getpid()}"):
        lease_running(HOST, [PORT])
    return lease


def test_folder_is_private_and_removed_with_the_last_lease(shared, folder):
    first, second = lease_running(HOST, [PORT]), lease_running(HOST, [PORT + 4])
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / NAME).stat().st_mode) == 0o600
    first.release()
    first.release()
    assert [path.name for path in folder.iterdir()] == [f"carla-{HOST}-{PORT + 4}.lock"]
    second.release()
    assert list(shared.iterdir()) == []


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_lease_is_not_copied_because_the_copy_would_release_it(shared, duplicate):
    lease = lease_running(HOST, [PORT])
    with pytest.raises(TypeError, match=f"port {PORT} cannot be copied.*make another environment"):
        duplicate(lease)
    with pytest.raises(SimulatorUnusableError):
        lease_running(HOST, [PORT])
    lease.release()
    assert list(shared.iterdir()) == []


def test_folder_that_others_can_write_to_is_made_private(folder):
    folder.mkdir()
    folder.chmod(0o777)
    check_lease_works().release()
    lease = lease_running(HOST, [PORT])
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    lease.release()


def test_link_with_the_name_of_a_lock_is_removed_not_followed(folder, precious):
    folder.mkdir()
    (folder / NAME).symlink_to(precious)
    lease = check_lease_works()
    assert not (folder / NAME).is_symlink()
    lease.release()


def test_dangling_link_creates_no_file(folder, tmp_path):
    folder.mkdir()
    (folder / NAME).symlink_to(tmp_path / "new")
    check_lease_works().release()
    assert not (tmp_path / "new").exists()


def test_hard_link_to_another_file_is_not_written_to(folder, precious):
    folder.mkdir()
    os.link(precious, folder / NAME)
    check_lease_works().release()


def test_named_pipe_or_socket_does_not_block(folder):
    folder.mkdir()
    os.mkfifo(folder / NAME)
    os.mknod(folder / f"carla-{HOST}-{PORT + 4}.lock", 0o600 | stat.S_IFSOCK)
    check_lease_works().release()
    lease_running(HOST, [PORT + 4]).release()


def test_folder_with_the_name_of_a_lock_is_reported(folder):
    (folder / NAME).mkdir(parents=True)
    with pytest.raises(SimulatorUnusableError, match=rf"{NAME} is not a lock file, and deleting it failed .*; delete"):
        lease_running(HOST, [PORT])


def test_other_folder_is_used_if_the_name_is_a_link(shared, folder, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    folder.symlink_to(elsewhere)
    lease = check_lease_works()  # its two calls find the same other folder
    assert list(elsewhere.iterdir()) == []
    assert (shared / f"{folder.name}-1" / NAME).exists()
    lease.release()


def test_other_folder_is_used_if_the_name_is_a_file(shared, folder):
    folder.write_text("")
    lease = check_lease_works()
    assert (shared / f"{folder.name}-1" / NAME).exists()
    lease.release()


@needs_root
def test_folder_of_another_user_is_not_touched(shared, folder):
    for path in (folder, shared / f"{folder.name}-1"):
        path.mkdir()
        path.chmod(0o777)
        os.chown(path, STRANGER, STRANGER)
    lease = check_lease_works()
    assert (shared / f"{folder.name}-2" / NAME).exists()
    lease.release()
    assert list(folder.iterdir()) == []
    assert stat.S_IMODE(folder.stat().st_mode) == 0o777


@needs_root
def test_lock_of_another_user_is_replaced(folder):
    folder.mkdir()
    (folder / NAME).write_text("1")
    os.chown(folder / NAME, STRANGER, STRANGER)
    lease = check_lease_works()
    assert (folder / NAME).stat().st_uid == os.geteuid()
    lease.release()


@needs_root
def test_error_names_the_fix_if_all_names_are_taken(shared, folder):
    for path in (folder, *(shared / f"{folder.name}-{number}" for number in range(1, 10))):
        path.mkdir()
        os.chown(path, STRANGER, STRANGER)
    with pytest.raises(SimulatorUnusableError, match="set TMPDIR to a folder of your own"):
        lease_running(HOST, [PORT])


@pytest.mark.parametrize("releases", [True, False])
def test_fork_neither_ends_nor_keeps_a_lease(shared, releases):
    lease = lease_running(HOST, [PORT])
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        if releases:
            lease.release()
        os.close(writing)
        time.sleep(600)  # with its copies of the descriptors still open
    os.close(writing)
    os.read(reading, 1)
    os.close(reading)
    try:
        with pytest.raises(SimulatorUnusableError, match="in use"):
            lease_running(HOST, [PORT])
        lease.release()
        lease_running(HOST, [PORT]).release()
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def test_lease_waits_for_an_ending_process(shared, monkeypatch):
    code = (
        "import sys, tempfile; tempfile.tempdir = sys.argv[1]\n"
        "from sb3_visual_td3.envs.carla.port_lease import lease_running\n"
        f"lease = lease_running({HOST!r}, [{PORT}]); print('leased', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(shared)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"leased\n"

        def it_ends(_seconds):
            other.kill()
            other.wait()

        # It ends while it is waited for, not before the first look at its lock.
        with monkeypatch.context() as patch:
            patch.setattr(time, "sleep", it_ends)
            lease = lease_running(HOST, [PORT])
    lease.release()


def test_each_of_many_processes_gets_its_own_port(shared):
    code = (
        "import sys, tempfile; tempfile.tempdir = sys.argv[1]\n"
        "from sb3_visual_td3.envs.carla.port_lease import lease_free\n"
        "held = [lease_free(24_400) for _ in range(5)]\n"
        "for lease in held[:2]: lease.release()\n"
        "held = held[2:] + [lease_free(24_400)]\n"
        "print(*(lease.port for lease in held), flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(shared)]
    others = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    ports = [int(port) for other in others for port in other.stdout.readline().split()]
    for other in others:
        other.communicate("")
        assert other.returncode == 0
    assert len(ports) == len(set(ports)) == 12
    lease_free(24_400).release()


@pytest.mark.parametrize(("first_port", "n_tried"), [(65_532, 1), (65_530, 1), (65_524, 3), (20_000, 64)])
def test_the_last_port_is_tried_and_the_error_counts_the_ports(shared, monkeypatch, first_port, n_tried):
    tried = []
    monkeypatch.setattr(port_lease, "_is_range_free", tried.append)  # returns None: no port is free
    with pytest.raises(SimulatorUnusableError, match=rf"no free port from {first_port} .*ports tried: {n_tried}\)"):
        lease_free(first_port)
    assert tried == [first_port + 4 * number for number in range(n_tried)]
