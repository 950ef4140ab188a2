"""Raw material from files: the `MaterialSource` of `types.py` for images, videos, stories, meshes and panoramas.

    sources = FolderMaterial("my_material")
    sources.photo(seed=0, index=3), sources.turntable(0, 3), sources.pooled("human", 0, 3)

    my_material/
        photos/      images (.png .jpg .jpeg .webp .gif .bmp .tif .tiff), in folders of any depth, as everywhere
        videos/      .mp4 .mov .m4v .mkv .webm .avi .mpg .mpeg
        panoramas/   equirectangular images, twice as wide as high
        meshes/      .obj .ply .glb .gltf .stl .off
        stories/     .json with images beside it (`documents.py` says what is in it)
        pool/human/ pool/cloth/ pool/object/ pool/scene/ pool/style/   images by category

Folders that no engine needs may be missing. A folder with none of these in it, or a single file, is material of every
kind that its files' suffixes allow. Read next: `folder.py`, then `videos.py`, `documents.py`, `meshes.py`.
"""

from macro.engines.material.folder import CATEGORIES, FolderMaterial, Options

__all__ = ["CATEGORIES", "FolderMaterial", "Options"]
