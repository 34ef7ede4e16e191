"""What `unetctl benchmark speed FOLDER` has measured of pages, as values and as words."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from unetctl.runtime.memory import format_size


@dataclass(frozen=True)
class PagesPair:
    """One run of predict over the folder and the bare network right after it.

    Attributes:
        wall_s: of predict, from opening the first page to the last rename.
        bare_s: what the network alone would have needed for the same tiles.
        seconds: of predict, by stage; "decoding" is that of all its threads together.
        peaks: (pages done, peak of the process's memory since the entry before, bytes), in order.
        device_peak_bytes: of a CUDA device's memory, 0 on a CPU.
    """

    wall_s: float
    bare_s: float
    seconds: dict[str, float]
    peaks: tuple[tuple[int, int], ...]
    device_peak_bytes: int = 0

    @property
    def efficiency(self) -> float:
        """Share of the wall time that the network's own work is, 0..1 but for noise."""
        return self.bare_s / self.wall_s


@dataclass(frozen=True)
class PagesRun:
    """All pairs with one core size.

    Attributes:
        core: largest side of a core, pixels; batch: tiles at once.
        num_files, num_pages, num_pixels: that were predicted.
        num_tiles, num_shapes, num_measured: tiles of all pages; their shapes; those that the bare network was measured on.
        budget_bytes: for the whole process.
        failed: files that could not be predicted, with the reason.
        pairs: in order.
    """

    core: int
    batch: int
    num_files: int
    num_pages: int
    num_pixels: int
    num_tiles: int
    num_shapes: int
    num_measured: int
    budget_bytes: int
    failed: dict[str, str]
    pairs: tuple[PagesPair, ...]

    @property
    def pages_per_min(self) -> float:
        """End to end, median."""
        return self.num_pages * 60 / self._wall_s

    @property
    def mpx_per_s(self) -> float:
        """Megapixels of pages per second end to end, median."""
        return self.num_pixels / 1e6 / self._wall_s

    @property
    def bare_mpx_per_s(self) -> float:
        """Megapixels of pages per second of the bare network, median."""
        return self.num_pixels / 1e6 / median(p.bare_s for p in self.pairs)

    @property
    def efficiency(self) -> float:
        """Median over the pairs."""
        return median(p.efficiency for p in self.pairs)

    @property
    def peak_bytes(self) -> int:
        """Of the process, over all pairs."""
        return max(num_bytes for pair in self.pairs for _, num_bytes in pair.peaks)

    @property
    def _wall_s(self) -> float:
        return median(p.wall_s for p in self.pairs)

    def seconds(self) -> dict[str, float]:
        """Medians by stage; decoding and writing run beside the network, waiting is what the network's thread loses."""
        names = dict.fromkeys(name for pair in self.pairs for name in pair.seconds)
        found = {name: round(median(p.seconds.get(name, 0.0) for p in self.pairs), 4) for name in names}
        return {**found, "wall": round(self._wall_s, 4)}

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            **asdict(self), "pages_per_min": self.pages_per_min, "mpx_per_s": self.mpx_per_s,
            "bare_mpx_per_s": self.bare_mpx_per_s, "efficiency": self.efficiency, "seconds": self.seconds(),
            "peak_bytes": self.peak_bytes,
            "pairs": [{**asdict(p), "efficiency": p.efficiency} for p in self.pairs],
        }  # fmt: skip


def pages_lines(values: dict[str, Any], runs: Sequence[PagesRun], best: PagesRun) -> Iterator[str]:
    """For people.

    Args:
        values: of the report, see `unetctl.jobs.benchmark_speed_pages.measure_pages`.
        runs: one a core size.
        best: the fastest of them.
    """
    yield (
        f"{values['task']} on {values['device']} in {values['precision']}, {values['num_threads']} threads; "
        f"{best.num_pages} pages in {best.num_files} files of {values['pages']}, {best.num_pixels / 1e6:.1f} Mpx; "
        f"medians of {len(best.pairs)} runs"
    )
    if best.failed:
        yield f"{'failed':>13}  {len(best.failed)} files, left out of all figures: {', '.join(list(best.failed)[:5])}"
    if len(runs) > 1:
        yield "      core  batch  pages/min       Mpx/s   bare Mpx/s   efficiency"
        for run in runs:
            yield (
                f"{run.core:>10}  {run.batch:>5}  {run.pages_per_min:>9.1f}  {run.mpx_per_s:>10.3f}   "
                f"{run.bare_mpx_per_s:>10.3f}   {run.efficiency:>10.3f}{'   best' if run is best else ''}"
            )
    yield f"{'core':>13}  up to {best.core}, batches of {best.batch}, {best.num_tiles} tiles of {best.num_shapes} shapes"
    yield (
        f"{'end to end':>13}  {best.pages_per_min:.1f} pages/min, {best.mpx_per_s:.3f} Mpx/s, from opening the first page to "
        "the last rename"
    )
    sample = f", {best.num_measured} of {best.num_shapes} shapes" if best.num_measured < best.num_shapes else ""
    yield f"{'bare network':>13}  {best.bare_mpx_per_s:.3f} Mpx/s, on resident tiles of these shapes{sample}"
    yield f"{'efficiency':>13}  {best.efficiency:.3f} (pairs: {', '.join(f'{p.efficiency:.3f}' for p in best.pairs)})"
    seconds = best.seconds()
    inside = ("network", "waiting for pages", "waiting for blocks", "waiting for writing")
    rest = seconds["wall"] - sum(seconds.get(name, 0.0) for name in inside)
    network, *waits = (f"{name} {seconds.get(name, 0.0):.2f}" for name in inside)
    yield (
        f"{'seconds':>13}  {seconds['wall']:.2f} in all: {network}, {', '.join(waits)}, all else {rest:.2f}; beside it "
        f"decoding {seconds.get('decoding', 0.0):.2f}, writing {seconds.get('writing', 0.0):.2f}"
    )
    if seconds.get("waiting for pages", 0.0) > 0.2 * seconds["wall"]:
        yield f"{'':>13}  decoding is the limit here, not the network"
    first, last = best.pairs[-1].peaks[0], best.pairs[-1].peaks[-2:][0]
    yield (
        f"{'memory':>13}  {format_size(best.peak_bytes)} at most, of {format_size(best.budget_bytes)}; of the last run "
        f"{format_size(first[1])} by page {first[0]}, {format_size(last[1])} before page {last[0]}"
    )
