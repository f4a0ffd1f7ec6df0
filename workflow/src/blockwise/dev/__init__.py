"""What holds the repository itself: its checks and its map."""
