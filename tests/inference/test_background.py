"""Reading ahead and writing in the background: in order, bounded, and nothing left running."""

import threading
import time
from functools import partial

import pytest

from pdnla.inference.background import BackgroundWriter, read_ahead


def test_what_is_read_ahead_comes_in_order() -> None:
    def read(number: int) -> int:
        time.sleep(0.002 * (number % 3))
        return number

    assert list(read_ahead(read, range(30), lambda _: 1, limit=5)) == list(range(30))


def test_reading_goes_on_while_the_last_result_is_used() -> None:
    second = threading.Event()

    def read(number: int) -> int:
        if number == 1:
            second.set()
        return number

    results = read_ahead(read, range(3), lambda _: 1, limit=5)
    assert next(results) == 0
    assert second.wait(5)
    assert list(results) == [1, 2]


def test_no_more_is_read_than_may_wait() -> None:
    begun: list[int] = []

    def read(number: int) -> int:
        begun.append(number)
        return number

    results = read_ahead(read, range(100), lambda _: 10, limit=30, threads=1)
    assert next(results) == 0
    time.sleep(0.1)
    assert len(begun) <= 1 + 3 + 1
    assert list(results) == list(range(1, 100))


def test_one_that_weighs_more_than_the_limit_is_read_all_the_same() -> None:
    assert list(read_ahead(lambda n: n, range(5), lambda _: 100, limit=1)) == list(range(5))


def test_what_reading_raises_is_raised_in_its_turn() -> None:
    def read(number: int) -> int:
        if number == 2:
            raise ValueError("two")
        return number

    results = read_ahead(read, range(9), lambda _: 1, limit=5)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="two"):
        next(results)


def test_leaving_early_leaves_no_thread_behind() -> None:
    before = threading.active_count()
    results = read_ahead(lambda n: n, range(1000), lambda _: 10, limit=10)
    next(results)
    results.close()
    assert threading.active_count() == before


def test_results_of_background_work_come_back_once_and_in_order() -> None:
    done: list[int] = []

    def work(number: int) -> int:
        time.sleep(0.002 * (number % 3))
        return number

    with BackgroundWriter[int](limit=4) as writer:
        for number in range(20):
            done += writer.submit(partial(work, number), weight=1)
        done += writer.finish()
    assert done == list(range(20))


def test_no_more_waits_to_be_done_than_may() -> None:
    under_way, most = 0, 0
    lock = threading.Lock()

    def work() -> None:
        nonlocal under_way
        time.sleep(0.005)
        with lock:
            under_way -= 1

    with BackgroundWriter[None](limit=20) as writer:
        for _ in range(12):
            with lock:
                under_way += 1
                most = max(most, under_way)
            writer.submit(work, weight=10)
        writer.finish()
    assert most <= 3  # two that may wait, and the one that is given


def test_what_work_raises_is_raised_and_the_rest_let_go() -> None:
    begun: list[int] = []

    def work(number: int) -> None:
        begun.append(number)
        time.sleep(0.01)
        raise OSError("full")

    def do_all() -> None:
        with BackgroundWriter[None](limit=1000, threads=1) as writer:
            for number in range(50):
                writer.submit(partial(work, number), weight=1)
            writer.finish()

    with pytest.raises(OSError, match="full"):
        do_all()
    assert len(begun) < 50
