"""Studies: tasks × models × seeds × folds, each an ordinary nnU-Net run, and the tables of what came out."""
