"""Providers of the engines' stages, as `--provider`, `--provider.key=value` and `--material` describe them.

`procedural` answers from the scenes it renders; `foundation` runs real models on raw material from a folder.
Read next: `macro/engines/procedural/__init__.py`, `macro/engines/foundation/__init__.py`, `macro/engines/material/`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from data.shards import ProviderSpec, load
from macro.engines.provider import Provider
from macro.utils.config import parse_overrides
from macro.utils.errors import UserError

# Name -> (its options, what makes its stages), imported on demand.
PROVIDERS = {
    "procedural": ("macro.engines.procedural:Options", "macro.engines.procedural:provider"),
    "foundation": ("macro.engines.foundation:Options", "data.providers:foundation_provider"),
}
NONE = ProviderSpec("none")


def procedural(options: Any = None) -> ProviderSpec:
    """The procedural provider; `options` are `macro.engines.procedural.Options`, None for the defaults."""
    made, maker = PROVIDERS["procedural"]
    return ProviderSpec("procedural", maker, load(made)() if options is None else options)


@dataclass(frozen=True)
class WithMaterial:
    """The foundation provider's `models` (`foundation.Options`), and its raw material.

    `material` is a folder, "" for engines that use none; `reading`: how its files are read (`material.Options`);
    `split`: whose files.
    """

    models: Any
    material: str
    reading: Any
    split: str = "train"


class NoMaterial:
    """A `MaterialSource` without material.

    Every method raises UserError.
    """

    def _none(self, *which) -> NoReturn:
        raise UserError("--material is missing: this engine begins with raw material; name a folder of it")

    photo = clip = story = turntable = panorama = pooled = _none


def foundation_provider(options: WithMaterial) -> Provider:
    """The provider of `macro.engines.foundation`."""
    from macro.engines import foundation
    from macro.engines.material import FolderMaterial

    sources = FolderMaterial(options.material, options.reading, options.split) if options.material else NoMaterial()
    return foundation.provider(options.models, sources)


def parse_provider(
    name: str, values: Mapping[str, str], material: str, reading: Mapping[str, str], split: str = "train"
) -> ProviderSpec:
    """The provider that the command line describes.

    Args:
        values: of `--provider.key=value`. material: the folder of raw material, "" for none. reading: of
            `--material.key=value`.

    Raises:
        UserError: no such provider or option; material given to a provider that makes its own.
    """
    if name not in PROVIDERS:
        raise UserError(f"--provider={name}: there are {', '.join(PROVIDERS)}")
    options_of, maker = PROVIDERS[name]
    options = parse_overrides(load(options_of), values, "--provider")
    if name == "foundation":
        how = parse_overrides(load("macro.engines.material:Options"), reading, "--material")
        return ProviderSpec(name, maker, WithMaterial(options, material, how, split))
    if material or reading:
        raise UserError(f"--material: {name} makes its own; leave it out, or take --provider=foundation")
    return ProviderSpec(name, maker, options)
