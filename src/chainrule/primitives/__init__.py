"""The few operations that everything is made of."""
