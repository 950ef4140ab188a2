"""MACRO's data set, as records and in its published layout; `CARD.md` describes it."""
