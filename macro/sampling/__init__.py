"""Sentence -> plans -> pictures -> the best one. `pipeline.py` is where a reader starts."""
