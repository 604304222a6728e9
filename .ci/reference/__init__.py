"""The reference: REFERENCE.md, in the words that stand in the code. `make reference` writes it, a test compares it."""
