"""Tables: tidy CSV made from finished cells, by pure functions; every column is explained."""
