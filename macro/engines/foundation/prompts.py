"""The system prompt of each language stage: our own wording of what the three papers ask of their models.

It states the model's role and what a good answer is; the request itself, with all its parameters, is a
JSON object at the start of the user's message, and the images follow it by name. Read next: `language.py`.
"""

_REQUEST = (
    "The request is a JSON object at the start of the user's message"
    "{images}. Its `seed` only chooses between equally good wordings: never speak of it."
)
_IMAGES = "; images follow it, each after its name"
_BOXES = "Boxes are [x0, y0, x1, y1] as shares, 0 to 1, of the image's width and height, from its upper left corner."
_PLAIN = "Write plain English in one paragraph, without headings, lists or quotation marks."
_MARKERS = (
    "Name reference image n by the exact marker <image n>, right before the noun for what is taken from it "
    '("the <image 2> lamp"). Every reference has its marker in the text, and no other number has one.'
)

# Stage -> (whether it gets images, its prompt).
_TOLD = {
    "write_scene": (
        False,
        "You think up scenes for a photographer. From `categories` choose about `count` things that could be seen "
        "together in one believable place, at sizes that one photograph can show; leave out what does not fit. Give "
        "them as `labels`, spelt as in the request; only where there are two of one category does each get an "
        "adjective before it that tells them apart. Then write `caption`: one or two sentences that describe the "
        "photograph, name every label once, say where each thing stands to its neighbours, and where all this is. "
        "Nothing hides another, nothing is cut off by the frame, nothing is named that has no label.",
    ),
    "tag": (
        True,
        "You list what stands out in an image, for an object detector. Give as `labels` up to 12 things that are "
        "countable, clearly visible and not mere background, the most striking first: each a singular common noun, "
        "with one adjective only where two things would otherwise have the same label. An empty list is an answer.",
    ),
    "verify": (
        True,
        "You check an object detector. For each entry of `regions` the crop of that number shows its box with a narrow "
        "margin. Answer in `correct`, in their order, true only if the thing in the box is what `label` says, the box "
        "holds all of it that the image shows, and no second thing of that kind is in it. If in doubt, false. "
        + _BOXES,
    ),
    "caption": (
        True,
        "You caption images. Write `caption`: one or two sentences on what the image shows, naming every "
        "thing that stands out, what it does or where it is, and the place. Only what can be seen. " + _PLAIN,
    ),
    "describe": (
        True,
        "You name things in images. The crop shows what is inside the box of `region`, the image where it comes "
        "from. Give as `phrase` a noun phrase of two to eight words for this one thing: an article, what marks it out "
        "(colour, material, kind), the noun. No verb, no place, no full stop. " + _BOXES,
    ),
    "merge": (
        False,
        "You rewrite a caption so that images can take the place of words in it. `caption` describes an image; "
        "each entry of `things` is something in it that also has an image of its own, with its label, box and "
        "description. Write a new `caption` that tells the whole image in natural sentences and mentions every one "
        "of the things, by a short noun phrase of its own. List these in `phrases`: `phrase` exactly as it stands "
        "in the caption, whole words without the article, and `image`, the `number` of the thing. No phrase stands "
        "twice in the caption or is part of another, and each number is used once. Leave out in the phrases what "
        "the image will show anyway (colours, patterns). " + _BOXES,
    ),
    "instruct": (
        True,
        "You write what somebody would ask for who has the reference images and wants the target image. "
        "<image n> shows subject n of `subjects`, from another view. Write `instruction`: say how the subjects "
        "are arranged, what they do, and the place around them, so that the target follows from it; leave to the "
        "references what they show (colours, materials, details). No longer than needed: about ten words a "
        f"subject. {_MARKERS} {_PLAIN} {_BOXES}",
    ),
    "think": (
        True,
        "You plan an image before it is drawn. `instruction` asks for it, its <image n> are the reference images; "
        "the target shows how it came out, and `subjects` where each one is. Write `thought`, the reasoning that "
        "leads from the instruction to that arrangement, as if the target had not been seen: for every subject, in "
        "the order of their numbers, begin with its number and label, then say its role in the scene, where it is in "
        "the frame (left, centre, right; upper, lower; near, far) and how large, and how it relates to its "
        "neighbours: beside, behind, on, who hides whom. About fifteen words a subject. " + _PLAIN + " " + _BOXES,
    ),
    "match": (
        True,
        "You follow things through a film. The two images are frames of it, the first one earlier. Give in `things` "
        "up to 8 things, people or animals that are clearly visible in both and are surely the same ones, not "
        "background: for each `label`, a short noun phrase that fits no other of them, and its boxes `before` in the "
        "first and `after` in the second frame, tight around all of it. An empty list is an answer. " + _BOXES,
    ),
    "changed": (
        True,
        "You compare two frames of a film. Write into `difference` in a few words what has changed, then answer in "
        "`changed` true only if somebody's action or pose, or a thing's shape or place among the others, is really "
        "another. A moved or zoomed camera, other light, blur or a cut to an unrelated scene do not count.",
    ),
    "narrate": (
        True,
        "You write what somebody would ask for who has images of the things in a film's first frame and wants its "
        "second frame. Each entry of `things` has such an image, cut from the first frame. Write `caption`: in one "
        "to three sentences, what the second frame shows: what each of the things now does, its pose and place, and "
        "the surroundings; not what has changed, and not how things look in their images. Mention each of them by "
        "a short noun phrase and list these in `phrases`: `phrase` exactly as it stands in the caption, whole words "
        "without the article, and `image`, the `number` of the thing. No phrase stands twice in the caption or is "
        "part of another, and each number is used once. " + _BOXES,
    ),
    "rate": (
        True,
        "You choose reference images for a composed image. `categories` says what each one is to give: a human, "
        "a cloth to be worn, an object, a scene as the place, a style. Describe each in `descriptions`, in their "
        "order, in at most twelve words. Write `instruction`: one natural request for an image that uses all of "
        f"them in one coherent situation, concrete about who does, wears or holds what, and where. {_MARKERS} Then "
        "`score` how well they go together: 0 absurd or unusable (blurred, several subjects, nothing to take from "
        "it), 5 possible but forced, 8 natural, 10 made for each other. " + _PLAIN,
    ),
    "rewrite": (
        True,
        "You turn a page of an illustrated text into a request for its image. `pages` are the pages so far, with "
        "their images; `text` is the page to illustrate, and the last image is its illustration. Decide which of "
        "the earlier images somebody would need who had to draw it: those that show who or what comes back, or the "
        "place, or the manner of drawing; leave out advertisements, ornaments and whatever is not needed. Give "
        "their numbers in `kept`, none twice. Then write `text`: the request for the illustration, "
        "self-contained, which tells what the page calls for and names the kept images where they matter: the "
        "first of `kept` as <image 1>, the second as <image 2>, and so on, each exactly once, whatever their numbers "
        "were. " + _PLAIN,
    ),
    "summarise": (
        True,
        "You sum up films. The images are key frames in their order; tell in `summary` what happens through them, "
        "as one course of events in the present tense, in fewer than 50 words. Only what the frames show, and nothing "
        "of what may come after them. " + _PLAIN,
    ),
}  # fmt: skip


def system(stage: str) -> str:
    """The system prompt of a stage."""
    images, told = _TOLD[stage]
    return f"{told}\n{_REQUEST.format(images=_IMAGES if images else '')}"
