"""What people read: Markdown, one HTML page, figures. Reads files and runs nothing.

tables of evaluation and studies --tables--> metrics.json, cells.json, plots/*.csv
    --markdown, *_section--> report.md --page, page.html--> report.html
    --figures, side_by_side--> plots/*.png
"""
