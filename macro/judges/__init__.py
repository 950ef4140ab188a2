"""Judges: language models at an endpoint or loaded here, encoders of images and texts, and rubrics.

chat.py   a request with images whose answer is JSON of a required schema, and what answers it: `Chat`
json_schema.py   the schemas, and validation of an answer
response_cache.py   answers on disk, so that no request is sent twice
endpoint.py   a `Chat` behind an OpenAI-compatible endpoint (`llm_errors.py`: what the server's errors mean)
local.py    a `Chat` on `transformers` models
rubrics.py   what judges score, and how a benchmark aggregates the scores
clip.py, dino.py   encoders of images and texts; model_loading.py: how models of `transformers` are loaded
"""
