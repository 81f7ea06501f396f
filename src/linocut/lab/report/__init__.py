"""What people read: Markdown, one HTML page, figures. Reads files and runs nothing.

tables of evaluation and studies --tables--> metrics.json, cells.json, plots/*.csv
    --build, *_section--> report.md --page, page.html--> report.html
    --figures--> plots/*.png
dvc.lock of all experiments --experiments--> cells by seed, intervals over seeds
"""
