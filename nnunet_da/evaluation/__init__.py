"""How good a segmentation is: metrics of one structure, folders of cases, tables by domain and model."""
