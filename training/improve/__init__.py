"""A round of the loop as functions: compare, settle, promote, mirror. Commands and the demo call the same ones."""
