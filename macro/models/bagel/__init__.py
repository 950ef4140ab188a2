"""BAGEL's checkpoints, read and written: `table.py` says which tensor is which, `folder.py` what lies on disk."""
