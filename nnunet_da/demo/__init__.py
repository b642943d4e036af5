"""The main job on simulated scans: three scanners, one of them labelled, from raw files to a table and pictures."""
