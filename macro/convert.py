"""Brings weights in and out.

python -m macro.convert --from=bagel --source=DIR --out=W     a BAGEL checkpoint becomes W/model.safetensors
python -m macro.convert --to=bagel --source=W --out=DIR       and back: ema.safetensors, ae.safetensors, JSON files
python -m macro.convert --from=qwen --source=QWEN --vision=SIGLIP --vae=ae.safetensors --out=W --seed=0
                                                              a new model, as BAGEL was once started

DIR holds what ByteDance-Seed/BAGEL-7B-MoT or a fine-tuning of it holds: llm_config.json, vit_config.json,
ema.safetensors (or model.safetensors, whole or in shards with an index), ae.safetensors, and the tokenizer if you
want it to go along. Types are kept: there and back again gives the same bytes. Everything is checked by name and
shape before anything is written.
What it runs: `macro/models/bagel/exchange.py`.
"""

import shlex
import sys
from pathlib import Path

from macro.utils.config import run
from macro.utils.errors import UserError


def main(
    source: str, out: str, from_: str = "", to: str = "", vision: str = "", vae: str = "", max_latent_size: int = 0,
    seed: int = 0,
) -> None:  # fmt: skip
    if bool(from_) == bool(to) or from_ not in ("", "bagel", "qwen") or to not in ("", "bagel"):
        raise UserError("say one of --from=bagel, --from=qwen and --to=bagel")
    if from_ == "qwen" and not (vision and vae):
        raise UserError("--from=qwen also needs --vision=<folder of SigLIP> and --vae=<FLUX's ae.safetensors>")

    from macro.models.bagel.exchange import export_bagel, import_bagel
    from macro.models.bagel.folder import open_folder
    from macro.models.bagel.twins import start_from

    notes = {"command": shlex.join(["python", "-m", "macro.convert", *sys.argv[1:]]), "source": Path(source).name}
    if to:
        written = export_bagel(source, out)
    elif from_ == "qwen":
        written = [start_from(source, vision, vae, out, max_latent_size or 64, seed, notes)]
    else:
        written = import_bagel(open_folder(source, max_latent_size or None), out, notes)
    for path in written:
        print(f"wrote {path} ({path.stat().st_size / 1e6:,.1f} MB)")


if __name__ == "__main__":
    run(
        main,
        from_="whose checkpoint --source is: bagel, or qwen for a new model",
        to="whose checkpoint to write: bagel",
        source="folder (or weights file of ours) to read",
        out="folder to write to",
        vision="with --from=qwen: folder of SigLIP",
        vae="with --from=qwen: file of FLUX's autoencoder",
        max_latent_size="latent tokens a side that you count on; 0: what the checkpoint has, 64 in a new model",
        seed="of what a new model starts at random",
    )
