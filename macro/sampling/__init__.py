"""Sentence -> plans -> images -> the best one. `pipeline.py` is where a reader starts."""
