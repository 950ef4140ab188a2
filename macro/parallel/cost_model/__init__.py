"""What a compiled program costs on a TPU: memory, FLOPs, HBM traffic, collectives, time. Start in `estimate.py`."""
