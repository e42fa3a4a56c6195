"""chainrule: deep learning that shows its work."""
