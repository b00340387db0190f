"""Book files to chapters: every word of the source is in a chapter, or listed as left out with the reason."""
