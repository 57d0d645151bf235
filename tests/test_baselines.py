"""The comparison with copying and with another person's photo."""

import pytest

from script.baselines import identity_of, other_person
from util.errors import UserError


class Pairs:
    """As much of a data set as is needed."""

    def __init__(self, pairs):
        self.pairs = pairs

    def __len__(self):
        return len(self.pairs)


@pytest.mark.parametrize("view", ["1front", "2side", "3back", "4full", "7additional"])
def test_every_view_of_a_person_is_the_same_person(view):
    name = f"fashionWOMENBlouses_Shirtsid0000000102_{view}.jpg"
    assert identity_of(name) == "WOMEN/Blouses_Shirts/id_00000001"


def test_other_names_tell_the_person_before_the_underscore():
    assert identity_of("0002_c1s1_000451_03.jpg") == "0002"
    assert identity_of("sidney_1.png") == "sidney"


def test_the_other_person_is_somebody_else():
    ann = [f"fashionWOMENDressesid0000000101_{view}.jpg" for view in ("2side", "1front", "3back")]
    bob = "fashionMENDenimid0000000201_2side.jpg"
    people = Pairs([(source, ann[0]) for source in (*ann, bob)])
    assert [other_person(people, i) for i in range(4)] == [3, 3, 3, 0]
    with pytest.raises(UserError, match="the same person"):
        other_person(Pairs(people.pairs[:3]), 0)
