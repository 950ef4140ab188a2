"""Roles are read back from the words that give them, and leave the instruction as it was."""

import numpy as np
import pytest

from macro.engines.procedural.reference_roles import Roles, read_roles, roles_for, with_roles, without_roles

KINDS = {1: "bear", 3: "teapot", 5: "robot"}
SAID = (
    "the <image 1> bear stands left of the <image 3> teapot. the <image 5> robot is on grass.",
    "a scene with <image 1> bear left of <image 3> teapot; <image 5> robot behind the bear; all on sand.",
    "<image 1> is behind <image 3>. between <image 1> and <image 3> stands <image 5>.",
)


@pytest.mark.parametrize("instruction", SAID)
@pytest.mark.parametrize("roles", [Roles(), Roles({5: 2}, 4, 6), Roles({1: 2, 5: 4}, None, 6), Roles({}, 2, None)])
def test_words_for_roles_are_read_back(instruction, roles):
    for seed in range(4):
        prompt = with_roles(instruction, roles, KINDS, np.random.default_rng(seed))
        assert read_roles(prompt) == roles
        assert without_roles(prompt) == instruction


def test_every_cloth_has_a_wearer_of_its_own():
    categories = ("human", "cloth", "scene", "human", "cloth", "object", "style", "human")
    for seed in range(20):
        roles = roles_for(categories, np.random.default_rng(seed))
        assert sorted(roles.worn.values()) == [2, 5] and set(roles.worn) <= {1, 4, 8}
        assert (roles.place, roles.light) == (3, 7)
        assert roles.somebody(8) == [1, 4, 6, 8]
    assert len({tuple(roles_for(categories, np.random.default_rng(s)).worn) for s in range(20)}) > 2
