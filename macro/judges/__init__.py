"""Outside judgement: language models asked over the wire or loaded here, encoders, and what judges are asked.

    asking.py   a question with pictures whose answer is JSON of a promised shape, and whoever answers it: `Chat`
    shapes.py   the promised shapes, and holding an answer against them
    stored.py   answers on disk, so that nothing is asked twice
    client.py   a `Chat` behind an OpenAI-compatible endpoint (`replies.py`: what its server's refusals mean)
    local.py    a `Chat` on `transformers` models
    rubric.py   what judges score, and how a benchmark adds scores up
    clip.py, dino.py   encoders of pictures and texts; loading.py: how models of `transformers` are loaded
"""
