"""What the command line may say about pages."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PageOptions:
    """Beyond `PredictOptions`.

    Attributes:
        recursive: folders inside folders too.
        format: "tiff", "png", "pdf" or "gif" for all outputs; None: alike to the inputs.
        pdf_dpi: resolution of PDF pages that are drawn rather than scanned.
        checksums: write the list of SHA-256 sums of all outputs beside them.
        as_pages: True for --pages, False for --stack; None: as the recipe says.
    """

    recursive: bool = False
    format: str | None = None
    pdf_dpi: float = 300.0
    checksums: bool = False
    as_pages: bool | None = None
