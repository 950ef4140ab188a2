"""BAGEL's own way of drawing: texts and pictures in any order, three contexts, a thought. Start at `pipeline.py`."""
