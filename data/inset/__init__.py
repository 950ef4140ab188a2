"""INSET's data set; `CARD.md` tells what is in it, `python -m data.build inset` builds it."""
