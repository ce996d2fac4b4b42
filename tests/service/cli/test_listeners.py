"""Listeners: both families of TCP, Unix sockets and their files."""

import os
import socket
import stat
from pathlib import Path

import pytest
from support.servers import free_port

from assay.cli.listeners import CannotListen, address_of, open_listeners
from assay.settings import is_private

HAS_IPV6 = socket.has_dualstack_ipv6()
needs_ipv6 = pytest.mark.skipif(not HAS_IPV6, reason="this machine has no IPv6")


def accepts(host: str, port: int) -> bool:
    """Return whether a connection to the address is accepted."""
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError:
        return False
    return True


@needs_ipv6
@pytest.mark.parametrize("host", ["::", "[::]"])
def test_all_of_ipv6_includes_ipv4(host: str) -> None:
    with open_listeners([host], 0, 0o660) as listeners:
        (listener,) = listeners.sockets
        port = listener.getsockname()[1]
        assert accepts("127.0.0.1", port)
        assert accepts("::1", port)
        assert address_of(host, listener) == f"http://[::]:{port}"


@needs_ipv6
@pytest.mark.parametrize("hosts", [["0.0.0.0", "::"], ["::", "0.0.0.0"], ["::1", "127.0.0.1"]])
def test_several_addresses_share_a_port(hosts: list[str]) -> None:
    with open_listeners(hosts, 0, 0o660) as listeners:
        (port,) = {listener.getsockname()[1] for listener in listeners.sockets}
        assert accepts("127.0.0.1", port)
        assert accepts("::1", port)


def test_an_ipv4_address_is_one_address() -> None:
    with open_listeners(["127.0.0.1"], 0, 0o660) as listeners:
        (listener,) = listeners.sockets
        port = listener.getsockname()[1]
        assert accepts("127.0.0.1", port)
        assert not accepts("::1", port)
        assert address_of("127.0.0.1", listener) == f"http://127.0.0.1:{port}"
    assert not accepts("127.0.0.1", port)


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_an_address_of_another_machine_is_named(host: str) -> None:
    with (
        pytest.raises(CannotListen, match=f"cannot listen on {host} port 9"),
        open_listeners([host], 9999, 0o660),
    ):
        pass


@pytest.mark.parametrize("mode", [0o660, 0o600, 0o666])
def test_a_unix_socket_has_its_mode_and_goes_at_the_end(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "assay.sock"
    host = f"unix:{path}"
    before = os.umask(0o022)
    try:
        with open_listeners([host], 8000, mode) as listeners:
            (listener,) = listeners.sockets
            assert stat.S_IMODE(path.stat().st_mode) == mode
            assert address_of(host, listener) == host
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)
    assert not path.exists()


def test_a_socket_that_a_killed_process_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "assay.sock"
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
    with open_listeners([f"unix:{path}"], 8000, 0o660), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_a_socket_in_use_is_left_alone(tmp_path: Path) -> None:
    host = f"unix:{tmp_path / 'assay.sock'}"
    with open_listeners([host], 8000, 0o660):
        with (
            pytest.raises(CannotListen, match="another process listens on it"),
            open_listeners([host], 8000, 0o660),
        ):
            pass
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "assay.sock"))


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "assay.sock"
    path.write_text("mine")
    with (
        pytest.raises(CannotListen, match="a file that is not a socket is in its place"),
        open_listeners([f"unix:{path}"], 8000, 0o660),
    ):
        pass
    assert path.read_text() == "mine"


def test_a_socket_that_replaced_ours_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "assay.sock"
    with open_listeners([f"unix:{path}"], 8000, 0o660):
        path.rename(tmp_path / "old")
        path.write_text("theirs")
    assert path.read_text() == "theirs"


def test_no_socket_stays_open_when_a_later_address_cannot_be_used(tmp_path: Path) -> None:
    port, path = free_port(), tmp_path / "assay.sock"
    hosts = ["127.0.0.1", f"unix:{path}", "192.0.2.1"]
    with pytest.raises(CannotListen), open_listeners(hosts, port, 0o660):
        pass
    assert not accepts("127.0.0.1", port)
    assert not path.exists()


def test_a_folder_that_does_not_exist_is_named() -> None:
    host = "unix:/no/such/folder/assay.sock"
    with (
        pytest.raises(CannotListen, match=f"cannot listen on {host}: No such file or directory"),
        open_listeners([host], 8000, 0o660),
    ):
        pass


@pytest.mark.parametrize(
    ("host", "private"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("unix:/run/assay.sock", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
    ],
)
def test_an_address_is_private_if_only_this_machine_reaches_it(host: str, private: bool) -> None:
    assert is_private(host) is private
