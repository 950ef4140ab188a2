"""Brings weights in and out.

python -m macro.convert --from=bagel --source=DIR --out=W     a BAGEL checkpoint becomes W/model.safetensors
python -m macro.convert --to=bagel --source=W --out=DIR       and back: ema.safetensors, ae.safetensors, JSON files
python -m macro.convert --from=qwen --source=QWEN --vision=SIGLIP --vae=ae.safetensors --out=W --seed=0
                                                              a new model, as BAGEL was once started
python -m macro.convert --from=peft --source=DIR --out=lora.safetensors --base=W/model.safetensors
python -m macro.convert --to=peft --source=lora.safetensors --out=DIR
                                                              LoRA adapters for BAGEL, from and to a folder of PEFT's;
                                                              --base, if given, is what they must fit

DIR holds what ByteDance-Seed/BAGEL-7B-MoT or a fine-tuning of it holds: llm_config.json, vit_config.json,
ema.safetensors (or model.safetensors, whole or in shards with an index), ae.safetensors, and the tokenizer if you
want it to go along. Types are kept: there and back again gives the same bytes. Everything is checked by name and
shape before anything is written.
What it runs: `macro/models/checkpoints/bagel/convert.py`.
"""

import shlex
import sys
from pathlib import Path

from macro.utils.config import run
from macro.utils.errors import UserError


def main(
    source: str, out: str, from_: str = "", to: str = "", vision: str = "", vae: str = "", max_latent_size: int = 0,
    seed: int = 0, base: str = "",
) -> None:  # fmt: skip
    if bool(from_) == bool(to) or from_ not in ("", "bagel", "qwen", "peft") or to not in ("", "bagel", "peft"):
        raise UserError("say one of --from=bagel, --from=qwen, --from=peft, --to=bagel and --to=peft")
    if base and "peft" not in (from_, to):
        raise UserError("--base: belongs to --from=peft and --to=peft")
    if from_ == "qwen" and not (vision and vae):
        raise UserError("--from=qwen also needs --vision=<folder of SigLIP> and --vae=<FLUX's ae.safetensors>")

    from macro.models.checkpoints.bagel.checkpoint import open_folder
    from macro.models.checkpoints.bagel.convert import export_bagel, import_bagel
    from macro.models.checkpoints.bagel.upcycle import start_from

    notes = {"command": shlex.join(["python", "-m", "macro.convert", *sys.argv[1:]]), "source": Path(source).name}
    if "peft" in (from_, to):
        written = _adapters(source, out, base, bool(to))
    elif to:
        written = export_bagel(source, out)
    elif from_ == "qwen":
        written = [start_from(source, vision, vae, out, max_latent_size or 64, seed, notes)]
    else:
        written = import_bagel(open_folder(source, max_latent_size or None), out, notes)
    for path in written:
        print(f"wrote {path} ({path.stat().st_size / 1e6:,.1f} MB)")


def _adapters(source: str, out: str, base: str, to_peft: bool) -> list[Path]:
    """LoRA adapters into a folder of PEFT's, or out of one."""
    from macro.models.checkpoints import lora, peft

    if to_peft:
        params, fields = lora.read(source)
        peft.save_peft(out, params, fields["rank"], fields["alpha"], fields["dropout"], base or peft.BAGEL)
        return [Path(out) / peft.WEIGHTS, Path(out) / peft.CONFIG]
    path = Path(out) if out.endswith(".safetensors") else Path(out) / "lora.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    lora.save(path, *peft.load_peft(source), base or None)
    return [path]


if __name__ == "__main__":
    run(
        main,
        from_="whose checkpoint --source is: bagel, qwen for a new model, or peft for adapters",
        to="whose checkpoint to write: bagel, or peft for adapters",
        source="folder (or weights file of ours) to read",
        out="folder to write to",
        vision="with --from=qwen: folder of SigLIP",
        vae="with --from=qwen: file of FLUX's autoencoder",
        max_latent_size="latent tokens a side that you count on; 0: what the checkpoint has, 64 in a new model",
        seed="of what a new model starts at random",
        base="with --from=peft: weights file that the adapters must fit; with --to=peft: name of the model they change",
    )
