"""The benchmark "scenes": does a generated image match the plan, the references and the instruction?

`num` samples for each bucket of reference counts, from scenes that are in no training set. For each of them
the model plans and generates, and the same metrics are computed for four images in the cells of their plans:

    model      the model's own image and plan (or, with plans="truth", its image of the true plan)
    vae        the true image through the model's VAE: the loss of encoding alone
    rerender   the true scene under another light, in other poses: the score of a perfect composer
    chance     another sample's image (and layout)

    layout_iou              plan against true layout; a correct plan need not agree with it, see the next
    layout_iou_independent  a second layout of the same instruction against the true one (`alternative_layouts.py`)
    subject_recall          share of subjects whose cells hold their palette (`../metrics/palettes.py`)
    kind_recall             share of subjects whose kind and texture the classifier (`classifier/model.py`) predicts
                            correctly from the crop around their cells; kind_alone, texture_alone: each by itself
    palette_distance        from a subject's colours to the dominant colours of its cells
    swap_rate               share of subjects' cells that hold another subject's palette rather than their own
    swap_follow             with two subjects' cells swapped in the plan and the same seed: share of samples in
                            which both palettes are now in the other's former cells and no longer in their own

A subject without a cell counts as not recalled and not classified; it has no palette distance. Each metric of a sample
is stored as [sum, count], so that shares are over subjects, and intervals over samples. Read next:
`../report.py`.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from macro.engines import scenes as scenes_engine
from macro.evals import report
from macro.evals.benches import alternative_layouts
from macro.evals.classifier.model import Classifier, Prediction, cells_box
from macro.evals.classifier.model import load as load_classifier
from macro.evals.journal import Journal
from macro.evals.metrics.palettes import PRESENT, Colours, Image, Judged, cells_mask, expected_amounts
from macro.models.vae import VAE, normalise
from macro.models.variants import VAEConfig
from macro.sampling.pipeline import Pipeline
from macro.sentence.layout import Grid, grid_iou
from macro.sentence.plan import Plan
from macro.sentence.prompt import prompt_of
from macro.sentence.spans import Sentence, Target
from macro.utils.images import contact_sheet, to_float, to_uint8
from macro.utils.images import save as save_image
from macro.utils.log import ProgressBar
from macro.utils.streams import FIRST_EVALUATION_SEED

NAMES = tuple(scenes_engine.bucket_of(bucket[0]) for bucket in scenes_engine.BUCKETS)
VERSIONS = ("model", "vae", "rerender", "chance")
KEYS = (
    "layout_iou", "layout_iou_independent", "subject_recall", "kind_recall", "kind_alone", "texture_alone",
    "palette_distance", "swap_rate", "swap_follow",
)  # fmt: skip

# Evaluations use seeds that data sets (`config.data.seed`) cannot have; thresholds were set on yet another.
FIRST_SEED, CALIBRATION = FIRST_EVALUATION_SEED, 3_000_000_000
_BUCKET = 1_000_000  # samples of a bucket start at a multiple of this
CHUNK = 16
SHOWN = 4  # samples of each bucket with images on the page

Compose = Callable[[Sequence[Sentence], Sequence[int], Sequence[Plan] | None], list[tuple[Plan, Image]]]
Measures = dict[str, list[int | float]]  # name -> [sum, count]


@dataclass(frozen=True, eq=False)
class Case:
    """One sample of the benchmark with its references for comparison.

    Attributes:
        bucket, index: identify the sample.
        sentence: references, instruction, true plan, target and truth.
        rerendered: the target under another light, in other poses.
        other: a neighbour in the bucket, whose image is the chance baseline.
        independent: a second layout of the instruction; None if none was found.
        pair: the two subjects to swap, neither on top of the other; None for no swap.
        exchanged: the scene rendered again with these two swapped.
    """

    bucket: str
    index: int
    sentence: Sentence
    rerendered: Image
    other: Sentence
    independent: Grid | None
    pair: tuple[int, int] | None
    exchanged: Image | None


def cases(bucket: str, start: int, count: int, seed: int, swaps: int, options: scenes_engine.Options) -> list[Case]:
    """Cases `start` .. `start + count - 1` of a bucket; its first `swaps` have a pair to swap."""
    counts = scenes_engine.BUCKETS[NAMES.index(bucket)]
    options = replace(options, counts=tuple(float(n in counts) for n in range(1, 13)), views=(1,))
    first, seed = NAMES.index(bucket) * _BUCKET + start, FIRST_SEED + seed
    made = scenes_engine.samples(seed, first, count + 1, options)
    scenes = [drawn.scene for drawn in scenes_engine.draw_scenes(seed, range(first, first + count), options)]
    again = scenes_engine.rerenders(seed, first, count, options)
    out = []
    for n, scene in enumerate(scenes):
        rng = np.random.default_rng([seed, first + n])
        sentence = made[n]
        independent = alternative_layouts.another(scene, sentence.truth, prompt_of(sentence), rng, options.size)
        pair = exchanged = None
        if start + n < swaps and (pairs := _loose_pairs(sentence)):
            pair = pairs[int(rng.integers(len(pairs)))]
            exchanged = alternative_layouts.exchanged_image(scene, pair[0] - 1, pair[1] - 1, options.size)
        out.append(Case(bucket, start + n, sentence, again[n], made[n + 1], independent, pair, exchanged))
    return out


def _loose_pairs(sentence: Sentence) -> list[tuple[int, int]]:
    """All pairs of subjects of which neither stands on the other."""
    stacked = {frozenset((i, j)) for i, name, j in sentence.truth.relations if name == "on"}
    pairs = combinations(range(1, sentence.subjects + 1), 2)
    return [pair for pair in pairs if frozenset(pair) not in stacked]


def question(sentence: Sentence) -> Sentence:
    """The composer's input: references and instruction, without plan, image and ground truth."""
    bare = sentence.with_plan(None)
    spans = (Target(size=span.size) if isinstance(span, Target) else span for span in bare)
    return bare.replace(spans=tuple(spans), truth=None)


