"""How fast training is on this machine, and what stands in its way. Ratios come from one run, medians of `repeats`.

python experiments/bench_train.py [--parts=torch,loop,devices] [--repeats=5] [--json=results.json]

torch     one step (forward, backward, clip, AdamW) of the Mixture-of-Transformers of configs/demo.py on one of its
          batches, float32, against the same in PyTorch (`torch_mot.py`; pip install torch transformers), eager and
          compiled: same weights, tokens, mask, parameters; losses of both are compared while they train
loop      configs/demo.py's own training from stored data: waiting for data, host time between steps, recompilations
devices   its step on four forced host devices against one device, the same batch, with AdamW (what the papers' recipes
          use) and with its own Muon

Contestants take turns, so that other work on the machine meets all of them. It does not slow all of them alike: PyTorch
with two threads lost far more by it than JAX, so a ratio counts on a quiet machine only. Processor seconds (of all
threads) stand beside those of the clock, and `taskset -c 0` gives each contestant one thread. What came out:
`experiments/005_train_speed`.
"""

import contextlib
import json as json_lib
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax

from macro.kernels.attention.reference import attention_mask
from macro.models.composer import concat_metadata
from macro.models.variants import LLMConfig
from macro.nn.layers import rope_angles
from macro.nn.mot import MoT
from macro.objectives import joint
from macro.objectives.parts import model_config
from macro.parallel import mesh as mesh_lib
from macro.training import data, loop, optim
from macro.training.state import create
from macro.training.step import make_step
from macro.utils import config as config_lib
from macro.utils.errors import UserError

THREADS = len(os.sched_getaffinity(0))
SIDE = 3072  # of the square matrices whose product gives the machine's peak
STEPS, SKIPPED = 40, 3  # of `loop`; the first ones compile and start the workers
COMPILED = "/jax/core/compile/backend_compile_duration"


def main(repeats: int = 5, parts: str = "torch,loop,devices", json: str = "") -> None:
    known = {"torch": against_torch, "loop": within_loop, "devices": over_devices}
    unknown = set(parts.split(",")) - set(known)
    if unknown:
        raise UserError(f"--parts={parts}: there are {', '.join(known)}")
    config = demo()
    found = {"machine": machine(), "repeats": repeats}
    for name in parts.split(","):
        print(f"\n{name}")
        found[name] = known[name](config, repeats)
    if json:
        Path(json).write_text(json_lib.dumps(found, indent=2) + "\n")


def demo():
    """configs/demo.py on 512 of its samples, made if they are not stored yet, from fresh weights."""
    config = config_lib.load("configs/demo.py")
    with config.unlocked():
        del config.init_from["composer"]
        config.data.num = config.packing.window = 512
        config.total_steps, config.save_every_steps, config.eval_every_steps = STEPS, 0, 0
        config.log_every_steps = 1
    return config


def machine() -> dict:
    """What the figures were measured on."""
    cpuinfo = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
    about = {
        "processor": names[0] if names else platform.processor(),
        "threads": THREADS,
        "jax": jax.__version__,
        "load_at_start": os.getloadavg()[0],
        "GLIBC_TUNABLES": os.environ.get("GLIBC_TUNABLES", ""),
    }
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    return about


def batches(config):
    """Batches of the stored data, as the training reads them."""
    model = model_config(config)
    mesh = loop.mesh_of(config)
    tokenizer, packing = data.tokenizer_of(config, model), data.packing_config(config, model)
    return data.batches(config, data.stored(config), tokenizer, packing, mesh)


def take_turns(runs: Mapping[str, Callable], repeats: int) -> dict[str, list]:
    """What each of the runs returns, `repeats` times, one after the other and again."""
    taken = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            taken[name].append(run())
    return taken


def timed(run: Callable) -> Callable[[], tuple[float, float]]:
    """A function that runs `run` and returns the seconds it took, of the clock and of all threads together."""

    def call() -> tuple[float, float]:
        start, used = time.perf_counter(), time.process_time()
        run()
        return time.perf_counter() - start, time.process_time() - used

    return call


# ---------------------------------------------------------------- the same step in PyTorch


