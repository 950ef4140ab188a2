"""The loop of every training run, always in this order:

    evaluate -> save (state and data position) -> next batch -> step -> log

So a checkpoint of step t holds the data position before batch t, and a run that is killed at any time and restarted
takes exactly the steps it would have taken. The metrics of a step are read after the next step has been dispatched,
so that the device does not wait for the host; before an evaluation or a save they are read first. A step whose loss
or gradient is not finite is skipped (`macro/training/step.py`), counted and reported; `config.max_bad_steps`
consecutive ones stop the run.
Read next: `macro/training/step.py`, `macro/training/checkpoint.py`.
"""

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np

from macro.parallel import mesh as mesh_lib
from macro.parallel import multihost, sharding
from macro.training import lora, optim
from macro.training.checkpoint import Checkpoints, checkpoint_policy
from macro.training.state import TrainState, check_frozen, create, first_params, placement
from macro.training.step import make_step
from macro.utils import tree
from macro.utils.errors import UserError
from macro.utils.log import MeanMetrics, MetricsLog, Progress

# Shown on the progress line after step, speed and ETA, where the objective reports them.
_SHOWN = ("loss", "plan", "draw", "grad_norm")

MAX_BAD_STEPS = 3  # consecutive; the default of config.max_bad_steps

# `run` calls hook(state, step) at evaluations. It writes its own files and must not keep the state, whose
# buffers are donated to the next step.
Hook = Callable[[TrainState, int], None]


@runtime_checkable
class Data(Protocol):
    """An endless iterator of batches whose position can be read and set; a position is a small JSON value."""

    def __next__(self) -> dict[str, Any]: ...

    def get_state(self) -> dict[str, Any]: ...

    def set_state(self, state: dict[str, Any]) -> None: ...


class NonFiniteLoss(UserError):
    """The loss or a gradient was not finite for `config.max_bad_steps` consecutive steps; names step and batch."""


def run(objective, config, data: Data, workdir: str, hooks: Sequence[Hook] = ()) -> TrainState | None:
    """Trains until `config.total_steps`, from the workdir's newest checkpoint if it has one.

    Args:
      objective: a module of `macro/objectives`.
      config: `total_steps`, `save_every_steps`, `eval_every_steps`, `log_every_steps`, `checkpoint`,
        `batch_size`, `grad_accum_steps`, `seed`, `optim`, `parallel`, `lora` and `freeze` (missing: none), and the
        objective's own keys. The last step is always saved and logged; `eval_every_steps` 0 means never.
      data: batches; each is a nested dict of arrays [b, ...] with `examples` int32 [b, r], -1 where empty. b is this
        process's number of packed sequences of the global batch (`mesh.my_rows`).
      workdir: an existing folder, for `checkpoints/` and `metrics.jsonl`.
      hooks: called at every evaluation.

    Returns:
      The final state, or None after SIGTERM: then the state is saved and the same command resumes.

    Raises:
      NonFiniteLoss; UserError for a batch size that the devices do not divide, or a checkpoint of another
      model.
    """
    check(objective, config)
    objective = lora.adapted(objective, config)
    mesh = mesh_of(config)
    rows = mesh_lib.my_rows(config.batch_size, mesh)
    step_fn = make_step(objective, config, mesh)
    with (
        jax.set_mesh(mesh),
        Checkpoints(workdir, checkpoint_policy(config), lora.base_of(objective)) as checkpoints,
        multihost.preemption_guard() as preempted,
    ):
        state = _start(objective, config, data, checkpoints, mesh)
        first, total = int(state.step), config.total_steps
        most_bad = config.get("max_bad_steps", MAX_BAD_STEPS)
        with contextlib.closing(_Recorder(workdir, first, total, config.log_every_steps, most_bad)) as recorder:
            for step in range(first, total):
                stopping = preempted()
                if step > first and _due(step, config.eval_every_steps) and not stopping:
                    recorder.flush()
                    recorder.evaluate(hooks, state, step)
                if step > first and (_due(step, config.save_every_steps) or stopping):
                    recorder.flush()
                    checkpoints.save(state, data.get_state(), recorder.score())
                if stopping:
                    recorder.say(f"stopped by SIGTERM at step {step}; the same command goes on from there")
                    return None
                place, start = data.get_state(), time.monotonic()
                batch = next(data)
                waited = time.monotonic() - start
                state, metrics = step_fn(state, mesh_lib.shard_batch(batch, rows, config.batch_size, mesh))
                recorder.add(step + 1, metrics, waited, place, batch["examples"])
            if first >= total:
                recorder.say(f"nothing to do: {workdir} is at step {first} of {total}")
                return state
            recorder.flush({"params_sha256": tree.sha256(state.params, multihost.process_allgather)})
            if config.eval_every_steps:
                recorder.evaluate(hooks, state, total)
            checkpoints.save(state, data.get_state(), recorder.score())
            return state


