"""What people look at: the table on the screen, the plots, and the one-file HTML report.

- `table.comparison_table(rows)`: a `rich` table for the terminal
- `plots`: matplotlib figures; `plots.to_svg(figure)` gives the same bytes for the same figure
- `html.write_report(rows, path)`: one offline HTML file; `_cells.py` makes its table, `_page_plots.py` its plots,
  `_sections.py` the rest, `report.html.j2`, `.css` and `.js` the page
- `summary.summarize(rows)`: what all three are made from: one `TargetSummary` a target, aggregated over seeds

Nothing is imported here: matplotlib and jinja2 load only when they are needed.
"""
