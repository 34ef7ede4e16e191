"""Pages of documents: folders of scans in, folders of pages out, file by file and resumable."""
