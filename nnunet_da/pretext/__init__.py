"""Pretext tasks trained beside segmentation, on the cases of every domain, labelled or not.

"Intensity-based self-supervised domain adaptation for intervertebral disc segmentation in magnetic resonance imaging",
Int. J. CARS 2024 (below: the paper). One file per task; `head` holds the branch i(·), `network` joins it to a U-Net.
"""
