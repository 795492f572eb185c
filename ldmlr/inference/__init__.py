"""Using a head: predictions for new rows or images, and files for other programs."""
