"""Training of the subject classifier: augmented crops of rendered scenes, and crops without a subject.

A training sample is a crop around a subject's cells by the layout rule, shifted and scaled a little, since planners
do not place cells exactly; parts of neighbours stay in the crop. Augmentation: mirroring, colour gain and offset,
slight blur, noise, as generated images are less sharp than renders. A share of the samples is of the class
`NOTHING`: the same crops under heavy blur, soft ellipses in a subject's colours, empty sky.

    loss = CE(kind or nothing) + TEXTURE CE(texture, where there is a kind)

Read next: `model.py` (weights and use), `macro/nn/subject_classifier.py` (the network).
"""

import functools
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, Int, UInt8

from macro.evals.classifier.model import NOTHING, Classifier, cells_box, save
from macro.nn.subject_classifier import CROP, MARGIN, SubjectClassifier, crop, square
from macro.scenes.assets.catalog import KINDS
from macro.scenes.graph import TEXTURES, Scene
from macro.scenes.ground_truth import annotate
from macro.scenes.layout import layout_sampler
from macro.scenes.render.batches import render_all
from macro.sentence.layout import GRID_SIZE
from macro.utils.errors import UserError
from macro.utils.log import ProgressBar

SIZE = 128
BATCH = 128
TEXTURE = 2.0
_STREAM = 1_620_202  # first number of all its seeds: data sets and evaluations begin theirs with another
TRAINING, HELD_OUT, _NETWORK = range(3)  # what a stream is for
_RENDERED_AT_ONCE = 16
_SMALLEST, _LEAST_VISIBLE = 0.004, 0.35  # of the image, of the silhouette: smaller ones are left out
_BLURRED, _EMPTY, _ELLIPSE = 0.06, 0.03, 0.04  # shares of the samples that show nothing
_READABLE_BLUR, _BLOB_BLUR = 0.022, (0.10, 0.22)  # standard deviations, as shares of the crop's side


@dataclass(frozen=True, eq=False)
class Views:
    """Images and, for each sample in them: image index, square (middle x, y, side), kind, texture, count.

    `counts`: the number of subjects in its image, by which results are grouped.
    """

    images: UInt8[np.ndarray, "n h w 3"]
    image: Int[np.ndarray, "m"]
    squares: Float[np.ndarray, "m 3"]
    kinds: Int[np.ndarray, "m"]
    textures: Int[np.ndarray, "m"]
    counts: Int[np.ndarray, "m"]
    colours: Float[np.ndarray, "m 3"]


def _scene(seed: int, purpose: int, index: int) -> Scene:
    """A scene for samples; small counts are more frequent, so that crops are balanced over counts."""
    rng = np.random.default_rng([_STREAM, seed, purpose, index])
    odds = np.arange(1, 13) ** -0.5
    count = 1 + int(rng.choice(12, p=odds / odds.sum()))
    if 2 <= count < 12 and rng.random() < 0.2:
        return layout_sampler.decimate(layout_sampler.sample_scene(rng, count + 1), count)
    return layout_sampler.sample_scene(rng, count)


def views(seed: int, purpose: int, scenes: int) -> Views:
    """Renders `scenes` scenes and lists the sufficiently visible subjects."""
    images, rows, progress = [], [], ProgressBar("classifier", scenes, "scenes rendered")
    for start in range(0, scenes, _RENDERED_AT_ONCE):
        graphs = [_scene(seed, purpose, n) for n in range(start, min(start + _RENDERED_AT_ONCE, scenes))]
        for graph, out in zip(graphs, render_all(graphs, SIZE, SIZE, silhouettes=True), strict=True):
            images.append(out["pixels"])
            rows += _samples_in(graph, out["ids"], out["amodal"].sum((1, 2)), len(images) - 1)
        progress.done(len(graphs))
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    return Views(np.stack(images), *columns)


