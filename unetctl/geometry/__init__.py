"""Boxes, tile plans and mirroring: integers and numpy only, no pixels needed to test it."""
