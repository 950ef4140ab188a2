"""Categories a scene may contain: common things that image models draw well and detectors know, singular nouns.

Like Objects365's list, which MUSIC samples from, but shorter; no parts of things, stuff, or what never occurs alone.
"""

CATEGORIES = (
    # people and animals
    "man", "woman", "boy", "girl", "dog", "cat", "horse", "cow", "sheep", "goat", "pig", "rabbit", "deer", "bear",
    "elephant", "giraffe", "zebra", "lion", "monkey", "penguin", "duck", "chicken", "parrot", "swan", "fish",
    "turtle", "frog", "crab", "butterfly",
    # on wheels, on water, in the air
    "car", "bus", "truck", "van", "train", "tram", "motorcycle", "bicycle", "scooter", "tractor", "sailboat", "canoe",
    "airplane", "helicopter", "hot air balloon", "skateboard", "stroller", "wheelbarrow",
    # furniture and what stands in rooms
    "chair", "armchair", "sofa", "stool", "bench", "table", "desk", "bed", "bookshelf", "cabinet", "lamp", "mirror",
    "clock", "vase", "potted plant", "carpet", "curtain", "fan", "radiator", "piano", "image frame",
    # kitchen and food
    "refrigerator", "microwave", "toaster", "kettle", "teapot", "cup", "plate", "bowl", "bottle", "wine glass", "pot",
    "knife", "cake", "pizza", "hamburger", "bread", "sandwich", "apple", "banana", "orange", "pineapple", "watermelon",
    "pumpkin", "carrot", "ice cream",
    # carried, worn, played with
    "backpack", "handbag", "suitcase", "umbrella", "hat", "shoe", "boot", "watch", "glasses", "guitar", "violin",
    "drum", "trumpet", "camera", "book", "telephone", "laptop", "television", "radio", "globe", "telescope", "ball",
    "kite", "teddy bear", "doll", "toy car", "candle", "basket", "bucket", "ladder", "hammer", "surfboard",
    # out of doors
    "tree", "palm tree", "flower", "mushroom", "cactus", "house", "tent", "windmill", "lighthouse", "fountain",
    "statue", "street lamp", "traffic light", "mailbox", "fire hydrant", "snowman", "bridge", "barrel",
)  # fmt: skip
