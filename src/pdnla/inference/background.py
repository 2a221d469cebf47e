"""Threads that read before and write after the network: it never waits for a decoder, an encoder or a disk."""

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
    """Yield ``read`` of each item in order, reading the next ones meanwhile.

    What is read and not yet taken weighs at most ``limit``, plus what each thread is reading: the weight of an item is
    known only when it has been read.

    Args:
        read: what threads do; what it raises is raised here in its turn, and ends the rest.
        items: what to read.
        weigh: says how much of the limit a result takes.
        limit: how much may wait.
        threads: how many read at a time.
        most: results and reads in progress, whatever they weigh.
    """
    room = threading.Condition()
    waiting = wanted = 0
    stopped = False

    def take(number: int, item: _In) -> tuple[_Out, int]:
        nonlocal waiting
        with room:
            # The one that is asked for next never waits for later ones.
            room.wait_for(lambda: waiting < limit or number == wanted or stopped)
        result = read(item)
        weight = weigh(result)
        with room:
            waiting += weight
        return result, weight

    def give() -> _Out:
        nonlocal waiting, wanted
        result, weight = reads.popleft().result()
        with room:
            waiting -= weight
            wanted += 1
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
    """Runs work that nothing waits for, such as writing, in threads, and returns its results in order.

    Leaving the block normally waits for all work; leaving it by an exception drops what has not begun.

    >>> with BackgroundWriter[Path](limit=64_000_000) as writer:
    ...     for picture in pictures:
    ...         for path in writer.submit(lambda: write(picture), weight=pixels):
    ...             print(path)
    ...     for path in writer.finish():
    ...         print(path)

    Args:
        limit: how much may be pending, in the unit of the weights; beyond it, ``submit`` waits.
        threads: how many work at a time.
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
        """Begin ``work``, and return the results of the work that has ended since the last call.

        Raises:
            Exception: what earlier work raised.
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
