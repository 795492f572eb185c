"""What LDMLR is compared with: heads without generation and other generators, one idea per file."""