def against_torch(config, repeats: int) -> dict:
    """Seconds, ratio to ours and share of the peak of each contestant."""
    try:
        import torch
        import torch_mot
    except ImportError as error:
        raise UserError(f"--parts=torch: {error}; pip install torch transformers, or leave the part out") from error
    torch.set_num_threads(THREADS)
    llm, settings = model_config(config).llm, optim.OptimConfig(lr=1e-3, warmup_steps=0, weight_decay=0.01)
    task = case(next(batches(config)), llm)
    mot = MoT(**{f: getattr(llm, f) for f in MOT_FIELDS}, dtype="float32", remat="none")
    params = jax.jit(mot.init)(jax.random.key(0), *inputs(task, llm))["params"]
    steps = {"ours": our_step(mot, llm, settings, params, task)}
    for name, compiled in (("torch eager", False), ("torch compiled", True)):
        steps[name] = torch_mot.contestant(llm, settings, params, task, compiled)
    losses = {name: [step() for _ in range(3)] for name, step in steps.items()}
    apart = max(abs(a / b - 1) for name in steps for a, b in zip(losses[name], losses["ours"], strict=True))
    if apart > 1e-3:
        raise AssertionError(f"not the same work: {losses}")

    square = np.random.default_rng(0).normal(size=(SIDE, SIDE)).astype(np.float32)
    a, b = jnp.asarray(square), torch.tensor(square)
    product = jax.jit(jnp.matmul)
    peaks = {"product jax": lambda: product(a, a).block_until_ready(), "product torch": lambda: b @ b}
    runs = {name: timed(run) for name, run in (steps | peaks).items()}
    take_turns(runs, 1)
    taken = take_turns(runs, repeats)
    peak = 2 * SIDE**3 / min(seconds for name in peaks for seconds, _ in taken[name])
    flops = useful_flops(llm, task)
    found = {"flops": flops, "peak_flops_per_second": peak, "losses": losses, "largest_relative_difference": apart}
    found |= {"torch": torch.__version__, "torch_threads": torch.get_num_threads(), "contestants": {}}
    print(f"{THREADS} threads each; {flops / 1e9:.1f} GFLOP a step, peak {peak / 1e9:.0f} GFLOP/s; ", end="")
    print(f"losses of three steps agree within {apart:.1e}")
    print(f"{'':16}{'seconds':>9}{'to ours':>9}{'processor':>11}{'to ours':>9}{'MFU':>7}")
    ours = [statistics.median(column) for column in zip(*taken["ours"], strict=True)]
    for name in steps:
        seconds, used = (statistics.median(column) for column in zip(*taken[name], strict=True))
        row = {"seconds": seconds, "ratio": seconds / ours[0], "cpu_seconds": used, "cpu_ratio": used / ours[1]}
        found["contestants"][name] = row | {"mfu": flops / seconds / peak, "all": taken[name]}
        print(f"{name:16}{seconds:9.3f}{row['ratio']:8.2f}x{used:11.3f}{row['cpu_ratio']:8.2f}x", end="")
        print(f"{flops / seconds / peak:7.1%}")
    return found


MOT_FIELDS = ("width", "mlp", "layers", "heads", "kv_heads", "head_dim", "eps")


def case(batch: Mapping, llm: LLMConfig) -> dict[str, np.ndarray]:
    """Random tokens and targets in the places of a real batch, its metadata, and the mask that follows from it."""
    text, vision, latent = (batch[name] for name in ("text", "vision", "latent"))
    meta = {name: np.asarray(x) for name, x in concat_metadata(text, vision, latent).items()}
    found = {"meta_" + name: x for name, x in meta.items()}
    found["mask"] = np.asarray(attention_mask(meta, meta))
    ropes = {
        "und": np.concatenate([text["position_ids"], vision["position_ids"]], axis=1),
        "gen": latent["position_ids"],
    }
    held = np.split(meta["segment_ids"] >= 0, [ropes["und"].shape[1]], axis=1)
    random = np.random.default_rng(1)
    for (name, rope), real in zip(ropes.items(), held, strict=True):
        found[f"rope_{name}"] = rope
        found[name], found[f"target_{name}"] = random.normal(size=(2, *rope.shape, llm.width)).astype(np.float32)
        found[f"weight_{name}"] = (real / (real.sum() * llm.width))[..., None].astype(np.float32)
    # Where PyTorch's attention would make NaN of padding, which sees nothing, let it see itself: nobody looks there.
    found["mask"] |= np.eye(found["mask"].shape[1], dtype=bool) & (meta["segment_ids"] < 0)[:, :, None]
    return found


