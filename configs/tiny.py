"""A composer small enough to watch learning on a laptop: 300 steps, falling losses, no pretty images.

python -m macro.train --config=configs/tiny.py --workdir=runs/tiny          (:smoke does 20 steps)

Hardware: two CPU cores. Hours: .05 (2.5 minutes while other work ran beside it; a minute more the first time,
to render its 512 samples).
Expected (seed 0, means of 10 steps): loss 4.06 -> .86, plan 7.09 -> 1.47 nats a token, draw 1.03 -> .25;
streams filled .92 (text), .94 (vision), .99 (latent). Plans come out grammatical; images stay noise, for the
autoencoder here is random and 1,774 samples are few.
"""

from ml_collections import ConfigDict

from macro.utils import experiment


def get_config(arg: str = "") -> ConfigDict:
    config = experiment.defaults()
    config.total_steps = 300
    config.model = {"variant": "XXS/64"}
    return experiment.sized(config, arg, "configs/tiny.py")
