"""Raw material from files: what `macro/engines/sources.py` asks for, out of pictures, videos, stories and meshes.

    sources = Material("my_material")
    sources.photo(seed=0, index=3), sources.ring(0, 3), sources.pooled("human", 0, 3)

    my_material/
        photos/      pictures (.png .jpg .jpeg .webp .gif .bmp .tif .tiff), in folders of any depth, as everywhere
        videos/      .mp4 .mov .m4v .mkv .webm .avi .mpg .mpeg
        panoramas/   equirectangular pictures, twice as wide as high
        meshes/      .obj .ply .glb .gltf .stl .off
        stories/     .json with pictures beside it (`stories.py` says what is in it)
        pool/human/ pool/cloth/ pool/object/ pool/scene/ pool/style/   pictures by category

Folders that nobody asks for may be missing. A folder with none of these in it, or a single file, is material of every
kind that its files' suffixes allow. Read next: `source.py`, then `clips.py`, `stories.py`, `meshes.py`.
"""

from macro.engines.material.source import CATEGORIES, Material, Options

__all__ = ["CATEGORIES", "Material", "Options"]
