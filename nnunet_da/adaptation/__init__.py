"""The recipe beyond the papers: intensity randomisation, mean teacher, statistics, test-time adaptation, and selection.

What each part follows is named in its file; docs/adaptation.md says what was left open and what was chosen.
"""