def _samples_in(scene: Scene, ids: np.ndarray, whole: np.ndarray, image: int) -> list[tuple]:
    count = len(scene.subjects)
    masks = ids[None] == np.arange(1, count + 1)[:, None, None]
    grid = annotate.layout(masks)
    rows = []
    for n, (subject, mask) in enumerate(zip(scene.subjects, masks, strict=True)):
        box = cells_box(grid, n + 1)
        if box is None or mask.mean() < _SMALLEST or mask.sum() < _LEAST_VISIBLE * whole[n]:
            continue
        kind, texture = 1 + list(KINDS).index(subject.kind), TEXTURES.index(subject.texture)
        rows.append((image, square(box), kind, texture, count, subject.palette[0]))
    return rows


def _moved(rng: np.random.Generator, squares: np.ndarray) -> np.ndarray:
    """Squares with a planner's errors: off by up to a third of a cell, too large or too small."""
    shift = rng.uniform(-1, 1, (len(squares), 2)) * 0.35 / GRID_SIZE
    scale = np.exp(rng.uniform(-0.12, 0.22, len(squares)))
    return np.concatenate([squares[:, :2] + shift, squares[:, 2:] * scale[:, None]], 1)


def _batch(rng: np.random.Generator, samples: Views) -> dict[str, np.ndarray]:
    """One batch of samples, before `_augment` changes their pixels."""
    chosen = rng.integers(len(samples.image), size=BATCH)
    kinds, squares = samples.kinds[chosen].copy(), _moved(rng, samples.squares[chosen])
    blur = rng.uniform(0, 1, BATCH) ** 2 * _READABLE_BLUR
    draw = rng.random(BATCH)
    blurred = draw < _BLURRED
    ellipse = ~blurred & (draw < _BLURRED + _ELLIPSE)
    empty = ~blurred & ~ellipse & (draw < _BLURRED + _ELLIPSE + _EMPTY)
    blur[blurred] = rng.uniform(*_BLOB_BLUR, blurred.sum())
    # Soft ellipses are drawn on crops whose own subject has been blurred away.
    blur[ellipse] = _BLOB_BLUR[1]
    # The uppermost strip of an image is sky: a small square there is empty.
    sky = np.stack([rng.uniform(0.1, 0.9, BATCH), np.full(BATCH, 0.04), np.full(BATCH, 0.07)], 1)
    squares[empty] = sky[empty]
    kinds[blurred | ellipse | empty] = 0
    shape = np.stack([*rng.uniform(0.4, 0.6, (2, BATCH)), *rng.uniform(0.15, 0.42, (2, BATCH))], 1)
    return {
        "image": samples.image[chosen],
        "squares": squares.astype(np.float32),
        "blur": blur.astype(np.float32),
        "kinds": kinds,
        "textures": samples.textures[chosen],
        "ellipse": ellipse,
        "shape": shape.astype(np.float32),
        "colour": samples.colours[chosen].astype(np.float32),
    }


def _augment(key, crops, batch):
    """Soft ellipses, mirroring, other colours and contrast, noise."""
    keys = jax.random.split(key, 5)
    b = crops.shape[0]
    places = (jnp.arange(CROP) + 0.5) / CROP
    x, y, wide, high = (batch["shape"][:, n, None] for n in range(4))
    reach = ((places - x) / wide)[:, None, :] ** 2 + ((places - y) / high)[:, :, None] ** 2
    cover = jax.nn.sigmoid(6.0 * (1.0 - reach)) * batch["ellipse"][:, None, None]
    colour = (2 * batch["colour"] - 1)[:, None, None]
    crops = crops + cover[..., None] * (colour * (1.1 - 0.35 * y[:, :, None, None]) - crops)
    crops = jnp.where(jax.random.bernoulli(keys[0], 0.5, (b, 1, 1, 1)), crops[:, :, ::-1], crops)
    gain = 1 + 0.15 * jax.random.uniform(keys[1], (b, 1, 1, 3), minval=-1, maxval=1)
    lift = 0.12 * jax.random.uniform(keys[2], (b, 1, 1, 1), minval=-1, maxval=1)
    amount = 0.12 * jax.random.uniform(keys[3], (b, 1, 1, 1)) ** 2
    return crops * gain + lift + amount * jax.random.normal(keys[4], crops.shape)


