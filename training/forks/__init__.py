"""Recorded runs forked at a model call: to measure what the call was worth, or to have alternatives to it."""
