"""Edits of rendered scenes as a data set; `CARD.md` tells what is in it, `python -m data.build edit` builds it."""
