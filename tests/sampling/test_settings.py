import pytest
from ml_collections import ConfigDict

from macro.diffusion.guidance import Guidance, bagel, inset
from macro.sampling.plan import Writing
from macro.sampling.settings import Settings, read_settings
from macro.utils.errors import UserError


def test_empty_section_is_the_default():
    assert read_settings({}) == Settings()
    assert Settings().guidance == inset()


def test_sections_of_a_config_are_read():
    section = ConfigDict(
        {
            "steps": 10,
            "guidance": {"name": "bagel", "text": 3.0, "image": 1.5, "interval": [0.4, 1.0]},
            "writing": {"cells": 0.0},
        }
    )
    settings = read_settings(section)
    assert settings.steps == 10
    assert settings.guidance == bagel(3.0, 1.5, interval=(0.4, 1.0))
    assert settings.writing == Writing(cells=0.0)
    assert hash(settings.guidance) is not None
    assert read_settings({"guidance": {"name": "none"}}).guidance == Guidance()


@pytest.mark.parametrize(
    "section, said",
    [
        ({"step": 10}, "sampling.*steps"),
        ({"steps": 0}, "sampling.steps"),
        ({"shift": 0.0}, "sampling.shift"),
        ({"guidance": {"name": "strong"}}, "'strong'"),
        ({"guidance": {"name": "inset", "tekst": 3.0}}, "sampling.guidance.tekst"),
        ({"writing": {"heat": 3.0}}, "sampling.writing.*heat"),
    ],
)
def test_mistakes_are_named(section, said):
    with pytest.raises(UserError, match=said):
        read_settings(section)
