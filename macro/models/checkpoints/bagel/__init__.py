"""BAGEL's checkpoints, read and written: `param_map.py` maps tensors to parameters, `checkpoint.py` opens a folder."""
