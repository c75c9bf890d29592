"""How the bundled stand-in model was trained; not part of the installed package."""
