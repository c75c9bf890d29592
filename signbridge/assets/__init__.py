"""Files that come with the package: a sample of real images."""
