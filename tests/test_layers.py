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
    "tensorflow_datasets": ("inputs/sources.py", "inputs/dataset_builder.py", "inputs/shards.py"),
    "clu": ("utils/log.py",),
    "torch": ("judges/", "engines/foundation/"),
    "transformers": ("judges/", "engines/foundation/"),
    "diffusers": ("engines/foundation/generators.py",),
    "cv2": ("engines/foundation/orb_filter.py", "engines/material/videos.py"),
    "openai": ("judges/endpoint.py", "judges/llm_errors.py"),
    "trimesh": ("engines/material/meshes.py",),
    "mitsuba": ("engines/material/turntables.py",),
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


@pytest.fixture(scope="module")
def imported() -> dict[Path, set[str]]:
    """What each file below macro/ imports."""
    return {path.relative_to(ROOT / "macro"): imports(path) for path in FILES}


def folder_of(relative: Path) -> str | None:
    """Folder below macro/, None for the command lines at the top."""
    return relative.parts[0] if len(relative.parts) > 1 else None


def wrong_import(ours: str | None, name: str) -> str | None:
    """What is wrong with a file of the folder `ours` importing `name`."""
    parts = name.split(".")
    if parts[0] in OUTSIDE:
        return "which is outside the library"
    if parts[0] != "macro" or len(parts) == 1 or ours is None:
        return None
    if parts[1] not in HEIGHT:
        return "a command line"
    return None if parts[1] == ours or HEIGHT[parts[1]] < HEIGHT[ours] else "which is not below it"


def test_imports_only_lower_layers(imported):
    assert wrong_import("utils", "macro.models.vae") and wrong_import("models", "configs.demo")
    found = [
        f"{path} imports {name}, {wrong}"
        for path, names in imported.items()
        for name in sorted(names)
        if (wrong := wrong_import(folder_of(path), name))
    ]
    assert not found, "\n".join(found)


def test_libraries_stay_in_their_rooms(imported):
    found = []
    for path, names in imported.items():
        used = {name.split(".")[0] for name in names}
        found += [
            f"{path} imports {library}, which only {places} may"
            for library, places in ONLY_IN.items()
            if library in used and not str(path).startswith(places)
        ]
        found += [f"{path} imports {name}" for name in used & FORBIDDEN.get(folder_of(path), set())]
    assert not found, "\n".join(found)


def test_every_folder_has_a_layer():
    folders = {path.name for path in (ROOT / "macro").iterdir() if (path / "__init__.py").is_file()}
    assert folders <= set(HEIGHT)
