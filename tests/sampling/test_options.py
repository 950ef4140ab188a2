import pytest
from ml_collections import ConfigDict

from macro.diffusion.guidance import Guidance
from macro.diffusion.step_cache import TaylorSeer, TeaCache
from macro.models.token_selection import TokenSelection
from macro.sampling.options import PlanSamplingConfig, SamplingOptions, read_options
from macro.utils import experiment
from macro.utils.errors import UserError


def test_sections_of_a_config_are_read():
    section = ConfigDict({
        "num_timesteps": 10, "cfg_text_scale": 3, "cfg_img_scale": 1.5, "cfg_interval": [0.4, 1.0],
        "image_shapes": [512, 768], "use_planner": True, "plan": {"layout_temperature": 0.0},
        "token_selection": {"keep": 0.5},
    })  # fmt: skip
    options = read_options(section)
    assert options == SamplingOptions(
        num_timesteps=10, cfg_text_scale=3.0, cfg_img_scale=1.5, cfg_interval=(0.4, 1.0), image_shapes=(512, 768),
        use_planner=True, plan=PlanSamplingConfig(layout_temperature=0.0), token_selection=TokenSelection(keep=0.5),
    )  # fmt: skip
    assert hash(options.guidance) is not None
    assert read_options({}) == SamplingOptions()


def test_which_contexts_the_scales_compare():
    assert SamplingOptions(cfg_text_scale=4.0, cfg_overall_scale=1.5).guidance.weights == {
        "full": 6.0, "no_text": -4.5, "null": -0.5
    }  # fmt: skip
    assert SamplingOptions(cfg_text_scale=1.0, cfg_img_scale=2.0).guidance.contexts == ("full", "no_image")
    released = {"policy": "bagel", "cfg_img_scale": 2.0, "cfg_renorm_type": "global"}
    assert SamplingOptions(cfg_text_scale=1.0, **released).guidance == Guidance()
    assert SamplingOptions(**released).guidance.renorm == "batch"


def test_the_released_code_counts_points_of_time():
    assert SamplingOptions(num_timesteps=50).steps == 50
    assert SamplingOptions(num_timesteps=50, policy="bagel").steps == 49


def test_step_caches_are_read():
    def read(**values):
        return read_options({"step_cache": values}).step_cache

    assert read(name="taylor", interval=4) == TaylorSeer(4, 1)
    assert read(name="threshold", limit=1) == TeaCache(1.0)
    assert read(name="none") is None
    section = ConfigDict({"step_cache": experiment.step_cache()})
    assert read_options(section).step_cache is None
    section.step_cache.update({"name": "taylor", "order": 2})
    assert read_options(section).step_cache == TaylorSeer(3, 2)


MISTAKES = {
    "policy": "mode", "cfg_text_scale": -1.0, "cfg_img_scale": float("inf"), "cfg_overall_scale": float("nan"),
    "cfg_interval": (0.5, 0.4), "cfg_renorm_type": "local", "cfg_renorm_min": 1.5, "timestep_shift": 0.0,
    "num_timesteps": 0, "text_temperature": 0.0, "max_think_token_n": 1, "image_shapes": (512, 0), "aspect": "wide",
}  # fmt: skip


def test_values_without_sense_are_named():
    more = [("cfg_interval", (0.5,)), ("cfg_interval", "half"), ("image_shapes", (512.5, 512)), ("aspect", "0:3")]
    for name, value in [*MISTAKES.items(), *more]:
        with pytest.raises(UserError, match=f"sampling.{name}="):
            SamplingOptions(**{name: value})
    for options, said in (
        ({"aspect": "1:1", "image_shapes": (64, 64)}, "sampling.aspect"),
        ({"num_timesteps": 1, "policy": "bagel"}, "at least 2"),
        ({"use_planner": True, "think": True}, "sampling.use_planner"),
        ({"use_planner": True, "policy": "bagel"}, "sampling.use_planner"),
        ({"cfg_overall_scale": 2.0, "policy": "bagel"}, "sampling.cfg_overall_scale"),
    ):
        with pytest.raises(UserError, match=said):
            SamplingOptions(**options)


SECTIONS = [
    ({"step": 10}, "unknown key 'step'"),
    ({"num_timesteps": 2.5}, "num_timesteps=2.5"),
    ({"text_scale": 3.0}, "cfg_text_scale"),
    ({"step_cache": {"name": "cache"}}, "sampling.step_cache.name: 'cache'.*taylor"),
    ({"step_cache": {"interval": 3}}, "sampling.step_cache.interval.*name"),
    ({"step_cache": {"name": "taylor", "limit": 0.1}}, "sampling.step_cache.*limit"),
    ({"step_cache": {"name": "taylor", "order": 2}, "num_timesteps": 2}, "num_timesteps=2.*step_cache"),
    ({"plan": {"heat": 3.0}}, "sampling.plan.*heat"),
    ({"token_selection": {"keeps": 0.5}}, "sampling.token_selection.*keeps"),
    # Keys of before.
    ({"steps": 10}, "is now 'sampling.num_timesteps'"),
    ({"guidance": {"name": "inset"}}, "cfg_text_scale"),
    ({"mode": "bagel"}, "sampling.policy"),
    ({"select": {"keep": 0.5}}, "is now 'sampling.token_selection'"),
    ({"writing": {"words": 0.5}}, "is now 'sampling.plan'"),
]


def test_mistakes_in_sections_are_named():
    for section, said in SECTIONS:
        with pytest.raises(UserError, match=said):
            read_options(section)
