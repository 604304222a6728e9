"""A round of the loop as functions: teach, compare, settle, promote, mirror. Commands and the demo call them."""
