"""Threads for reading and writing, so that the network never waits for a decoder, an encoder or a disk."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

from typing_extensions import Self

_In = TypeVar("_In")
_Out = TypeVar("_Out")


def read_ahead(
    read: Callable[[_In], _Out],
    items: Iterable[_In],
    weigh: Callable[[_Out], int],
    limit: int,
    threads: int = 2,
    most: int = 64,
) -> Iterator[_Out]:
    """Yield ``read(item)`` for each item in order, and read the next items in threads.

    The weight of results that have been read but not yielded is at most ``limit``, plus one item per thread, because
    the weight of an item is known only after it has been read.

    Args:
        read: reads an item in a thread; an exception is raised at the item's turn and ends the iteration.
        items: the items.
        weigh: returns the weight of a result.
        limit: largest weight of waiting results.
        threads: number of threads.
        most: largest number of results and reads in progress, whatever their weight.
    """
    room = threading.Condition()
    waiting = next_number = 0
    stopped = False

    def take(number: int, item: _In) -> tuple[_Out, int]:
        nonlocal waiting
        with room:
            # The next item to yield never waits for later ones.
            room.wait_for(lambda: waiting < limit or number == next_number or stopped)
        result = read(item)
        weight = weigh(result)
        with room:
            waiting += weight
        return result, weight

    def give() -> _Out:
        nonlocal waiting, next_number
        result, weight = reads.popleft().result()
        with room:
            waiting -= weight
            next_number += 1
            room.notify_all()
        return result

    reads: deque[Future[tuple[_Out, int]]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="read") as pool:
        try:
            for number, item in enumerate(items):
                reads.append(pool.submit(take, number, item))
                if len(reads) >= most:
                    yield give()
            while reads:
                yield give()
        finally:
            with room:
                stopped = True
                room.notify_all()
            pool.shutdown(cancel_futures=True)


class BackgroundWriter(Generic[_Out]):
    """Runs work in threads, such as writing files, and returns its results in order.

    At the normal end of the block, it waits for all work; after an exception, work that has not begun is dropped.

    >>> with BackgroundWriter[Path](limit=64_000_000) as writer:
    ...     for picture in pictures:
    ...         for path in writer.submit(lambda: write(picture), weight=pixels):
    ...             print(path)
    ...     for path in writer.finish():
    ...         print(path)

    Args:
        limit: largest weight of pending work; ``submit`` waits if it is exceeded.
        threads: number of threads.
    """

    def __init__(self, limit: int, threads: int = 2) -> None:
        self.limit = limit
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="write")
        self._pending: deque[tuple[Future[_Out], int]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=kind is not None)

    def submit(self, work: Callable[[], _Out], weight: int) -> list[_Out]:
        """Start ``work``, and return the results of work that has finished since the last call.

        Raises:
            Exception: an exception of earlier work.
        """
        results = []
        while self._pending and self._pending[0][0].done():
            results.append(self._oldest())
        while self._pending and sum(pending for _, pending in self._pending) + weight > self.limit:
            results.append(self._oldest())
        self._pending.append((self._pool.submit(work), weight))
        return results

    def finish(self) -> list[_Out]:
        """Wait for all pending work, and return its results."""
        return [self._oldest() for _ in range(len(self._pending))]

    def _oldest(self) -> _Out:
        future, _ = self._pending.popleft()
        return future.result()
