"""A trained model applied to scans as a user has them: their own names, formats and grids."""
