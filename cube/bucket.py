"""Addresses of objects (`s3://bucket/key`) in, their bytes out, and back: all that asks obstore.

Credentials and the address of a server come from the environment of each process, or from what the
provider gives its machines: nothing of either is kept here, pickled, or told in an error.
"""

import asyncio
import contextlib
import functools
import os
import threading
from collections.abc import (
    AsyncGenerator,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Sequence,
)
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from zarr.storage import ObjectStore

from cube.errors import InputError

try:
    import obstore
    from obstore.exceptions import AlreadyExistsError
    from obstore.store import from_url

    from cube.bucketerrors import asked, told
except ImportError as error:
    raise InputError(
        "stores on an object store need the package obstore, which is not installed; "
        "`pip install canopycube[objectstore]` brings it"
    ) from error

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

_PAGE = 1000
"""Objects of a list in one answer."""

_AT_ONCE = 32
"""Requests that one call has under way."""

_PATIENCE: "RetryConfig" = {
    "max_retries": 10,
    "retry_timeout": timedelta(seconds=90),
    "backoff": {
        "init_backoff": timedelta(seconds=0.2),
        "max_backoff": timedelta(seconds=10),
        "base": 2,
    },
}
"""How often a server that fails is asked again, and how long."""

_LIMITS: "ClientConfig" = {"connect_timeout": "10s", "read_timeout": "60s", "timeout": "600s"}
"""Of a connection, of a silence, and of a request, whose shard may be large."""

_SETTINGS = ("AWS_", "GOOGLE_", "AZURE_")
"""How the environment variables begin that say where a server is and who asks."""

_Asked = TypeVar("_Asked")
_Found = TypeVar("_Found")


def read(url: str) -> bytes:
    """Return an object; `FileNotFoundError` if there is none."""
    return _wait(_read(url))


def read_each(urls: Iterable[str]) -> list[bytes | None]:
    """Return objects, many at once; None for each that is not there."""

    async def maybe(url: str) -> bytes | None:
        try:
            return await _read(url)
        except FileNotFoundError:
            return None

    return _wait(_together(maybe, list(urls)))


def write(url: str, content: bytes) -> None:
    """Put an object in place of what was there; whole or not at all."""
    _wait(_write(url, content, mode="overwrite"))


def write_new(url: str, content: bytes) -> bool:
    """Put an object where there is none; False, and nothing changed, if there is one."""
    try:
        _wait(_write(url, content, mode="create"))
    except AlreadyExistsError:
        return False
    return True


def exist(urls: Iterable[str]) -> list[bool]:
    """Return of each object whether it is there, many at once."""

    async def is_there(url: str) -> bool:
        store, key = _opened(url)
        try:
            await asked(url, lambda: obstore.head_async(store, key))
        except FileNotFoundError:
            return False
        return True

    return _wait(_together(is_there, list(urls)))


def below(url: str) -> Iterator[tuple[str, int]]:
    """Yield (name as seen from `url`, bytes) of every object below it, in the order of the names."""
    store, key = _opened(url)
    prefix, last = f"{key}/" if key else None, None

    async def page_after(last: str | None) -> Sequence[Any]:
        pages = obstore.list(store, prefix=prefix, offset=last, chunk_size=_PAGE)
        try:
            return await pages.__anext__()
        except StopAsyncIteration:
            return ()

    while page := _wait(asked(url, functools.partial(page_after, last))):
        for item in page:
            yield item["path"].removeprefix(prefix or ""), item["size"]
        last = page[-1]["path"]


def right_below(url: str) -> tuple[list[str], list[str]]:
    """(names of the folders, names of the objects) right below `url`."""
    store, key = _opened(url)

    prefix = f"{key}/" if key else None
    found = _wait(asked(url, lambda: obstore.list_with_delimiter_async(store, prefix=prefix)))
    objects = [item["path"] for item in found["objects"]]
    folders, names = (
        [path.rpartition("/")[2] for path in paths] for paths in (found["common_prefixes"], objects)
    )
    return folders, names


def copy_each(pairs: Iterable[tuple[str, str]]) -> None:
    """Copy objects within their bucket, on the server, many at once; pairs are (from, to)."""

    async def copy(pair: tuple[str, str]) -> None:
        (store, old), (_, new) = map(_opened, pair)
        await asked(pair[0], lambda: obstore.copy_async(store, old, new))

    _wait(_together(copy, list(pairs)))