def _loss(params, network, crops, kinds, textures):
    kind_logits, texture_logits = network.apply({"params": params}, crops)
    kind = optax.softmax_cross_entropy_with_integer_labels(kind_logits, kinds)
    texture = optax.softmax_cross_entropy_with_integer_labels(texture_logits, textures)
    return kind.mean() + TEXTURE * jnp.where(kinds > 0, texture, 0.0).mean()


def train_and_examine(scenes: int, steps: int, seed: int) -> Classifier:
    """Renders samples, trains on them, evaluates on other scenes; prints progress with the time left."""
    classifier = train(views(seed, TRAINING, scenes), steps, seed)
    notes = {"scenes": scenes, "steps": steps, "seed": seed}
    notes |= examine(classifier, views(seed, HELD_OUT, max(scenes // 12, _RENDERED_AT_ONCE)))
    print(notes, flush=True)
    return replace(classifier, notes=notes)


def train(samples: Views, steps: int, seed: int) -> Classifier:
    """A classifier trained for `steps` batches of `BATCH` samples."""
    kinds = (NOTHING, *KINDS)
    network = SubjectClassifier(len(kinds), len(TEXTURES))
    key = jax.random.key(seed)
    params = network.init(key, jnp.zeros((1, CROP, CROP, 3)))["params"]
    rate = optax.warmup_cosine_decay_schedule(0.0, 2e-3, min(200, steps // 4 + 1), steps, 1e-5)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate, weight_decay=0.02))
    images = jnp.asarray(samples.images)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state, key, batch, images):
        crops = crop(images[batch["image"]], batch["squares"], batch["blur"])
        crops = _augment(key, crops, batch)
        loss, gradient = jax.value_and_grad(_loss)(params, network, crops, batch["kinds"], batch["textures"])
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, loss

    state, rng, losses = optimizer.init(params), np.random.default_rng([_STREAM, seed, _NETWORK]), []
    progress = ProgressBar("classifier", steps, "steps")
    for n in range(steps):
        params, state, loss = step(params, state, jax.random.fold_in(key, n), _batch(rng, samples), images)
        losses.append(loss)
        if len(losses) == 100 or n + 1 == steps:  # reading a loss waits for its step
            progress.name = f"classifier, loss {np.mean(losses):.3f}"
            progress.done(len(losses))
            losses = []
    return Classifier(jax.tree.map(np.asarray, params), kinds, tuple(TEXTURES), {})


def examine(classifier: Classifier, held: Views) -> dict[str, float]:
    """Accuracy on held-out scenes: by subject count, and of kinds in blurred crops."""
    middle, half = held.squares[:, :2], held.squares[:, 2:] / 2 / MARGIN
    boxes = list(np.concatenate([middle - half, middle + half], 1))
    images = [held.images[n] for n in held.image]
    predictions = classifier.classify(images, boxes)
    kind = np.array([r.kind for r in predictions]) == np.array(classifier.kinds)[held.kinds]
    texture = np.array([r.texture for r in predictions]) == np.array(classifier.textures)[held.textures]
    few = held.counts <= 5
    out = {
        "kind_1_5": kind[few].mean(), "kind_6_12": kind[~few].mean(),
        "texture_1_5": texture[few].mean(), "texture_6_12": texture[~few].mean(),
        "both_1_5": (kind & texture)[few].mean(), "both_6_12": (kind & texture)[~few].mean(),
    }  # fmt: skip
    for blur in (0.02, 0.05, 0.1):
        blurred = np.array([r.kind for r in classifier.classify(images, boxes, blur)])
        out[f"kind_blurred_{blur}"] = (blurred == np.array(classifier.kinds)[held.kinds]).mean()
    return {name: round(float(value), 4) for name, value in out.items()}


def main(out: str, scenes: int = 6000, steps: int = 3000, seed: int = 0) -> None:
    """Trains a classifier and writes it to `out`."""
    if scenes < 1 or steps < 1 or seed < 0:
        raise UserError("--scenes and --steps must be at least 1, --seed at least 0")
    save(train_and_examine(scenes, steps, seed), out)


if __name__ == "__main__":
    from macro.utils.config import run

    run(
        main,
        out="safetensors file to write",
        scenes="how many scenes to render for the samples",
        steps="optimizer steps of 128 crops",
        seed="of scenes, samples and first weights",
    )
