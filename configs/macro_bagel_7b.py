"""MACRO: BAGEL fine-tuned for up to ten references on the four tasks of MacroData (arXiv 2603.25319).

    python -m macro.convert --from=bagel --source=BAGEL-7B-MoT --out=weights/bagel                     29 GB, once
    python -m macro.train --config=configs/macro_bagel_7b.py --workdir=runs/macro --config.data.dir=macrodata

`macrodata` is the published tree: `<task>/train/<1-3|4-5|6-7|>=8>/*.json` with their images, and beside the tasks a
folder `text_to_image` (`input_images` empty). ":smoke" does 20 steps of a very small model on rendered scenes.

Hardware: see configs/bagel_7b.py, where all that is not said here comes from; the vision encoder has no gradient.
Expected, by the paper (MacroBench, mean of four tasks, 1-5 and 6-10 references together): BAGEL 3.03 -> 5.71.
Not trained by us. Sources: [paper]; [code] its released fine-tuning script; [ours].
Not as released: it drops each text, ViT and VAE copy for itself, so that with ten references the contexts that guidance
compares have a probability of 1e-11; here they are dropped jointly (--config.cfg_dropout.mode=per_item is its rule).
Its resize shrinks both sides by the ratio of areas instead of the root, and differs between training
and inference from six references on; here `reference_pixels` is one rule for both.
"""

from pathlib import Path

from ml_collections import ConfigDict

from macro.utils import config as config_lib
from macro.utils import experiment

BUCKETS = ("1-3", "4-5", "6-7", ">=8")
# Proportions of the buckets within a task [code]; tasks count alike [paper] (100K samples each).
RATIOS = {
    "customization": (2, 2, 3, 3),
    "illustration": (1, 1, 1, 1),
    "spatial": (1, 1, 1, 1),
    "temporal": (1, 1, 1, 1),
}
TEXT_TO_IMAGE = 0.1  # [paper] mixed in, it keeps what the base model can do


def get_config(arg: str = "") -> ConfigDict:
    config = config_lib.load(str(Path(__file__).with_name("bagel_7b.py")))
    with config.unlocked():
        # [code] 10 epochs of 400,000 samples, and text to image besides; about one sample a row: [ours].
        config.total_steps = 70_000
        config.batch_size = 64  # rows: [ours]
        config.freeze = ("composer/planner/vision/",)  # [code] VAE and ViT frozen
        config.optim.lr = 2e-5  # [code]; constant, 2,000 steps of warm-up, average .9999 as in BAGEL

        share = (1 - TEXT_TO_IMAGE) / len(RATIOS)
        config.data.mix = (("text_to_image", TEXT_TO_IMAGE),) + tuple(
            (f"{task}/train/{bucket}", share * ratio / sum(ratios))
            for task, ratios in RATIOS.items()
            for bucket, ratio in zip(BUCKETS, ratios, strict=True)
        )
        config.data.arrangement = "in_sentence"  # [ours]
        config.tasks = ("text_to_image", *RATIOS, "compose")  # the last: files that name no task
        config.packing.update(
            {
                # [code] 32,768 packed tokens a row, 36,864 at most. Vision and latent each hold the largest sample,
                # five references of 589,824 pixels (and a target of 1,048,576).
                "text": 4096,
                "vision": 15_360,
                "latent": 15_872,
                "samples": 8,
                # 1:1, 4:3 and 16:9 near each of the three areas below, sides of at most 1024 (the latents' position
                # table); aspects are exactly alike, for the aspect is looked at before the area: [ours].
                "buckets": (
                    *((1024, 1024, 3), (768, 768, 6), (512, 512, 15)),
                    *((768, 1024, 3), (624, 832, 6), (432, 576, 15)),
                    *((1024, 768, 3), (832, 624, 6), (576, 432, 15)),
                    *((576, 1024, 6), (432, 768, 12)),
                    *((1024, 576, 6), (768, 432, 12)),
                ),
                "reference_max_side": 980,  # [ours] as BAGEL's ViT reads images when it draws
                "reference_min_side": 224,
                # [code] pixels of each reference if there are up to 2, 5, 10 of them
                "reference_pixels": ((2, 1_048_576), (5, 589_824), (10, 262_144)),
            }
        )
    return experiment.recipe(config, arg, "configs/macro_bagel_7b.py")
