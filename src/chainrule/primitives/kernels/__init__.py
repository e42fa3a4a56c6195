"""NumPy evaluation of the structured primitives: pure functions on ndarrays."""
