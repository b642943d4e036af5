"""Simulated lumbar spine MR: anatomy, tissues, pulse sequences, scanners, and studies written as files."""
