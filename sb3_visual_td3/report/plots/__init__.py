"""The plots of the page as plain plotly figures: data in, dictionaries out."""
