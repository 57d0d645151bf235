"""From a release on disk to folders that the data sets read."""