def exchange(grid: Grid, pair: tuple[int, int]) -> Grid:
    """The layout with two subjects' cells swapped."""
    i, j = pair
    return np.where(grid == i, j, np.where(grid == j, i, grid)).astype(np.int8)


# ---- one image ----


class Judge:
    """Computes the metrics of one case's images. Subjects are numbered from 1."""

    def __init__(self, case: Case):
        target, truth, grid = case.sentence.target.pixels, case.sentence.truth, case.sentence.plan.grid
        self.case, self.truth, self.count = case, truth, len(truth.kinds)
        self.colours = Colours.of(target, truth)
        self.expected = expected_amounts(target, self.colours, grid)

    def colour_measures(self, image: Image, grid: Grid) -> Measures:
        """The colour metrics of the cells of `grid`, and its agreement with the true layout."""
        judged, subjects = Judged(image, self.colours), range(1, self.count + 1)
        held = sum(judged.holds(n, self.expected[n - 1], grid) for n in subjects)
        away = np.array([judged.palette_distance(n, self.expected[n - 1, :3], grid) for n in subjects])
        swapped = np.array([judged.swapped(n, grid) for n in subjects]).sum(0)
        return {
            "layout_iou": [grid_iou(grid, self.case.sentence.plan.grid), 1],
            "subject_recall": [held, self.count],
            "palette_distance": [float(np.nansum(away)), int(np.isfinite(away).sum())],
            "swap_rate": [int(swapped[0]), int(swapped[1])],
        }

    def kind_measures(self, drawn: Sequence[Prediction | None], true: Sequence[Prediction | None]) -> Measures:
        """The correct predictions (None: no cells) in a generated image; `true` are those of the true image."""
        truth = self.truth
        told = np.array([p is not None and p.texture == t for p, t in zip(true, truth.textures, strict=True)])
        kind = np.array([p is not None and p.kind == k for p, k in zip(drawn, truth.kinds, strict=True)])
        texture = np.array([p is not None and p.texture == t for p, t in zip(drawn, truth.textures, strict=True)])
        return {
            "kind_recall": [int((kind & (texture | ~told)).sum()), self.count],
            "kind_alone": [int(kind.sum()), self.count],
            "texture_alone": [int((texture & told).sum()), int(told.sum())],
        }

    def follows(self, image: Image, grid: Grid) -> Measures:
        """Whether `image`, generated with the pair swapped, has each subject in the other's cells of `grid`.

        Its own colours must have at least twice the area of the former subject's colours there, and at least
        `PRESENT` of their area in its own cells of the true image.
        """
        judged, follows = Judged(image, self.colours), True
        for new, old in (self.case.pair, self.case.pair[::-1]):
            here, gone = judged.contest(new, old, cells_mask(grid, old, judged.size))
            follows &= here >= 2 * gone and here >= PRESENT * self.expected[new - 1, :3].sum()
        return {"swap_follow": [int(follows), 1]}


