"""The three stages in a row, reusing what is there."""
