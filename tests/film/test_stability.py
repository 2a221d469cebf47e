"""Colours that hold still, and let go: flicker, things that appear and leave, wrong colours, cuts."""

import itertools

import numpy as np
import pytest
from clips import photograph
from numpy.typing import NDArray

from pdnla.film.motion import Finder, fill_gaps
from pdnla.film.stability import CERTAIN, MEMORY, STEP, Own, Stabiliser

Grey = NDArray[np.uint8]
Map = NDArray[np.float32]
SIDE = 96


def scene(shift: float = 0) -> Grey:
    """A textured scene of which the camera shows a part."""
    left = 60 + round(shift)
    return np.ascontiguousarray(photograph()[100 : 100 + SIDE, left : left + SIDE])


def plain(a: float, b: float) -> Map:
    return np.full((SIDE, SIDE, 2), (a, b), np.float32)


def colour(greys: list[Grey], owns: list[Map], confidence: float = 0.7) -> list[Map]:
    """Colour a shot; ``owns`` are each frame's own colours."""
    trust = np.full((SIDE, SIDE), confidence, np.float32)
    first = 0
    stabiliser = Stabiliser(lambda place: Own(owns[first + place], trust))
    results = stabiliser.colour(greys[:1])
    for first in range(1, len(greys), STEP):
        results += stabiliser.colour(greys[first : first + STEP])
    return results


def test_flicker_of_own_colours_is_held_still_and_their_mean_kept() -> None:
    generator = np.random.default_rng(0)
    greys = [scene(2 * i) for i in range(33)]
    owns = [plain(*(20 + generator.normal(0, 5, 2))) for _ in greys]
    results = colour(greys, owns)
    changes = [float(np.abs(after - before).mean()) for before, after in itertools.pairwise(results)]
    own_changes = [float(np.abs(after - before).mean()) for before, after in itertools.pairwise(owns)]
    assert np.mean(changes[8:]) < 0.15 * np.mean(own_changes)
    assert np.mean(results[16:]) == pytest.approx(20, abs=3)


def test_a_wrong_colour_does_not_stay() -> None:
    """One key frame's own colours are wrong; a shot later nothing of them is left."""
    greys = [scene(i) for i in range(1 + 24 * STEP)]
    owns = [plain(-40, 40) if number == 0 else plain(15, 15) for number in range(len(greys))]
    results = colour(greys, owns)
    distance = [float(np.linalg.norm(result - plain(15, 15), axis=-1).mean()) for result in results]
    assert distance[0] > 40
    assert distance[-1] < 0.1 * distance[0]


def test_chroma_leaves_with_the_object_that_has_it() -> None:
    """A bright red box crosses a blue scene: no red stays behind, and the box keeps its colour."""
    texture = np.random.default_rng(0).integers(170, 255, (24, 24)).astype(np.uint8)
    background = (scene() // 3).astype(np.uint8)
    greys, owns, places = [], [], []
    for number in range(17):
        left = 4 + 4 * number
        grey, own, place = background.copy(), plain(5, -20), np.zeros((SIDE, SIDE), bool)
        place[36:60, left : left + 24] = True
        grey[place] = texture.ravel()
        own[place] = (50, 30)
        greys.append(grey)
        owns.append(own)
        places.append(place)
    for result, own, place in zip(colour(greys, owns), owns, places, strict=True):
        assert float(np.abs(result - own)[~place].mean()) < 1.5
        assert float(np.abs(result - own)[place].mean()) < 6


def test_given_colours_are_kept_exactly_and_carried_on() -> None:
    greys = [scene(i) for i in range(9)]
    stabiliser = Stabiliser(lambda place: Own(plain(-30, 0), np.full((SIDE, SIDE), 0.2, np.float32)))
    given = Stabiliser(lambda place: Own(plain(40, 40), np.full((SIDE, SIDE), CERTAIN, np.float32)))
    (first,) = given.colour(greys[:1])
    np.testing.assert_allclose(first, plain(40, 40))
    stabiliser.memory = given.memory
    last = stabiliser.colour(greys[1:5])[-1]
    assert float(np.median(last[..., 0])) > 30
    again = given.colour(greys[1:5])
    np.testing.assert_allclose(again[-1], plain(40, 40), atol=0.6)


def test_nothing_is_carried_over_a_cut_nor_where_motion_is_lost() -> None:
    other = np.ascontiguousarray(photograph()[300 : 300 + SIDE, 300 : 300 + SIDE][::-1])
    results = colour([scene(), scene(), other, other], [plain(40, 0), plain(40, 0), plain(-40, 0), plain(-40, 0)])
    assert float(results[-1][..., 0].mean()) < -30
    stabiliser = Stabiliser(lambda place: Own(plain(-40, 0), np.full((SIDE, SIDE), 0.7, np.float32)))
    stabiliser.memory = None
    stabiliser.colour([scene()])
    stabiliser.cut()
    assert stabiliser.memory is None


def test_motion_is_found_and_distrusted_where_it_leads_nowhere() -> None:
    motion = Finder().between(scene(6), scene(0))
    inner = (slice(12, -12), slice(12, -24))
    columns = np.arange(SIDE)[None, 12:-24]
    assert np.abs(motion.places[inner][..., 0] - columns - 6).mean() < 0.5
    assert motion.trust[inner].mean() > 0.7
    unrelated = Finder().between(scene(), np.ascontiguousarray(photograph()[300 : 300 + SIDE, 200 : 200 + SIDE]))
    assert unrelated.trust.mean() < 0.4


def test_gaps_are_filled_from_around() -> None:
    weight = np.full((SIDE, SIDE), 1e-3, np.float32)
    weight[:, :40] = 1
    result = fill_gaps(plain(20, -10) * weight[..., None], weight)
    np.testing.assert_allclose(result, plain(20, -10), atol=0.5)
    assert MEMORY > 1
