"""Plans and draws an image from a sentence and reference images.

    python -m macro.sample --config=configs/demo.py --workdir=runs/demo

Writes plan.json, plan.png, image.png and report.html to the workdir, all of them or none. Without
--instruction the config's own example is drawn (`config.demo`). A plan.json, edited or not, can be handed
back with --plan: the same seed then shows what the edit does.

    python -m macro.sample --config=configs/bagel_sample.py:edit --workdir=runs/blue --weights=bagel/model.safetensors \
        --instruction='make it blue' --source=house.png --config.sampling.cfg_img_scale=1.5

edits --source, which is <image 1> of the instruction, while --images go on from <image 2>. Any config takes a source;
whether anything sensible comes of it is a matter of training (`macro/engines/edit.py` makes such samples; the shipped
model has seen none).

This config draws as BAGEL does: no layout, and a thought only if --config.sampling.think is set. All options are keys
of config.sampling (`macro/sampling/options.py`), the seed is --seed.

    python -m macro.sample --config=configs/bagel_sample.py --workdir=runs/chat --weights=bagel/model.safetensors \
        --images=house.png --question='What is this? || What colour is its roof?'

answers in text instead, a turn for each question between ||, prints the answers and writes chat.json.
What it runs: `macro/sampling/pipeline.py`.
"""

from macro.utils.config import run
from macro.utils.errors import UserError

HELPS = {
    "instruction": "what to show; calls the n-th image <image n>: 'A <image 1> by <image 2>.'",
    "images": "image files, separated by commas; at most 12 images in all",
    "source": "an image file to edit: <image 1> of the instruction, while --images go on from <image 2>",
    "plan": "a plan.json to draw, instead of a plan that the model writes",
    "candidates": "how many plans and images to make and pick from",
    "seed": "the same seed gives the same images",
    "strengths": "how much each image counts, separated by commas: 1 as trained, 2 twice, 0 not at all",
    "question": "about --images, answered in text instead of drawing; further turns after ||",
    "weights": "a .safetensors file or the name of a shipped model; config.demo.weights if left out",
    "lora": "a lora.safetensors or a folder of PEFT's, to be merged into the weights",
}


def main(
    config,
    workdir,
    instruction=None,
    images=None,
    source=None,
    plan=None,
    candidates=1,
    seed=0,
    strengths=None,
    question=None,
    weights=None,
    lora=None,
):
    # Heavy modules are imported last: an error in the arguments is reported before JAX starts.
    import shlex
    import sys

    from macro.sentence.prompt import build_sentence

    if question is not None:
        for flag, given in (("instruction", instruction), ("source", source), ("plan", plan), ("strengths", strengths)):
            if given is not None:
                raise UserError(f"--{flag} with --question, which is answered in text; leave one of them out")
        _chat(config, workdir, question, _files(images), seed, weights, lora)
        return
    instruction, images = _asked(config, instruction, images, source)
    sentence = build_sentence(instruction, images, None, source)
    given = None if plan is None else _read_plan(plan, sentence.subjects)
    numbers = None if strengths is None else _numbers(strengths)
    weights = weights or _demo(config, "weights", "--weights")

    from macro.sampling import report
    from macro.sampling.load import load
    from macro.sampling.options import read_options

    read_options(config.get("sampling", {}))  # mistakes in it are named before the weights are read
    pipeline = load(weights, config, lora)
    result = pipeline.compose(instruction, images, given, candidates, seed, strengths=numbers, source=source)
    report.write(workdir, result, shlex.join(["python", "-m", "macro.sample", *sys.argv[1:]]))
    if candidates > 1 and not result.scored:
        print("nothing ranks the candidates, as they have no plans of their own: image.png is the first of them")
    seconds = ", ".join(f"{stage} {value:.2f} s" for stage, value in result.seconds.items())
    print(f"wrote plan.json, plan.png, image.png and report.html to {workdir} ({seconds})")


def _chat(config, workdir: str, question: str, images: list[str], seed: int, weights, lora) -> None:
    """Answers questions about images, turn by turn."""
    import dataclasses
    import json
    from pathlib import Path

    from macro.sampling.load import load
    from macro.utils.files import atomic_write

    questions = [each.strip() for each in question.split("||")]
    if not all(questions):
        raise UserError(f"--question={question}: an empty question; write text on both sides of ||")
    chat = load(weights or _demo(config, "weights", "--weights"), config, lora).chat(seed)
    for number, each in enumerate(questions):
        turn = chat.ask(each, images if number == 0 else ())
        print(f"> {turn.question}\n{turn.text}")
    turns = [dataclasses.asdict(turn) for turn in chat.turns]
    atomic_write(Path(workdir) / "chat.json", json.dumps(turns, indent=2, ensure_ascii=False) + "\n")
    print(f"wrote chat.json to {workdir}")


def _files(images: str | None) -> list[str]:
    return [file for file in (images or "").split(",") if file]


def _asked(config, instruction, images, source) -> tuple[str, list[str]]:
    """The user's instruction and images, or the config's example."""
    if instruction is not None:
        return instruction, _files(images)
    for flag, given in (("images", images), ("source", source)):
        if given is not None:
            raise UserError(f"--{flag} without --instruction; say with --instruction what to show")
    return _demo(config, "instruction", "--instruction"), list(_demo(config, "images", "--images"))


def _demo(config, key: str, flag: str):
    if "demo" not in config or key not in config.demo:
        raise UserError(f"{flag} is missing, and the config has no demo.{key} to fall back on")
    return config.demo[key]


def _numbers(strengths: str) -> list[float]:
    try:
        return [float(each) for each in strengths.split(",")]
    except ValueError:
        raise UserError(f"--strengths={strengths}: one number for each image, such as 1,1.5") from None


def _read_plan(path: str, subjects: int):
    from pathlib import Path

    from macro.sentence.plan import Plan

    try:
        text = Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--plan={path}: cannot be read ({error}); name a plan.json") from None
    return Plan.from_json(text, subjects, path)


if __name__ == "__main__":
    run(main, **HELPS)
