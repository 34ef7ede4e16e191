"""The same blocks on dask.distributed workers."""