def classify_cells(
    classifier: Classifier, images: Sequence[Image], grids: Sequence[Grid], counts: Sequence[int]
) -> list[list[Prediction | None]]:
    """For each image, the classifier's predictions for subjects 1 .. count; None for one without cells."""
    boxes = [[cells_box(grid, n) for n in range(1, count + 1)] for grid, count in zip(grids, counts, strict=True)]
    there = [(k, box) for k, row in enumerate(boxes) for box in row if box is not None]
    predictions = iter(classifier.classify([images[k] for k, _ in there], [box for _, box in there]))
    return [[None if box is None else next(predictions) for box in row] for row in boxes]


# ---- the whole ----


def one_by_one(pipeline: Pipeline) -> Compose:
    """`Compose` by a pipeline that generates one image at a time."""

    def compose(sentences, seeds, plans=None):
        plans = [None] * len(sentences) if plans is None else plans
        made = (
            pipeline.compose_sentence(sentence, plan, seed=seed)
            for sentence, seed, plan in zip(sentences, seeds, plans, strict=True)
        )
        return [(result.plan, result.pixels) for result in made]

    return compose


@functools.partial(jax.jit, static_argnames="config")
def _through(params, images, *, config: VAEConfig):
    vae = VAE(config)
    mean, _ = vae.apply({"params": params}, images, method=VAE.encode)
    return vae.apply({"params": params}, normalise(mean, config), method=VAE.decode)


def through_vae(params, config: VAEConfig, images: Sequence[Image]) -> list[Image]:
    """Images encoded (to the posterior's mean) and decoded again."""
    return [to_uint8(_through(params, jnp.asarray(to_float(image))[None], config=config))[0] for image in images]


@dataclass(frozen=True, eq=False)
class Scored:
    """One case, the model's outputs for it, and the record of all metrics."""

    case: Case
    plan: Plan
    image: Image
    swapped: Image | None
    record: dict


def score(
    batch: Sequence[Case],
    compose: Compose,
    decode: Callable[[Sequence[Image]], list[Image]],
    classifier: Classifier,
    plans: str,
) -> Iterator[Scored]:
    """Generates and measures a batch of cases.

    Args:
        compose: plans and generates.
        decode: passes images through the VAE.
        plans: "own" or "truth": the plans that images are generated from.
    """
    asked, seeds = [question(case.sentence) for case in batch], [case.index for case in batch]
    given = [case.sentence.plan for case in batch] if plans == "truth" else None
    made = compose(asked, seeds, given)
    swaps = iter(_draw_exchanged(batch, asked, seeds, made, compose))
    truth, targets = [case.sentence.plan.grid for case in batch], [case.sentence.target.pixels for case in batch]
    versions = {
        "model": ([image for _, image in made], [plan.grid for plan, _ in made]),
        "vae": (decode(targets), truth),
        "rerender": ([case.rerendered for case in batch], truth),
        "chance": ([case.other.target.pixels for case in batch], truth),
    }
    counts = [len(case.sentence.truth.kinds) for case in batch]
    predictions = {name: classify_cells(classifier, *version, counts) for name, version in versions.items()}
    true_predictions = classify_cells(classifier, targets, truth, counts)
    for n, case in enumerate(batch):
        judge, record = Judge(case), {"bucket": case.bucket, "index": case.index}
        for name, (images, grids) in versions.items():
            measures = judge.colour_measures(images[n], grids[n])
            record[name] = measures | judge.kind_measures(predictions[name][n], true_predictions[n])
        record["chance"]["layout_iou"] = [grid_iou(case.other.plan.grid, truth[n]), 1]
        if case.independent is not None:
            for name in VERSIONS:
                record[name]["layout_iou_independent"] = [grid_iou(case.independent, truth[n]), 1]
        swapped = None
        if case.pair is not None:
            swapped, grid = next(swaps), made[n][0].grid
            record["model"] |= judge.follows(swapped, grid)
            record["rerender"] |= judge.follows(case.exchanged, truth[n])
            record["chance"] |= judge.follows(case.other.target.pixels, truth[n])
        yield Scored(case, *made[n], swapped, record)


