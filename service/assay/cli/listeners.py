"""The sockets on which `assay serve` listens: TCP, both families, and Unix sockets."""

import contextlib
import os
import socket
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from assay.settings import UNIX

BACKLOG = 4096
ALL_IPV4, ALL_IPV6 = "0.0.0.0", "::"  # noqa: S104 names of addresses, not a default
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class CannotListen(Exception):
    """An address cannot be used. The text names it and says why."""


@contextlib.contextmanager
def open_listeners(hosts: Sequence[str], port: int, mode: int) -> Iterator[list[socket.socket]]:
    """Listen on all addresses; close the sockets and remove their files at the end.

    Args:
        hosts: as in `ASSAY_HOST`. `::` includes IPv4 unless `0.0.0.0` is named too.
        port: the port of all; with 0, the first gets a free port and the others the same.
        mode: the permissions of Unix sockets.

    Raises:
        CannotListen: an address cannot be used.
    """
    with contextlib.ExitStack() as stack:
        listeners = []
        for host in hosts:
            path = host.removeprefix(UNIX)
            if path != host:
                listener = stack.enter_context(_unix_socket(Path(path), mode))
            else:
                listener = stack.enter_context(_tcp_socket(host, port, hosts))
                port = listener.getsockname()[1]
            listeners.append(listener)
        yield listeners


def address_of(host: str, listener: socket.socket) -> str:
    """Return the address of a listener as a client writes it."""
    if listener.family == socket.AF_UNIX:
        return host
    name = _without_brackets(host)
    port = listener.getsockname()[1]
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def is_private(host: str) -> bool:
    """Return whether only this machine reaches the address."""
    return host.startswith(UNIX) or _without_brackets(host) in LOOPBACK


def _without_brackets(host: str) -> str:
    return host.removeprefix("[").removesuffix("]")


def _tcp_socket(host: str, port: int, hosts: Sequence[str]) -> socket.socket:
    name = _without_brackets(host)
    family = socket.AF_INET6 if ":" in name else socket.AF_INET
    is_dual = name == ALL_IPV6 and ALL_IPV4 not in hosts and socket.has_dualstack_ipv6()
    try:
        return socket.create_server(
            (name, port), family=family, backlog=BACKLOG, dualstack_ipv6=is_dual
        )
    except OSError as error:
        raise CannotListen(f"cannot listen on {host} port {port}: {error.strerror}") from error


@contextlib.contextmanager
def _unix_socket(path: Path, mode: int) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        try:
            _remove_stale_socket(path)
            before = os.umask(0o777 & ~mode)  # never more open than `mode`, not even at first
            try:
                listener.bind(str(path))
            finally:
                os.umask(before)
            path.chmod(mode)
            listener.listen(BACKLOG)
        except OSError as error:
            reason = f"cannot listen on {UNIX}{path}: {error.strerror or error}"
            raise CannotListen(reason) from error
        own = path.stat().st_ino
        try:
            yield listener
        finally:
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_ino == own:
                    path.unlink()


def _remove_stale_socket(path: Path) -> None:
    """Remove the socket that a killed process left.

    Raises:
        OSError: a process listens on it, or it is another file.
    """
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise OSError("a file that is not a socket is in its place")
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(path))
    except FileNotFoundError:
        return
    except ConnectionRefusedError:
        path.unlink()
        return
    raise OSError("another process listens on it")
