"""Rendered scenes as a TFDS data set; `CARD.md` describes it, `python -m data.build scenes` builds it."""
