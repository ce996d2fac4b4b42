"""The sockets on which `assay serve` listens: TCP, both families, and Unix sockets."""

import contextlib
import os
import socket
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from assay.setting_values import UNIX

BACKLOG = 4096
ALL_IPV4, ALL_IPV6 = "0.0.0.0", "::"  # noqa: S104 names of addresses, not a default


class CannotListen(Exception):
    """An address cannot be used. The text names it and says why."""


@dataclass(frozen=True, slots=True)
class Listeners:
    """Open sockets, and the inode of each Unix socket's file."""

    sockets: list[socket.socket] = field(default_factory=list)
    files: dict[Path, int] = field(default_factory=dict)

    def remove_files(self) -> None:
        """Remove the files of Unix sockets, but none that has taken the place of ours."""
        for path, inode in self.files.items():
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_ino == inode:
                    path.unlink()

    def close(self) -> None:
        """Close the sockets and remove their files."""
        for listener in self.sockets:
            listener.close()
        self.remove_files()


@contextlib.contextmanager
def open_listeners(hosts: Sequence[str], port: int, mode: int) -> Iterator[Listeners]:
    """Listen on all addresses; close the sockets and remove their files at the end.

    Args:
        hosts: as in `ASSAY_HOST`. `::` includes IPv4 unless `0.0.0.0` is named too.
        port: the port of all; with 0, the first gets a free port and the others the same.
        mode: the permissions of Unix sockets.

    Raises:
        CannotListen: an address cannot be used.
    """
    listeners = Listeners()
    with contextlib.closing(listeners):
        for host in hosts:
            path = host.removeprefix(UNIX)
            if path != host:
                _open_unix(listeners, Path(path), mode)
            else:
                listener = _open_tcp(host, port, hosts)
                listeners.sockets.append(listener)
                port = listener.getsockname()[1]
        yield listeners


def address_of(host: str, listener: socket.socket) -> str:
    """Return the address of a listener as a client writes it."""
    if listener.family == socket.AF_UNIX:
        return host
    name = _without_brackets(host)
    port = listener.getsockname()[1]
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def _without_brackets(host: str) -> str:
    return host.removeprefix("[").removesuffix("]")


def _open_tcp(host: str, port: int, hosts: Sequence[str]) -> socket.socket:
    name = _without_brackets(host)
    family = socket.AF_INET6 if ":" in name else socket.AF_INET
    is_dual = name == ALL_IPV6 and ALL_IPV4 not in hosts and socket.has_dualstack_ipv6()
    try:
        return socket.create_server(
            (name, port), family=family, backlog=BACKLOG, dualstack_ipv6=is_dual
        )
    except OSError as error:
        raise CannotListen(f"cannot listen on {host} port {port}: {error.strerror}") from error


def _open_unix(listeners: Listeners, path: Path, mode: int) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listeners.sockets.append(listener)
    try:
        _remove_stale_socket(path)
        before = os.umask(0o777 & ~mode)  # never more open than `mode`, not even at first
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        listeners.files[path] = path.stat().st_ino
        path.chmod(mode)
        listener.listen(BACKLOG)
    except OSError as error:
        reason = f"cannot listen on {UNIX}{path}: {error.strerror or error}"
        raise CannotListen(reason) from error


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
