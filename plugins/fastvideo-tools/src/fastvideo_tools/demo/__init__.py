"""`fastvideo-distill demo`: captioned clips, the real commands on them, and what the results are worth."""
