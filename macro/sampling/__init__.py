"""Sentence -> plans -> images -> the best one. Start reading at `pipeline.py`."""
