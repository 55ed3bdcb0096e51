"""The model against published numbers and against a second model of the hardware."""
