"""The command line of ldmlr: one thin module per command over the library."""
