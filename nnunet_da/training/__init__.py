"""What trainers share: the one place, beside trainers/ itself, that knows nnU-Net's training."""
