"""Brings weights in and out.

python -m macro.convert --from=bagel --source=DIR --out=W     a BAGEL checkpoint becomes W/model.safetensors
python -m macro.convert --to=bagel --source=W --out=DIR       and back: ema.safetensors, ae.safetensors, JSON files

DIR holds what ByteDance-Seed/BAGEL-7B-MoT or a fine-tuning of it holds: llm_config.json, vit_config.json,
ema.safetensors (or model.safetensors, whole or in shards with an index), ae.safetensors, and the tokenizer if you
want it to go along. Types are kept: there and back again gives the same bytes. Everything is checked by name and
shape before anything is written.
What it runs: `macro/models/bagel/exchange.py`.
"""

import shlex
import sys
from pathlib import Path

from macro.utils.config import run, writable_folder
from macro.utils.errors import UserError


def main(source: str, out: str, from_: str = "", to: str = "", max_latent_size: int = 0) -> None:
    if bool(from_) == bool(to):
        raise UserError("say either --from=bagel or --to=bagel")
    if (from_ or to) != "bagel":
        raise UserError(f"--{'from' if from_ else 'to'}={from_ or to}: there is only bagel")

    from macro.models.bagel.exchange import check, export_bagel, import_bagel
    from macro.models.bagel.folder import open_folder

    if from_:
        folder = open_folder(source, max_latent_size or None)
        check(folder)
        command = shlex.join(["python", "-m", "macro.convert", *sys.argv[1:]])
        written = [import_bagel(folder, writable_folder(out), {"command": command, "source": Path(source).name})]
    else:
        written = export_bagel(source, writable_folder(out))
    for path in written:
        print(f"wrote {path} ({path.stat().st_size / 1e6:,.1f} MB)")


if __name__ == "__main__":
    run(
        main,
        from_="whose checkpoint --source is: bagel",
        to="whose checkpoint to write: bagel",
        source="folder (or weights file of ours) to read",
        out="folder to write to",
        max_latent_size="latent tokens a side that you count on; 0 takes what the checkpoint has",
    )
