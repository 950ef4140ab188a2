"""MACRO's data set, as records and in its published layout; `CARD.md` tells what is in it."""