def inputs(task: Mapping, llm: LLMConfig) -> tuple:
    """The arguments of `MoT`."""
    rotations = tuple(rope_angles(task[f"rope_{name}"], llm.head_dim, llm.rope_theta) for name in ("und", "gen"))
    meta = {name.removeprefix("meta_"): x for name, x in task.items() if name.startswith("meta_")}
    return task["und"], task["gen"], rotations, None, meta, meta


def our_step(mot: MoT, llm: LLMConfig, settings: optim.OptimConfig, params: Mapping, task: Mapping) -> Callable:
    """step() -> loss before the update; as `torch_mot.contestant`."""
    # The rate stays what it is, as PyTorch's does.
    rule = optim.optimizer(optim.OptimConfig(**{**vars(settings), "schedule": "constant"}), total_steps=1)

    def loss_of(params, tokens, task):
        outs = mot.apply({"params": params}, *inputs(task | tokens, llm))[:2]
        squares = [
            jnp.sum(jnp.square(out - task[f"target_{name}"]) * task[f"weight_{name}"])
            for name, out in zip(("und", "gen"), outs, strict=True)
        ]
        return sum(squares)

    def update(params, state, task):
        tokens = {name: task[name] for name in ("und", "gen")}
        loss, (grads, d_tokens) = jax.value_and_grad(loss_of, (0, 1))(params, tokens, task)
        changes, state = rule.update(grads, state, params)
        return optax.apply_updates(params, changes), state, loss, d_tokens

    compiled = jax.jit(update, donate_argnums=(0, 1))
    task = jax.tree.map(jnp.asarray, {name: x for name, x in task.items() if name != "mask"})
    params = jax.tree.map(jnp.copy, params)
    held = [params, rule.init(params)]

    def step() -> float:
        *held[:], loss, d_tokens = compiled(*held, task)
        jax.block_until_ready((held, d_tokens))
        return float(loss)

    return step


def useful_flops(llm: LLMConfig, task: Mapping) -> float:
    """6 a token and weight of a matrix of its expert; 12 a visible pair and value of a query (two products, thrice)."""
    per_layer = llm.width * (2 * llm.heads + 2 * llm.kv_heads) * llm.head_dim + 3 * llm.width * llm.mlp
    tokens = sum(task[name].shape[0] * task[name].shape[1] for name in ("und", "gen"))
    pairs = float(np.sum(task["mask"]))
    return llm.layers * (6 * per_layer * tokens + 12 * llm.heads * llm.head_dim * pairs)


# ---------------------------------------------------------------- the loop


def within_loop(config, repeats: int) -> dict:
    """Shares of the time of steps, each waited for, so that nothing of the host's work is hidden behind a step."""
    del repeats
    calls, functions, compilations = [], [], []

    def make(*arguments):
        step_fn = make_step(*arguments)
        functions.append(step_fn)

        def step(state, batch):
            start = time.perf_counter()
            made = step_fn(state, batch)
            sent = time.perf_counter()
            jax.block_until_ready(made)
            calls.append((start, sent, time.perf_counter()))
            return made

        return step

    def listen(event, seconds, **about):
        if event == COMPILED:
            compilations.append(time.perf_counter())

    jax.monitoring.register_event_duration_secs_listener(listen)
    with tempfile.TemporaryDirectory() as workdir, mock.patch.object(loop, "make_step", make):
        loop.run(joint, config, batches(config), workdir)
        records = [json_lib.loads(line) for line in (Path(workdir) / "metrics.jsonl").read_text().splitlines()]
    whole = np.diff([end for *_, end in calls])[SKIPPED - 1 :]  # from the end of a step to the end of the next
    running = np.array([end - start for start, _, end in calls])[SKIPPED:]
    sending = np.array([sent - start for start, sent, _ in calls])[SKIPPED:]
    waiting = np.array([record["data_seconds"] for record in records])[SKIPPED:]
    host = whole - running - waiting
    after = [at for at in compilations if calls[0][2] < at < calls[-1][2]]
    found = {
        "steps": len(whole),
        "step_seconds": float(np.median(whole)),
        "data_share": float(waiting.sum() / whole.sum()),
        "host_share": float(host.sum() / whole.sum()),
        "dispatch_share": float(sending.sum() / whole.sum()),
        "longest_wait_seconds": float(waiting.max()),
        "compilations_after_step_1": len(after),
        "programs_of_the_step": functions[0]._cache_size(),
    }
    for name, value in found.items():
        print(f"{name:28}{value:>10.4g}")
    return found


