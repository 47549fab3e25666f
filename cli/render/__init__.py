"""What a person sees, and what a machine reads."""
