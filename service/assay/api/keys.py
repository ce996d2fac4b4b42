"""ApiKeys: the accepted API keys by their digests, and the file that names them."""

import asyncio
import hashlib
import logging
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from assay.errors import SettingsError
from assay.types import NO_SHARE, SCOPES, Caller, Scope, Share

logger = logging.getLogger(__name__)

FILE = "ASSAY_API_KEYS_FILE"
REFRESH_SECONDS = 5.0
HINT = (
    'a table for each key, such as [trainer] with scopes = ["score", "read", "record"] and '
    'sha256 = "...", the output of: printf %s "$KEY" | sha256sum'
)


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
# The program `sha256sum` writes the name of its input, `-`, behind the digest.
Digest = Annotated[
    str,
    BeforeValidator(lambda text: text.removesuffix("  -") if isinstance(text, str) else text),
    Field(pattern=r"^[0-9a-fA-F]{64}$"),
]


class KeyEntry(BaseModel):
    """One table of the file: a key's scopes and digests, and its share if not the server's own.

    Several digests are several keys of one name, so that one can replace another.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    scopes: Annotated[list[Scope], Field(min_length=1)]
    sha256: Annotated[list[Digest], BeforeValidator(_as_list), Field(min_length=1)]
    rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    concurrency: Annotated[int, Field(ge=1)] | None = None


FILE_CONTENT = TypeAdapter(dict[Name, KeyEntry])


@dataclass(frozen=True, slots=True)
class _Stamp:
    """The state of the file by which a change is noticed."""

    inode: int
    written: int
    changed: int
    size: int


class ApiKeys:
    """The accepted API keys, by their digests.

    A key of the settings has all scopes, and a name made of its digest. A key of the file has the
    name and the scopes of its table; `refresh` reads the file again when it has changed.

    Args:
        keys: the settings' keys.
        file: the file, a TOML document; None without one.
        share: the share of each key that the file gives none.

    Raises:
        SettingsError: the file cannot be used, or a key is given twice.
    """

    def __init__(
        self, keys: Sequence[str], file: Path | None = None, share: Share = NO_SHARE
    ) -> None:
        self._share = share
        self._given = [(_digest(key.encode()), Caller(_name(key), share=share)) for key in keys]
        self._file = file
        self._stamp = None if file is None else _stamp(file)
        self._callers = self._read()
        self.admitted: dict[bytes | None, Caller] = {}
        """The holders of accepted keys by `Authorization`, so that the next lookup is cheap."""

    def find(self, key: bytes) -> Caller | None:
        """Return the holder of a key; None if the key is not accepted.

        The time of the lookup depends on the key's digest, which says nothing about other keys.
        """
        return self._callers.get(_digest(key))

    def refresh(self) -> None:
        """Read the file again if it has changed; keep the present keys if it cannot be used."""
        if self._file is None:
            return
        stamp = _stamp(self._file)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._callers = self._read()
            self.admitted = {}  # after the keys: what is remembered from now on is of the new ones
        except SettingsError as error:
            logger.error("the API keys stay as they were: %s (%s)", error, error.hint)
        else:
            logger.info("read %d API keys again", len(self._callers))

    async def keep_fresh(self) -> None:
        """Refresh every few seconds, for ever."""
        while self._file is not None:
            await asyncio.sleep(REFRESH_SECONDS)
            await asyncio.to_thread(self.refresh)

    def _read(self) -> dict[bytes, Caller]:
        listed = [] if self._file is None else list(_listed(_content(self._file), self._share))
        return _unique([*self._given, *listed])


def share_of(rate: float | None, concurrency: int | None) -> Share:
    """Return a share; `NO_SHARE` itself if it has no limit."""
    return NO_SHARE if rate is None and concurrency is None else Share(rate, concurrency)


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _name(key: str) -> str:
    """Return the name of a key that the settings give none."""
    return (
        f"key-{hashlib.blake2b(key.encode(), digest_size=4, person=b'assay key name').hexdigest()}"
    )


def _stamp(file: Path) -> _Stamp | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return _Stamp(status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)


def _content(file: Path) -> Mapping[str, KeyEntry]:
    """Return the tables of the file by name.

    Raises:
        SettingsError: it cannot be read, or is not as described.
    """
    try:
        entries = FILE_CONTENT.validate_python(tomllib.loads(file.read_text("utf-8")))
    except OSError as error:
        raise _refusal(f"cannot read {file}: {error.strerror}") from None
    except ValidationError as error:
        raise _refusal(_problem(error)) from None
    except ValueError as error:  # not TOML, or not UTF-8
        raise _refusal(f"{file} is not TOML: {error}") from None
    if not entries:
        raise _refusal(f"{file} has no key")
    return entries


def _problem(error: ValidationError) -> str:
    """Return the first problem of the file, without its values."""
    problem = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"


def _refusal(problem: str) -> SettingsError:
    return SettingsError(f"{FILE}: {problem}", hint=HINT)


def _listed(entries: Mapping[str, KeyEntry], share: Share) -> Iterator[tuple[bytes, Caller]]:
    for name, entry in entries.items():
        scopes = SCOPES if "admin" in entry.scopes else frozenset(entry.scopes)
        own = share_of(entry.rate or share.rate, entry.concurrency or share.concurrency)
        caller = Caller(name, scopes, share=own)
        for digest in entry.sha256:
            yield bytes.fromhex(digest), caller


def _unique(keys: Iterable[tuple[bytes, Caller]]) -> dict[bytes, Caller]:
    """Return the keys' holders by digest.

    Raises:
        SettingsError: two have the same key.
    """
    callers: dict[bytes, Caller] = {}
    for digest, caller in keys:
        if digest in callers:
            raise _refusal(f"{callers[digest].name} and {caller.name} have the same key")
        callers[digest] = caller
    return callers
