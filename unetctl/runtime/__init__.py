"""The engine: blocks are read, computed, written and journaled, in bounded memory."""
