"""ivd_dense_aspp: segmentation, localisation and numbering of intervertebral discs."""
