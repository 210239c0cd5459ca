"""What we learned: queries, figures and the report, read from the dataset alone."""
