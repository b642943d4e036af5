"""Pretext tasks trained beside segmentation, on the cases of every domain, labelled or not.

Fiorentino et al., "An intensity-based self-supervised domain adaptation method for intervertebral disc segmentation in
magnetic resonance imaging", Int. J. CARS 19, 1753-1761 (2024) (below: the paper). One file per task; `head` holds the
branch i(·), `network` joins it to a U-Net.
"""
