"""How the reader is taught: crops of rendered scenes, spoilt a little, and lessons in seeing nothing.

A lesson is a crop around a subject's cells, as the layout rule gives them, moved and scaled a little, since
planners do not hit cells exactly; neighbours intrude as they do in real scenes. Pictures are mirrored,
recoloured, blurred slightly and made noisy, for drawn pictures are less crisp than renders. A share of the
lessons shows `NOTHING`: the same crops so blurred that only a blob of colour is left, soft ellipses in a
subject's colours, empty ground.

    loss = CE(kind or nothing) + TEXTURE CE(texture, where there is a kind)

Read next: `classifier.py` (the network and its use).
"""

import functools
import time
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, Int, UInt8

from macro.evals.classifier.model import CROP, MARGIN, NOTHING, Network, Reader, crop, square
from macro.scenes.assets.catalog import KINDS
from macro.scenes.graph import TEXTURES, Scene
from macro.scenes.ground_truth import annotate
from macro.scenes.layout import layout_sampler
from macro.scenes.render import raycast
from macro.sentence.layout import GRID_SIZE, Grid

SIZE = 128
BATCH = 128
TEXTURE = 2.0
_STREAM = 1_620_202  # first number of all its seeds: data sets and evaluations begin theirs with another
LESSONS, HELD_OUT, _NETWORK = range(3)  # what a stream is for
_RENDERED_AT_ONCE = 16
_SMALLEST, _LEAST_VISIBLE = 0.004, 0.35  # of the picture, of the silhouette: less teaches nothing
_BLURRED, _EMPTY, _ELLIPSE = 0.06, 0.03, 0.04  # shares of the lessons that show nothing
_READABLE_BLUR, _BLOB_BLUR = 0.022, (0.10, 0.22)  # standard deviations, as shares of the crop's side


def cells_box(grid: Grid, number: int) -> Float[np.ndarray, "4"] | None:
    """(x0, y0, x1, y1) in 0..1 around a subject's cells; None if it has none."""
    rows, columns = np.nonzero(grid == number)
    if not len(rows):
        return None
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], np.float64) / GRID_SIZE


@dataclass(frozen=True, eq=False)
class Views:
    """Pictures and, for each lesson in them: picture index, square (middle x, y, side), kind, texture, count.

    `counts` says with how many others a subject shares its picture, to report by.
    """

    pictures: UInt8[np.ndarray, "n h w 3"]
    picture: Int[np.ndarray, "m"]
    squares: Float[np.ndarray, "m 3"]
    kinds: Int[np.ndarray, "m"]
    textures: Int[np.ndarray, "m"]
    counts: Int[np.ndarray, "m"]
    colours: Float[np.ndarray, "m 3"]


def _scene(seed: int, purpose: int, index: int) -> Scene:
    """A scene for lessons; small counts more often, so that no count fills most of the crops."""
    rng = np.random.default_rng([_STREAM, seed, purpose, index])
    odds = np.arange(1, 13) ** -0.5
    count = 1 + int(rng.choice(12, p=odds / odds.sum()))
    if 2 <= count < 12 and rng.random() < 0.2:
        return layout_sampler.decimate(layout_sampler.sample_scene(rng, count + 1), count)
    return layout_sampler.sample_scene(rng, count)


def views(seed: int, purpose: int, scenes: int, say=lambda done: None) -> Views:
    """Renders `scenes` scenes and lists the subjects that can be seen well enough."""
    pictures, rows = [], []
    for start in range(0, scenes, _RENDERED_AT_ONCE):
        graphs = [_scene(seed, purpose, start + n) for n in range(_RENDERED_AT_ONCE)][: scenes - start]
        padded = graphs + graphs[-1:] * (_RENDERED_AT_ONCE - len(graphs))
        batch = raycast.stack([raycast.compile_scene(graph) for graph in padded])
        out = {name: np.asarray(values) for name, values in raycast.render(batch, SIZE, SIZE).items()}
        whole = np.asarray(raycast.amodal(batch, SIZE, SIZE)).sum((2, 3))
        for n, graph in enumerate(graphs):
            pictures.append(out["pixels"][n])
            rows += _lessons_in(graph, out["ids"][n], whole[n], len(pictures) - 1)
        say(len(pictures))
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    return Views(np.stack(pictures), *columns)


def _lessons_in(scene: Scene, ids: np.ndarray, whole: np.ndarray, picture: int) -> list[tuple]:
    count = len(scene.subjects)
    masks = ids[None] == np.arange(1, count + 1)[:, None, None]
    grid = annotate.layout(masks)
    rows = []
    for n, (subject, mask) in enumerate(zip(scene.subjects, masks, strict=True)):
        box = cells_box(grid, n + 1)
        if box is None or mask.mean() < _SMALLEST or mask.sum() < _LEAST_VISIBLE * whole[n]:
            continue
        kind, texture = 1 + list(KINDS).index(subject.kind), TEXTURES.index(subject.texture)
        rows.append((picture, square(box), kind, texture, count, subject.palette[0]))
    return rows


def _moved(rng: np.random.Generator, squares: np.ndarray) -> np.ndarray:
    """Squares as a planner might place them: off by up to a third of a cell, too large or too small."""
    shift = rng.uniform(-1, 1, (len(squares), 2)) * 0.35 / GRID_SIZE
    scale = np.exp(rng.uniform(-0.12, 0.22, len(squares)))
    return np.concatenate([squares[:, :2] + shift, squares[:, 2:] * scale[:, None]], 1)


