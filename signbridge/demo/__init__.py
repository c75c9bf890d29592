"""The browser demo: one image, what the model answers, what probes read from its layers."""
