"""What people read: Markdown, one HTML page, figures. Reads files and runs nothing.

rows, curves, files --build--> report.md, report.html, metrics.json, plots/
"""