def _batch(rng: np.random.Generator, lessons: Views) -> dict[str, np.ndarray]:
    """One batch of lessons; what is done to their pixels follows in `_spoil`."""
    chosen = rng.integers(len(lessons.picture), size=BATCH)
    kinds, squares = lessons.kinds[chosen].copy(), _moved(rng, lessons.squares[chosen])
    blur = rng.uniform(0, 1, BATCH) ** 2 * _READABLE_BLUR
    draw = rng.random(BATCH)
    blurred = draw < _BLURRED
    ellipse = ~blurred & (draw < _BLURRED + _ELLIPSE)
    empty = ~blurred & ~ellipse & (draw < _BLURRED + _ELLIPSE + _EMPTY)
    blur[blurred] = rng.uniform(*_BLOB_BLUR, blurred.sum())
    # Soft ellipses stand on crops whose own subject has been blurred away beneath them.
    blur[ellipse] = _BLOB_BLUR[1]
    # The uppermost strip of a picture is sky: a small square there is empty.
    sky = np.stack([rng.uniform(0.1, 0.9, BATCH), np.full(BATCH, 0.04), np.full(BATCH, 0.07)], 1)
    squares[empty] = sky[empty]
    kinds[blurred | ellipse | empty] = 0
    shape = np.stack([*rng.uniform(0.4, 0.6, (2, BATCH)), *rng.uniform(0.15, 0.42, (2, BATCH))], 1)
    return {
        "picture": lessons.picture[chosen],
        "squares": squares.astype(np.float32),
        "blur": blur.astype(np.float32),
        "kinds": kinds,
        "textures": lessons.textures[chosen],
        "ellipse": ellipse,
        "shape": shape.astype(np.float32),
        "colour": lessons.colours[chosen].astype(np.float32),
    }


def _spoil(key, crops, batch):
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


def teach(scenes: int, steps: int, seed: int) -> Reader:
    """Renders lessons, trains on them, examines on other scenes; prints progress with the time left."""
    progress = _Progress("rendered", scenes, 50 * _RENDERED_AT_ONCE)
    reader = train(views(seed, LESSONS, scenes, progress.tell), steps, seed)
    notes = {"scenes": scenes, "steps": steps, "seed": seed}
    notes |= examine(reader, views(seed, HELD_OUT, max(scenes // 12, _RENDERED_AT_ONCE)))
    print(notes, flush=True)
    return replace(reader, notes=notes)


def train(lessons: Views, steps: int, seed: int) -> Reader:
    """A reader taught for `steps` batches of `BATCH` lessons."""
    kinds = (NOTHING, *KINDS)
    network = Network(len(kinds), len(TEXTURES))
    key = jax.random.key(seed)
    params = network.init(key, jnp.zeros((1, CROP, CROP, 3)))["params"]
    rate = optax.warmup_cosine_decay_schedule(0.0, 2e-3, min(200, steps // 4 + 1), steps, 1e-5)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate, weight_decay=0.02))
    pictures = jnp.asarray(lessons.pictures)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state, key, batch, pictures):
        crops = crop(pictures[batch["picture"]], batch["squares"], batch["blur"])
        crops = _spoil(key, crops, batch)
        loss, gradient = jax.value_and_grad(_loss)(params, network, crops, batch["kinds"], batch["textures"])
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, loss

    state, rng, losses = optimizer.init(params), np.random.default_rng([_STREAM, seed, _NETWORK]), []
    progress = _Progress("step", steps, 100)
    for n in range(steps):
        params, state, loss = step(params, state, jax.random.fold_in(key, n), _batch(rng, lessons), pictures)
        losses = [*losses[-99:], loss]
        if progress.due(n + 1):
            progress.tell(n + 1, f", loss {np.mean([float(loss) for loss in losses]):.3f}")
    return Reader(jax.tree.map(np.asarray, params), kinds, tuple(TEXTURES), {})


class _Progress:
    """A line every so often: what is done and how long the rest will take."""

    def __init__(self, what: str, total: int, every: int):
        self.what, self.total, self.every, self.start = what, total, every, time.monotonic()

    def due(self, done: int) -> bool:
        return done % self.every == 0 or done == self.total

    def tell(self, done: int, more: str = "") -> None:
        if self.due(done):
            left = (time.monotonic() - self.start) / done * (self.total - done) / 60
            print(f"{self.what} {done}/{self.total}{more}, {left:.1f} min left", flush=True)


def examine(reader: Reader, held: Views) -> dict[str, float]:
    """Accuracy on scenes that it was not taught with: by subject count, and of kinds in blurred crops."""
    middle, half = held.squares[:, :2], held.squares[:, 2:] / 2 / MARGIN
    boxes = list(np.concatenate([middle - half, middle + half], 1))
    pictures = [held.pictures[n] for n in held.picture]
    readings = reader.read(pictures, boxes)
    kind = np.array([r.kind for r in readings]) == np.array(reader.kinds)[held.kinds]
    texture = np.array([r.texture for r in readings]) == np.array(reader.textures)[held.textures]
    few = held.counts <= 5
    out = {
        "kind_1_5": kind[few].mean(), "kind_6_12": kind[~few].mean(),
        "texture_1_5": texture[few].mean(), "texture_6_12": texture[~few].mean(),
        "both_1_5": (kind & texture)[few].mean(), "both_6_12": (kind & texture)[~few].mean(),
    }  # fmt: skip
    for blur in (0.02, 0.05, 0.1):
        blurred = np.array([r.kind for r in reader.read(pictures, boxes, blur)])
        out[f"kind_blurred_{blur}"] = (blurred == np.array(reader.kinds)[held.kinds]).mean()
    return {name: round(float(value), 4) for name, value in out.items()}
