"""benchmarks/names.py: the names that it times are what it says they are."""

import pytest


@pytest.fixture(scope="module")
def names(script):
    return script("names")


def test_fewer_names_are_drawn_from_the_whole_list(names):
    every, few = names.names_of(names.ALL_NAMES, 2048), names.names_of(24, 2048)
    assert len(set(every)) == names.ALL_NAMES
    assert set(few) < set(every)
    assert len(few) == len(set(few)) == len(names.LETTERS) == 24
    assert {len(name) for name in every} == {1, 2, 3, 4}
    assert len({name[0] for name in every}) < names.ALL_NAMES / 2
