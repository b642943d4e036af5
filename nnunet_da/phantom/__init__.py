"""Simulated MR: anatomy of seven body parts, tissues, pulse sequences, scanners, and studies written as files."""
