"""Trainers, one file each, named as its class: what `-tr` takes."""
