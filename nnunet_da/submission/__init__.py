"""Results in the form that a challenge takes: a checked zip of label maps, or the build context of a container."""
