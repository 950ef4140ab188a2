"""Rendered scenes as a TFDS data set; `CARD.md` tells what is in it, `python -m data.build scenes` builds it."""
