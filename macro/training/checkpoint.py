"""Checkpoints: the state and the place in the data of one step, in one folder, written whole or not at all.

    <workdir>/checkpoints/<step>/{state, data}

Orbax writes under a temporary name in the background and renames at the end, so a run that is killed at any
moment leaves its last whole checkpoint to go on from. The place in the data is small and JSON: what the
iterator's `get_state` returned, and `examples_seen`, by which another reader of the same data can find the
place too.
"""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from macro.training.state import TrainState
from macro.utils.errors import UserError


class Checkpoints:
    """The checkpoints of one run. Close it (it is a context manager): a save ends in the background."""

    def __init__(self, workdir: str, keep: int):
        """Opens `<workdir>/checkpoints`; of what is saved there the newest `keep` are kept."""
        self.folder = Path(workdir).absolute() / "checkpoints"
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
        handlers = {"state": ocp.StandardCheckpointHandler(), "data": ocp.JsonCheckpointHandler()}
        self._manager = ocp.CheckpointManager(self.folder, options=options, item_handlers=handlers)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._manager.close()

    def latest(self) -> int | None:
        """The newest step that was saved whole, or None."""
        return self._manager.latest_step()

    def save(self, state: TrainState, data_state: dict[str, Any]) -> None:
        """Saves both under `state.step`; returns once the state may be overwritten."""
        data = {"iterator": data_state, "examples_seen": int(state.examples)}
        args = ocp.args.Composite(state=ocp.args.StandardSave(state), data=ocp.args.JsonSave(data))
        self._manager.save(int(state.step), args=args)

    def restore(self, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """The newest checkpoint.

        Args:
          like: a state of ShapeDtypeStructs with shardings, such as `jax.eval_shape` gives.

        Returns:
          (state, what the iterator's `get_state` returned).

        Raises:
          UserError: what was saved has other parameters or shapes than `like`.
        """
        step = self.latest()
        args = ocp.args.Composite(state=ocp.args.StandardRestore(like), data=ocp.args.JsonRestore())
        self._check_fits(step, like)
        found = self._manager.restore(step, args=args)
        return found["state"], found["data"]["iterator"]

    def _check_fits(self, step: int, like: TrainState) -> None:
        saved = _shapes(self._manager.item_metadata(step)["state"])
        wanted = _shapes(like)
        for path in sorted(saved.keys() | wanted.keys()):
            if saved.get(path) != wanted.get(path):
                raise UserError(
                    f"{self.folder / str(step)}: {path} has shape {saved.get(path)}, but the config asks for "
                    f"{wanted.get(path)}; resume with the config of that run or name another --workdir"
                )


def _shapes(tree) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape) for path, leaf in leaves}