def check(objective, config) -> None:
    """Raises UserError for a config that `run` would refuse, before any data is made."""
    optim.optim_config(config)
    checkpoint_policy(config)
    objective = lora.adapted(objective, config)
    check_frozen(objective, config)
    grad_accum_steps = config.get("grad_accum_steps", 1)
    if grad_accum_steps < 1:
        raise UserError(f"config.grad_accum_steps={grad_accum_steps}: must be at least 1 (the batch in one go)")
    mesh = mesh_of(config)
    mesh_lib.check_batch_size(config.batch_size, mesh, grad_accum_steps)
    placement(objective, config, mesh)


def mesh_of(config) -> jax.sharding.Mesh:
    """The mesh that `config.parallel` makes of all devices."""
    return mesh_lib.make_mesh(mesh_lib.parallel_config(config))


def _start(objective, config, data: Data, checkpoints: Checkpoints, mesh) -> TrainState:
    """The newest checkpoint, with the data set to its position, or a fresh state."""
    if checkpoints.latest() is None:
        return create(objective, config, mesh)
    whole, laid = placement(objective, config, mesh)
    like = sharding.abstract_with_shardings(whole, laid)
    state, place = checkpoints.restore(like, lambda: first_params(objective, config, mesh))
    data.set_state(place)
    return state


class _Recorder:
    """Reads a step's metrics one step late, checks them, writes every `every`-th record and the last one."""

    def __init__(self, workdir: str, first: int, total: int, every: int, most_bad: int):
        self._log = MetricsLog(workdir, first, multihost.is_primary())
        self._progress = Progress(first, total, multihost.is_primary())
        self._means = MeanMetrics()
        self._total, self._every, self._most_bad = total, every, most_bad
        self._bad_steps, self._bad_in_a_row = 0, 0
        self._pending = None
        self._losses: list[float] = []
        self.close, self.say = self._log.close, self._progress.say

    def add(self, step: int, metrics: dict, waited: float, place: dict, examples: np.ndarray) -> None:
        """Takes the (possibly unfinished) metrics of the step after which the state's count is `step`."""
        self.flush()
        self._pending = step, metrics, waited, place, examples

    def evaluate(self, hooks: Sequence[Hook], state: TrainState, step: int) -> None:
        """Calls the hooks; their time is left out of the measured speed."""
        start = time.monotonic()
        for hook in hooks:
            hook(state, step)
        self._progress.skip(time.monotonic() - start)

    def score(self) -> float | None:
        """Mean loss over the steps since the last call, or since this process began; None if all were skipped."""
        losses, self._losses = self._losses, []
        return sum(losses) / len(losses) if losses else None

    def flush(self, extra: Mapping[str, Any] = MappingProxyType({})) -> None:
        """Waits for the last step and records it; `extra` is added to the record if one is due."""
        if self._pending is None:
            return
        step, metrics, waited, place, examples = self._pending
        self._pending = None
        values = {key: value.item() for key, value in jax.device_get(metrics).items()}
        if math.isfinite(values["loss"]) and math.isfinite(values["grad_norm"]):
            self._bad_in_a_row = 0
            self._losses.append(values["loss"])
            self._means.add(values | {"data_seconds": waited})
        else:
            self._skip(step, values, place, examples)
        self._progress.tick(step)
        if step == self._total or _due(step, self._every):
            speed = {"seconds": self._progress.seconds(), "steps_per_second": self._progress.rate(step)}
            of_this_step = {key: values[key] for key in ("examples_seen", "lr")}
            means = self._means.take()
            counts = of_this_step | {"bad_steps": self._bad_steps}
            self._log.write({"step": step} | means | counts | speed | extra)
            self._progress.show(step, {key: means[key] for key in _SHOWN if key in means})

    def _skip(self, step: int, values: dict, place: dict, examples: np.ndarray) -> None:
        """Counts and reports a step that was skipped because its loss or gradient was not finite."""
        self._bad_steps += 1
        self._bad_in_a_row += 1
        what = (
            f"step {step}: loss {values['loss']}, gradient norm {values['grad_norm']}, on the batch at "
            f"{_name_batch(place, examples)}"
        )
        if self._bad_in_a_row >= self._most_bad:
            raise NonFiniteLoss(
                f"{what}; the last {self._bad_in_a_row} were so (config.max_bad_steps): look at these examples or "
                "lower config.optim.lr, and start the same command again from the last checkpoint"
            )
        self.say(f"{what}; the step was skipped")


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _name_batch(place: dict[str, Any], examples: np.ndarray) -> str:
    where = ", ".join(f"{key} {value}" for key, value in place.items())
    numbers = sorted({int(i) for i in examples.reshape(-1) if i >= 0})
    return f"{where}; examples {', '.join(map(str, numbers))}"
