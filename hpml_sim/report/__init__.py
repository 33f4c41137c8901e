"""What people look at: the table on the screen, the plots, and the HTML report in one file.

- `table.comparison_table(rows)`: a `rich` table for the terminal
- `plots`: matplotlib figures; `plots.to_svg(figure)` gives the same bytes for the same figure
- `overview.overview(rows)`: the small table that a `Comparison` shows of itself
- `html.write_report(rows, path)`: one offline HTML file; `table_cells.py` makes its table, `page_plots.py` its plots,
  `findings.py` its summary in sentences, `sections.py` the rest; `report.html.j2`, `.css` and `.js` are the page
- `summary.summarize(rows)`: what all of these are made from: one `TargetSummary` a target, aggregated over seeds

Nothing is imported here: matplotlib and jinja2 load only when they are needed.
"""
