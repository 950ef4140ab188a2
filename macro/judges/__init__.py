"""Outside judgement: language models asked over the wire or loaded here, encoders, and what judges are asked.

chat.py   a question with images whose answer is JSON of a promised shape, and whoever answers it: `Chat`
json_schema.py   the promised shapes, and holding an answer against them
response_cache.py   answers on disk, so that nothing is asked twice
endpoint.py   a `Chat` behind an OpenAI-compatible endpoint (`llm_errors.py`: what its server's refusals mean)
local.py    a `Chat` on `transformers` models
rubrics.py   what judges score, and how a benchmark adds scores up
clip.py, dino.py   encoders of images and texts; model_loading.py: how models of `transformers` are loaded
"""
