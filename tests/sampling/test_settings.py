import pytest
from ml_collections import ConfigDict

from macro.diffusion.guidance import Guidance, bagel, inset
from macro.diffusion.step_cache import TaylorSeer, TeaCache
from macro.sampling.plan import Writing
from macro.sampling.settings import Settings, read_settings
from macro.utils import experiment
from macro.utils.errors import UserError


def test_empty_section_is_the_default():
    assert read_settings({}) == Settings()
    assert Settings().guidance == inset()


def test_sections_of_a_config_are_read():
    section = ConfigDict(
        {
            "steps": 10,
            "guidance": {"name": "bagel", "cfg_text_scale": 3.0, "cfg_img_scale": 1.5, "cfg_interval": [0.4, 1.0]},
            "writing": {"cells": 0.0},
        }
    )
    settings = read_settings(section)
    assert settings.steps == 10
    assert settings.guidance == bagel(3.0, 1.5, cfg_interval=(0.4, 1.0))
    assert settings.writing == Writing(cells=0.0)
    assert hash(settings.guidance) is not None
    assert read_settings({"guidance": {"name": "none"}}).guidance == Guidance()


def test_reuse_is_read():
    assert read_settings({"reuse": {"name": "taylor", "interval": 4}}).reuse == TaylorSeer(4, 1)
    assert read_settings(ConfigDict({"reuse": {"name": "threshold", "limit": 1}})).reuse == TeaCache(1.0)
    assert read_settings({"reuse": {"name": "none"}}).reuse is None
    section = ConfigDict({"reuse": experiment.reuse()})
    assert read_settings(section).reuse is None
    section.reuse.update({"name": "taylor", "order": 2})
    assert read_settings(section).reuse == TaylorSeer(3, 2)
    assert hash(read_settings(section)) is not None


@pytest.mark.parametrize(
    "section, said",
    [
        ({"step": 10}, "sampling.*steps"),
        ({"steps": 0}, "sampling.steps"),
        ({"shift": 0.0}, "sampling.shift"),
        ({"guidance": {"name": "strong"}}, "'strong'"),
        ({"guidance": {"name": "inset", "tekst": 3.0}}, "sampling.guidance.tekst"),
        ({"reuse": {"name": "cache"}}, "sampling.reuse.name: 'cache'.*taylor"),
        ({"reuse": {"interval": 3}}, "sampling.reuse.interval.*name"),
        ({"reuse": {"name": "taylor", "limit": 0.1}}, "sampling.reuse.*limit"),
        ({"reuse": {"name": "taylor", "interval": 0}}, "sampling.reuse.interval"),
        ({"reuse": {"name": "taylor", "order": -1}}, "sampling.reuse.order"),
        ({"reuse": {"name": "threshold", "limit": 0}}, "sampling.reuse.limit"),
        ({"reuse": {"name": "taylor", "order": 2}, "steps": 2}, "sampling.steps: 2.*reuse.* 3"),
        ({"writing": {"heat": 3.0}}, "sampling.writing.*heat"),
    ],
)
def test_mistakes_are_named(section, said):
    with pytest.raises(UserError, match=said):
        read_settings(section)
