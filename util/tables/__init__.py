"""Tables and file layouts of the data sets."""
