"""One self-contained HTML page on what models predict: numbers, pictures, curves, and where to doubt."""

from nnunet_da.evaluation.report.page import write_html_report

__all__ = ["write_html_report"]