def _draw_exchanged(batch, asked, seeds, made, compose: Compose) -> list[Image]:
    """The images of the cases with a pair, generated again with the pair's cells swapped in the plan."""
    chosen = [n for n, case in enumerate(batch) if case.pair is not None]
    plans = [replace(made[n][0], grid=exchange(made[n][0].grid, batch[n].pair)) for n in chosen]
    if not chosen:
        return []
    return [image for _, image in compose([asked[n] for n in chosen], [seeds[n] for n in chosen], plans)]


def strip(scored: Scored) -> Image:
    """References, true image, layout and generated image side by side; and the image with two swapped."""
    case = scored.case
    tiles = {f"<image {image.number}>": image.pixels for image in case.sentence.images}
    tiles |= {"truth": case.sentence.target.pixels, "layout": Plan("", scored.plan.grid).image(128)}
    tiles |= {"drawn": scored.image}
    if scored.swapped is not None:
        tiles[f"{case.pair[0]} and {case.pair[1]} exchanged"] = scored.swapped
    return contact_sheet(list(tiles.values()), len(tiles), list(tiles))


def evaluate(
    pipeline: Pipeline, workdir: str, num: int, seed: int, plans: str, swaps: int, settings: dict, options
) -> tuple[dict, list[tuple[str, Path]]]:
    """Runs the benchmark, or resumes it.

    Args:
        pipeline: the model.
        workdir: takes the records and some images.
        num: samples per bucket.
        seed: of the scenes.
        plans: "own" or "truth": the plans that images are generated from.
        swaps: samples per bucket that are generated again with two subjects swapped.
        settings: further settings for the results; a run with other settings is not resumed.
        options: `scenes_engine.Options` of the scenes, except for the counts.

    Returns:
        The results (`report.summary`), and image strips with their texts.
    """
    classifier = load_classifier()
    settings = settings | {"seed": seed, "plans": plans, "swaps": swaps, "reader": classifier.notes}
    journal, compose = Journal(workdir, settings), one_by_one(pipeline)

    def decode(images):
        return through_vae(pipeline.params["vae"], pipeline.config.vae, images)

    folder, progress = Path(workdir) / "images", ProgressBar("scenes", len(NAMES) * num, "samples")
    progress.skip(sum(len(journal.bucket(name, num)) for name in NAMES))
    for name in NAMES:
        for start in range(len(journal.bucket(name, num)), num, CHUNK):
            batch = cases(name, start, min(CHUNK, num - start), seed, swaps, options)
            for scored in score(batch, compose, decode, classifier, plans):
                if scored.case.index < SHOWN:
                    save_image(folder / f"{name}_{scored.case.index}.png", strip(scored))
                    words = {"instruction": prompt_of(scored.case.sentence), "thought": scored.plan.cot}
                    scored.record.update(words)
                journal.add(scored.record)
                progress.done(1)
    records = {name: journal.bucket(name, num) for name in NAMES}
    strips = [
        (f"{record['instruction']} [{record['thought']}]", folder / f"{name}_{record['index']}.png")
        for name, bucket in records.items()
        for record in bucket[:SHOWN]
    ]
    return report.summary(records, KEYS, VERSIONS[1:], {"num": num} | settings), strips
