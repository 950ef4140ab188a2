"""Makes the small copy that stands in where no golden folder is at hand (a clone alone, CI):

    python tests/parity/shrink.py ../shared/parity/bagel tests/parity/goldens/bagel

Left out: the VAE's weights and their recordings (half of everything; checks that need them are skipped on the
copy, or go without the decoded image), pixels that the packed files repeat, and lists of keys. The numbers that
are kept are as recorded.
"""

import shutil
import sys
from pathlib import Path

import numpy as np

AS_THEY_ARE = ("config.json", "bagel_tiny.safetensors")


def shrink(source: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for name in AS_THEY_ARE:
        shutil.copyfile(source / name, target / name)
    for path in sorted(source.glob("*.npz")):
        arrays = dict(np.load(path))
        arrays.pop("padded_images", None)
        if path.stem.startswith("pack_") and path.stem != "pack_none_dense":
            arrays.pop("packed_vit_tokens")
        if path.stem != "vae":
            np.savez_compressed(target / path.name, **arrays)


if __name__ == "__main__":
    shrink(Path(sys.argv[1]), Path(sys.argv[2]))
