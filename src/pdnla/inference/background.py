"""Reading and writing beside the work between them: pictures are decoded ahead of it and encoded behind it."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

from typing_extensions import Self

_In = TypeVar("_In")
_Out = TypeVar("_Out")


def ahead(
    read: Callable[[_In], _Out],
    items: Iterable[_In],
    weigh: Callable[[_Out], int],
    limit: int,
    threads: int = 2,
    most: int = 64,
) -> Iterator[_Out]:
    """Yield ``read`` of each item in order, reading the next ones meanwhile.

    What is read and not yet taken weighs at most ``limit`` and what each thread reads at the moment: what one item
    weighs is known only when it is read.

    Args:
        read: what threads do; what it raises is raised here in its turn, and ends the rest.
        items: what to read.
        weigh: says how much of the limit a result takes.
        limit: how much may wait.
        threads: how many read at a time.
        most: results and reads under way, whatever they weigh.
    """
    room = threading.Condition()
    waiting = wanted = 0
    stopped = False

    def take(number: int, item: _In) -> tuple[_Out, int]:
        nonlocal waiting
        with room:
            # The one that is asked for next is never kept waiting by later ones.
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


class Behind(Generic[_In]):
    """Does in threads what need not be waited for, such as writing, and gives back what is done, in order.

    Leaving the block normally waits for all; leaving it by an exception lets go what has not begun.

    >>> with Behind(limit=64_000_000) as behind:
    ...     for picture in pictures:
    ...         for done in behind.do(picture, lambda: write(picture), weight=pixels):
    ...             print(done)
    ...     for done in behind.rest():
    ...         print(done)

    Args:
        limit: how much may wait to be done, in the unit of the weights; beyond it, ``do`` waits.
        threads: how many work at a time.
    """

    def __init__(self, limit: int, threads: int = 2) -> None:
        self.limit = limit
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="write")
        self._under_way: deque[tuple[_In, Future[object], int]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=kind is not None)

    def do(self, item: _In, work: Callable[[], object], weight: int) -> list[_In]:
        """Begin ``work`` for ``item``, and return the items whose work is done since the last call.

        Raises:
            Exception: what the work of an earlier item raised.
        """
        done = self._done()
        while self._under_way and sum(w for *_, w in self._under_way) + weight > self.limit:
            done.append(self._oldest())
        self._under_way.append((item, self._pool.submit(work), weight))
        return done

    def rest(self) -> list[_In]:
        """Wait for all that is under way, and return its items."""
        return [self._oldest() for _ in range(len(self._under_way))]

    def _done(self) -> list[_In]:
        done = []
        while self._under_way and self._under_way[0][1].done():
            done.append(self._oldest())
        return done

    def _oldest(self) -> _In:
        item, future, _ = self._under_way.popleft()
        future.result()
        return item
