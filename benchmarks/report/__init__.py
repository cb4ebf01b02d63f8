"""Draws results: tables as text and Markdown, charts by matplotlib, and one HTML page that loads nothing."""