def remove(urls: Iterable[str]) -> None:
    """Remove objects, those too that are not there."""
    urls = list(urls)
    if not urls:
        return
    store = _opened(urls[0])[0]  # one call removes from one bucket
    keys = [_opened(url)[1] for url in urls]

    async def gone(key: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            await asked(urls[0], lambda: obstore.delete_async(store, key))

    try:
        _wait(asked(urls[0], lambda: obstore.delete_async(store, keys)))
    except FileNotFoundError:
        # servers that remove one after the other stop at the first that is not there
        _wait(_together(gone, keys))


def zarr_store(url: str, *, read_only: bool = False) -> ObjectStore[Any]:
    """Return what Zarr reads and writes below `url`; pickled, it is the address alone."""
    return _ToldStore(_client(url, _environment()), read_only=read_only, url=url)


async def _read(url: str) -> bytes:
    store, key = _opened(url)

    async def whole() -> bytes:
        found = await obstore.get_async(store, key)
        return bytes(await found.bytes_async())

    return await asked(url, whole)


async def _write(url: str, content: bytes, *, mode: Any) -> None:
    store, key = _opened(url)
    await asked(url, lambda: obstore.put_async(store, key, content, mode=mode, use_multipart=False))


async def _together(
    ask: Callable[[_Asked], Coroutine[Any, Any, _Found]], what: Sequence[_Asked]
) -> list[_Found]:
    free = asyncio.Semaphore(_AT_ONCE)

    async def one(item: _Asked) -> _Found:
        async with free:
            return await ask(item)

    return await asyncio.gather(*map(one, what))


def _opened(url: str) -> tuple[Any, str]:
    """(a client of the bucket, the key within it)."""
    scheme, _, rest = url.partition("://")
    bucket, _, key = rest.partition("/")
    return _client(f"{scheme}://{bucket}", _environment()), key.strip("/")


def _environment() -> frozenset[tuple[str, str]]:
    return frozenset(
        (name, value) for name, value in os.environ.items() if name.startswith(_SETTINGS)
    )


@functools.lru_cache(maxsize=64)
def _client(url: str, environment: frozenset[tuple[str, str]]) -> Any:
    """Return a client, which reads the environment itself and whose connections are kept."""
    endpoint = dict(environment).get("AWS_ENDPOINT_URL", "")
    options: ClientConfig = {**_LIMITS, "allow_http": endpoint.startswith("http://")}
    with told(url):
        return from_url(url, client_options=options, retry_config=_PATIENCE)


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    """Return an event loop in a thread of its own, so that Ctrl-C need not wait for an answer."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="canopycube-objects", daemon=True).start()
    return loop


def _wait(asked: Coroutine[Any, Any, _Found]) -> _Found:
    future = asyncio.run_coroutine_threadsafe(asked, _loop())
    try:
        return future.result()
    except KeyboardInterrupt:
        future.cancel()
        raise


class _ToldStore(ObjectStore[Any]):
    """Zarr's own, which tells errors as we do and pickles as an address without anything else."""

    def __init__(self, store: Any, *, read_only: bool = False, url: str = "") -> None:
        super().__init__(store, read_only=read_only)
        self.url = url

    def __reduce__(self) -> Any:
        return functools.partial(zarr_store, self.url, read_only=self.read_only), ()

    def __str__(self) -> str:
        return self.url

    def with_read_only(self, read_only: bool = False) -> "_ToldStore":
        return _ToldStore(self.store, read_only=read_only, url=self.url)

    async def get(self, key: str, *args: Any, **options: Any) -> Any:
        return await asked(self._address(key), lambda: ObjectStore.get(self, key, *args, **options))

    async def get_partial_values(self, prototype: Any, key_ranges: Iterable[Any]) -> Any:
        ranges = list(key_ranges)
        return await asked(
            self.url, lambda: ObjectStore.get_partial_values(self, prototype, ranges)
        )

    async def exists(self, key: str) -> bool:
        return await asked(self._address(key), lambda: ObjectStore.exists(self, key))

    async def set(self, key: str, value: Any) -> None:
        await asked(self._address(key), lambda: ObjectStore.set(self, key, value))

    async def set_if_not_exists(self, key: str, value: Any) -> None:
        await asked(self._address(key), lambda: ObjectStore.set_if_not_exists(self, key, value))

    async def delete(self, key: str) -> None:
        await asked(self._address(key), lambda: ObjectStore.delete(self, key))

    async def getsize(self, key: str) -> int:
        return await asked(self._address(key), lambda: ObjectStore.getsize(self, key))

    async def _told_of(self, names: AsyncGenerator[str, None]) -> AsyncGenerator[str, None]:
        with told(self.url):
            async for name in names:
                yield name

    def list(self) -> AsyncGenerator[str, None]:
        return self._told_of(super().list())

    def list_prefix(self, prefix: str) -> AsyncGenerator[str, None]:
        return self._told_of(super().list_prefix(prefix))

    def list_dir(self, prefix: str) -> AsyncGenerator[str, None]:
        return self._told_of(super().list_dir(prefix))

    def _address(self, key: str) -> str:
        return f"{self.url}/{key}"