# ---------------------------------------------------------------- four devices


def over_devices(config, repeats: int) -> dict:
    """Seconds of a step on one device and on four forced ones, and the throughput of four relative to one's."""
    batch = next(batches(config))
    contestants = [(optimizer, count) for optimizer in ("adamw", "muon") for count in (1, 4)]
    with contextlib.ExitStack() as stack:
        children = {who: stack.enter_context(child(*who, batch)) for who in contestants}
        losses = {who: ask()[-1] for who, ask in children.items()}  # compiles
        take_turns(children, 1)
        taken = take_turns(children, repeats)
    found = {}
    for optimizer in ("adamw", "muon"):
        one, four = (optimizer, 1), (optimizer, 4)
        if abs(losses[four] / losses[one] - 1) > 1e-4:
            raise AssertionError(f"not the same work: {losses}")
        medians = {who: [statistics.median(x) for x in zip(*taken[who], strict=True)] for who in (one, four)}
        row = {"losses": [losses[one], losses[four]], "all": [taken[one], taken[four]]}
        for place, name in enumerate(("seconds", "cpu_seconds")):
            row[name] = [medians[one][place], medians[four][place]]
            row[f"throughput_by_{name}"] = row[name][0] / row[name][1]
            print(f"{optimizer:6}{name:12} one device {row[name][0]:.3f}, four {row[name][1]:.3f}, ", end="")
            print(f"throughput of four to one {row[f'throughput_by_{name}']:.2f}")
        found[optimizer] = row
    return found


@contextlib.contextmanager
def child(optimizer: str, devices: int, batch: Mapping):
    """A process with so many host devices; the function it gives takes one step there:
    (seconds, processor seconds, loss)."""
    context = multiprocessing.get_context("spawn")
    mine, its = context.Pipe()
    forced = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    process = context.Process(target=serve, args=(its, optimizer, batch), daemon=True)
    with mock.patch.dict(os.environ, forced):
        process.start()
    its.close()

    def ask() -> tuple[float, float, float]:
        mine.send("step")
        return mine.recv()

    try:
        yield ask
    finally:
        mine.close()  # the child's recv ends with EOFError
        process.join(30)


def serve(pipe, optimizer: str, batch: Mapping) -> None:
    """Takes a training step of configs/demo.py on this batch whenever asked, on all of this process's devices."""
    config = demo()
    config.optim.name = optimizer
    mesh = loop.mesh_of(config)
    rows = mesh_lib.my_rows(config.batch_size, mesh)
    step_fn = make_step(joint, config, mesh)
    with jax.set_mesh(mesh), contextlib.suppress(EOFError):
        state = create(joint, config, mesh)
        laid = mesh_lib.shard_batch(batch, rows, config.batch_size, mesh)
        while pipe.recv():
            start, used = time.perf_counter(), time.process_time()
            state, metrics = jax.block_until_ready(step_fn(state, laid))
            pipe.send((time.perf_counter() - start, time.process_time() - used, float(metrics["loss"])))


if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parent)]  # for `torch_mot`, also under `python -m`
    config_lib.run(
        main,
        repeats="how often each contestant runs",
        parts="which parts, with commas between",
        json="file to write the figures to",
    )
