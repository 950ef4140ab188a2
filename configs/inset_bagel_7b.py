"""INSET: BAGEL fine-tuned on images that stand in the sentence as words (arXiv 2605.12305).

    python -m macro.convert --from=bagel --source=BAGEL-7B-MoT --out=weights/bagel                     29 GB, once
    python -m macro.train --config=configs/inset_bagel_7b.py --workdir=runs/inset --config.data.dir=inset

`inset` holds folders `images` and `video` of INSET's files (caption, phrase -> image map), `edit` and
`text_to_image` (`macro/sentence/prompt.py`). ":smoke" does 20 steps of a very small model on rendered scenes.

Hardware: see configs/bagel_7b.py, where all that is not said here comes from.
Expected, by the paper (InterleaveBench, image and text consistency): BAGEL .61 / .45 -> .93 / .75; without the video
data .91 / .60, with VAE tokens of the references .82 / .56.
Not trained by us. Sources: [paper]; [note] two readers' notes of it that agree; [ours].
"""

from pathlib import Path

from ml_collections import ConfigDict

from macro.utils import config as config_lib
from macro.utils import experiment


def get_config(arg: str = "") -> ConfigDict:
    config = config_lib.load(str(Path(__file__).with_name("bagel_7b.py")))
    with config.unlocked():
        config.total_steps = 50_000  # [note]
        config.batch_size = 64  # rows: [ours]
        config.model.timestep_shift = 3.0  # [note]
        config.optim.lr = 2.5e-5  # [note]; AdamW .9 / .95, all parameters but the VAE's, as in BAGEL

        # [note] interleaved images, interleaved video, editing, text to image
        config.data.mix = (("images", 0.2), ("video", 0.2), ("edit", 0.1), ("text_to_image", 0.5))
        config.data.arrangement = "in_sentence"  # [paper]
        config.tasks = ("compose", "edit", "text_to_image")
        config.packing.update(
            {
                # [note] about 30,000 packed tokens a rank
                "text": 2560,
                "vision": 15_360,
                "latent": 12_288,
                "samples": 16,
                "buckets": (
                    *((1024, 1024, 3), (768, 1024, 4), (1024, 768, 4), (576, 1024, 5), (1024, 576, 5)),
                    *((512, 512, 6), (512, 688, 4), (688, 512, 4)),
                ),
                "reference_vae": False,  # [paper] ViT tokens only: VAE tokens cause pasting
                "reference_max_side": 980,  # as BAGEL's ViT reads images to understand them
                "reference_min_side": 224,
                # So that the eight images of the largest samples fit a row: [ours], MACRO's steps
                "reference_pixels": ((2, 1_048_576), (5, 589_824), (10, 262_144)),
            }
        )
        # Its guidance asks for contexts without text and without anything; a third without images, shares: [ours].
        config.cfg_dropout.update({"mode": "joint", "no_text": 0.1, "no_image": 0.1, "null": 0.1})
        config.sampling = {
            "num_timesteps": 50,  # [ours] BAGEL's
            "timestep_shift": 3.0,  # [note]
            "cfg_text_scale": 4.0,  # [note] s1
            "cfg_overall_scale": 1.5,  # [note] s2
            "step_cache": experiment.step_cache(),
            "token_selection": experiment.token_selection(),
        }
    return experiment.recipe(config, arg, "configs/inset_bagel_7b.py")
