"""The walls of the house: who may import whom, read off the imports themselves."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(path for path in (ROOT / "macro").rglob("*.py"))

# Lower layers first; a module imports only lower layers or its own folder.
LAYERS = [
    {"utils"},
    {"sentence", "diffusion"},
    {"parallel", "scenes", "judges"},
    {"kernels", "inputs", "engines"},
    {"nn"},
    {"models"},
    {"objectives", "sampling"},
    {"evals"},
    {"training"},
]
HEIGHT = {folder: height for height, layer in enumerate(LAYERS) for folder in layer}

# Library -> the only places that may import it.
ONLY_IN = {
    "orbax": ("training/checkpoint.py",),
    "grain": ("training/checkpoint.py", "inputs/"),
    "tensorflow_datasets": ("inputs/records.py", "inputs/shards.py"),
    "clu": ("utils/log.py",),
    "torch": ("judges/", "engines/foundation/"),
    "transformers": ("judges/", "engines/foundation/"),
    "diffusers": ("engines/foundation/drawing.py",),
    "cv2": ("engines/foundation/stillness.py", "engines/material/clips.py"),
    "openai": ("judges/client.py", "judges/replies.py"),
    "trimesh": ("engines/material/meshes.py",),
    "mitsuba": ("engines/material/rings.py",),
    "apache_beam": (),
}
FORBIDDEN = {"sentence": {"jax", "flax"}, "inputs": {"jax", "flax"}, "diffusion": {"flax"}}
OUTSIDE = {"configs", "experiments", "colabs"}


def imports(path: Path) -> set[str]:
    """Dotted names of all modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names if node.module == "macro")
    return found


def folder_of(relative: Path) -> str | None:
    """Folder below macro/, None for the command lines at the top."""
    return relative.parts[0] if len(relative.parts) > 1 else None


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_only_lower_layers(path):
    relative = path.relative_to(ROOT / "macro")
    ours = folder_of(relative)
    for name in imports(path):
        parts = name.split(".")
        assert parts[0] not in OUTSIDE, f"{relative} imports {name}"
        if parts[0] != "macro" or len(parts) == 1 or ours is None:
            continue
        theirs = parts[1]
        assert theirs in HEIGHT, f"{relative} imports the command line {name}"
        assert theirs == ours or HEIGHT[theirs] < HEIGHT[ours], f"{relative} imports {name}, which is not below it"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_libraries_stay_in_their_rooms(path):
    relative = path.relative_to(ROOT / "macro")
    used = {name.split(".")[0] for name in imports(path)}
    for library, places in ONLY_IN.items():
        allowed = any(str(relative).startswith(place) for place in places)
        assert library not in used or allowed, f"{relative} imports {library}"
    clash = used & FORBIDDEN.get(folder_of(relative), set())
    assert not clash, f"{relative} imports {clash}"


def test_every_folder_has_a_layer():
    folders = {path.name for path in (ROOT / "macro").iterdir() if (path / "__init__.py").is_file()}
    assert folders <= set(HEIGHT)
