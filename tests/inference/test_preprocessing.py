"""The size at which the network sees a picture."""

import numpy as np

from pdnla.inference.preprocessing import working_size


def test_the_working_size_is_in_sixteens_near_the_area_and_the_aspect() -> None:
    for width, height in [
        (640, 480),
        (1000, 667),
        (512, 512),
        (3000, 4000),
        (1920, 1080),
        (90, 160),
        (8000, 1000),
    ]:
        for size in (128, 512, 1024):
            w, h = working_size((width, height), size)
            assert w % 16 == h % 16 == 0
            assert 0.8 < w * h / size**2 < 1.2
            assert abs(np.log(w / h * height / width)) < 8 / min(w, h)


def test_the_working_size_of_extremes_is_bounded() -> None:
    assert working_size((512, 512), 512) == (512, 512)
    assert working_size((1, 1), 16) == (16, 16)
    for size in [(1, 5000), (5000, 1), (100_000, 3)]:
        sides = working_size(size, 512)
        assert min(sides) >= 16
        assert max(sides) <= 8 * 512 + 32
        assert sides[0] * sides[1] <= 1.15 * 512**2
    assert working_size((30, 40), 512) == working_size((3000, 4000), 512)
