"""`unetctl predict`: one input to one output, planned, resumable, in bounded memory."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from unetctl.errors import UnetctlError, UsageError
from unetctl.geometry.plan import TilePlan
from unetctl.jobs.finish import finish_output, say_aside
from unetctl.jobs.object_scale import ScaleFinder, middle_plane, volume_hint, wants_scale
from unetctl.jobs.options import PredictOptions
from unetctl.jobs.outputs import InputPlaces, absolute_input, output_path
from unetctl.jobs.reuse import reused_statistics
from unetctl.jobs.tasks import ResolvedTask
from unetctl.networks.network import Network
from unetctl.runtime.device import apply_compute, resolve
from unetctl.runtime.engine import Engine
from unetctl.runtime.events import Listener, Note, StageEnded, StageProgress, StageStarted, nobody
from unetctl.runtime.journal import BlockRecord, Journal, latest_records
from unetctl.runtime.locks import RunLock
from unetctl.runtime.logbook import logged
from unetctl.runtime.loop import DoneBlock, LoopTimes, PipelinedLoop, output_box
from unetctl.runtime.memory import budget
from unetctl.runtime.planning import Planned, make_plan, project_run
from unetctl.runtime.reading import BlockReader, StatisticsStore, has_equal_channels
from unetctl.runtime.report import RunReport, peak_memory
from unetctl.runtime.run_folder import RunFolder
from unetctl.runtime.run_plan import RunPlan
from unetctl.sources.base import Source
from unetctl.sources.open import open_source

__all__ = ["BlockComputer", "PredictOptions", "Prediction", "compute_blocks", "plan_prediction", "run_prediction"]


@dataclass
class Prediction:
    """One input on its way: what `plan_prediction` found, for the dry run and for the run."""

    input: str
    source: Source
    task: ResolvedTask
    folder: RunFolder
    planned: Planned
    is_resumed: bool
    budget_bytes: int
    options: PredictOptions = field(repr=False, default_factory=PredictOptions)

    @property
    def plan(self) -> RunPlan:
        """The plan in force."""
        return self.planned.plan


def plan_prediction(
    path: str, task: ResolvedTask, options: PredictOptions, network: Network, inputs: InputPlaces | None = None
) -> Prediction:
    """Opens an input and decides, or follows the plan of a run that was begun.

    Args:
        path: of the input.
        task, options, network: what is asked.
        inputs: all of the same command, which the output must not be written over; None: this one.

    Raises:
        InputError: if the input cannot be read or does not fit the network.
        UsageError: if an output is in the way, or a begun run differs from what is asked now.
        ResourceError: if nothing fits into the budget.
    """
    budget_bytes = budget(options.memory_bytes, options.scheduler_bytes)
    source = open_source(path, **options.view, max_bytes=budget_bytes)
    try:
        folder = RunFolder(output_path(path, source.info, task.name, options.output, options.name))
        (inputs or InputPlaces([path])).refuse(folder.output)
        num_weights = sum(p.numel() for p in network.parameters())
        begun = folder.plan() if folder.has_plan() and not options.fresh else None
        _, compute = resolve(options.device, options.precision)
        if begun is not None:
            kept = begun.compute
            compute = replace(
                kept,
                device=compute.device if options.device != "auto" else kept.device,
                precision=compute.precision if options.precision != "auto" else kept.precision,
            )
        elif options.existing != "overwrite" and not (options.fresh and folder.has_plan()):
            folder.refuse_foreign_output()
        wishes = options.wishes if begun is None else replace(options.wishes, batch=options.batch or begun.batch)
        recorded = {
            "path": absolute_input(path),
            **options.view,
            "words": [*task.words, *options.words],
        }
        statistics = begun.statistics if begun is not None and options.statistics_from is None else {}
        grey = frozenset(i for i in range(len(source.info.images)) if has_equal_channels(source, i))
        planned = make_plan(
            source.info,
            recorded,
            task.recipe,
            task.weights_sha256,
            num_weights,
            compute,
            # The tiles of a plan never change, so a rerun with less memory is not held to the planner's choice.
            budget_bytes if begun is None else max(budget_bytes, 1 << 60),
            wishes,
            statistics,
            grey,
        )
        if options.statistics_from is not None:
            reused = reused_statistics(options.statistics_from, planned.plan)
            planned = replace(planned, plan=replace(planned.plan, statistics=reused))
        if begun is not None:
            planned = _following(begun, planned, options, folder)
            planned = replace(planned, projection=project_run(planned.plan, source.info, num_weights))
        return Prediction(path, source, task, folder, planned, begun is not None, budget_bytes, options)
    except BaseException:
        source.close()
        raise


def _following(begun: RunPlan, planned: Planned, options: PredictOptions, folder: RunFolder) -> Planned:
    """The begun plan, if what is asked now agrees with it."""
    asked = planned.plan
    if len(asked.images) == len(begun.images):
        images = tuple(
            replace(new, tiles=old.tiles, output=replace(new.output, shard=old.output.shard, chunk=old.output.chunk))
            if new.tiles.shape == old.tiles.shape and _meets(old.tiles, new.tiles, options)
            else new
            for new, old in zip(asked.images, begun.images, strict=True)
        )
        asked = replace(asked, images=images)
    differing = asked.differences(begun)
    if differing:
        raise UsageError(
            f"{folder.path} holds a run that differs: "
            + "; ".join(differing[:4])
            + (f" and {len(differing) - 4} more" if len(differing) > 4 else ""),
            "the same input, weights and settings as before",
            "start over with --fresh, or choose another output with -o",
        )
    return replace(planned, plan=begun.with_source(str(asked.source["path"])))


def _meets(begun: TilePlan, asked: TilePlan, options: PredictOptions) -> bool:
    """True if the begun cut is what --core and --block ask for, whatever memory made of the rest."""
    if options.core is not None and begun.core != asked.core:
        return False
    seen = [n for n, s in zip(begun.block_shape, begun.stride, strict=True) if s > 1]
    wanted = [n for n, s in zip(asked.block_shape, asked.stride, strict=True) if s > 1]
    return options.block is None or seen == wanted


#: What computes the missing blocks of a run: `compute_blocks`, or something that has them computed elsewhere.
BlockComputer = Callable[
    [RunPlan, list[int], Source, Network, RunFolder, PredictOptions, Listener, Callable[[], bool], int],
    tuple[LoopTimes, bool],
]


def run_prediction(
    prediction: Prediction,
    network: Network,
    emit: Listener = nobody,
    should_stop: Callable[[], bool] = lambda: False,
    compute: BlockComputer | None = None,
) -> RunReport:
    """Computes what is missing, then finishes the output (not for a part: `stitch` does).

    Args:
        prediction: as planned.
        network: of its task.
        emit, should_stop: see the engine.
        compute: computes the blocks instead of `compute_blocks` in this process.

    Returns:
        A report of status "done", "nothing-new" or "stopped".

    Raises:
        BusyError: if another process holds the output.
        UnetctlError: what reading, computing or writing raised; everything done until then stays done.
    """
    options, folder, plan = prediction.options, prediction.folder, prediction.plan
    begun = time.monotonic()
    if options.part:
        i_part, num_parts = options.part
        if options.fresh:
            raise UsageError(
                "--fresh together with --part", "one of them", "start over once without --part, then start the parts"
            )
        if not 1 <= i_part <= num_parts:
            raise UsageError(f"--part {i_part}/{num_parts}", "1/n to n/n")
    if options.fresh or (options.existing == "overwrite" and not folder.has_plan()):
        _start_over(folder, emit)
    folder.begin(plan)
    plan = folder.plan().with_source(str(plan.source["path"]))
    if plan.fingerprint != prediction.plan.fingerprint:
        # Another process was first, perhaps with more memory or fewer cores: its plan is followed, or what differs is said.
        again = plan_prediction(prediction.input, prediction.task, options, network)
        prediction.source.close()
        prediction.source, prediction.planned = again.source, again.planned
    who = f"part {options.part[0]} of {options.part[1]}" if options.part else "predict"
    emit = logged(folder.path / "log.jsonl", emit)
    with RunLock(folder.path, shared=options.part is not None, who=who):
        if options.part:
            folder.fix_parts(options.part[1])
            with RunLock(folder.path, shared=False, who=who, name=f"part-{options.part[0]}"):
                return _run_locked(prediction, plan, network, emit, should_stop, begun, compute)
        return _run_locked(prediction, plan, network, emit, should_stop, begun, compute)


def _start_over(folder: RunFolder, emit: Listener) -> None:
    if folder.path.is_dir():
        with RunLock(folder.path, shared=False, who="start over"):
            if folder.finished() and not folder.is_finished(checksums=True):
                say_aside(folder, emit)
            folder.remove()
    else:
        folder.remove()


def _run_locked(
    prediction: Prediction,
    plan: RunPlan,
    network: Network,
    emit: Listener,
    should_stop: Callable[[], bool],
    begun: float,
    compute: BlockComputer | None,
) -> RunReport:
    options, folder = prediction.options, prediction.folder
    indices = plan.part(options.part[0] - 1, options.part[1]) if options.part else range(plan.num_blocks)
    swept = folder.sweep() if options.part is None else 0
    # Where the store is the output, a part looks after its own blocks alone.
    if (options.part is None or folder.store_path != folder.output) and folder.is_finished(options.verify):
        return _report(prediction, plan, "nothing-new", len(indices), 0, LoopTimes(), begun)
    if options.part is None and folder.finished():
        say_aside(folder, emit)
        if not folder.store_path.exists():
            emit(Note(f"{folder.output} is not there as it was written: computing again", "warning"))
    sink = folder.ensure_store(plan)
    if options.part is None:
        swept += sink.sweep_partials()
        if swept:
            emit(Note(f"removed {swept} unfinished files of a killed run", "detail"))
    todo = folder.missing(sink, indices, checksums=options.verify)
    times, complete = LoopTimes(), True
    if len(todo) == plan.num_blocks and wants_scale(prediction.task.recipe, options.scale):
        _tell_scale(prediction, plan, network, emit, should_stop)
    if todo:
        compute = compute or compute_blocks
        times, complete = compute(
            plan, todo, prediction.source, network, folder, options, emit, should_stop, len(indices)
        )
    num_done = len(indices) - len(todo) + times.num_blocks
    if complete and options.part is None:
        complete = finish_output(
            folder, plan, emit, should_stop, keep_store=options.keep_store, checksums=options.verify
        )
    status = "stopped" if not complete else "nothing-new" if options.part and not todo else "done"
    return _report(prediction, plan, status, num_done, times.num_blocks, times, begun)


def _tell_scale(
    prediction: Prediction, plan: RunPlan, network: Network, emit: Listener, should_stop: Callable[[], bool]
) -> None:
    """A look at a volume before it is begun: are its objects as large as those that the network knows?"""
    task, options = prediction.task, prediction.options
    device = apply_compute(plan.compute, options.device)
    finder = ScaleFinder(
        task, network, plan.compute, device, prediction.budget_bytes, replace(options.wishes, batch=1), should_stop
    )
    diameter_px = task.recipe.objects.diameter_px
    assert diameter_px is not None
    try:
        text = volume_hint(finder(*middle_plane(prediction.source, plan.images[0].i_image)), diameter_px)
    except UnetctlError:  # no hint, then; what is wrong with the volume, if anything, its blocks will say
        return
    if text:
        emit(Note(text, "warning"))


def compute_blocks(
    plan: RunPlan,
    todo: list[int],
    source: Source,
    network: Network,
    folder: RunFolder,
    options: PredictOptions,
    emit: Listener,
    should_stop: Callable[[], bool],
    num_all: int,
) -> tuple[LoopTimes, bool]:
    """Runs the pipelined loop over blocks and journals them.

    Returns:
        Seconds by stage, and False if it was stopped.
    """
    device = apply_compute(plan.compute, options.device)
    sink = folder.sink()
    engine = Engine.of_plan(network, plan, device, emit=emit)
    statistics = StatisticsStore(folder.path, options.writer, plan, should_stop)
    done = num_all - len(todo)
    begun = time.monotonic()
    emit(StageStarted("predict", num_all, done, "block"))
    kept = 0
    with Journal(folder.path, options.writer) as journal:

        def write(block: DoneBlock) -> None:
            nonlocal done, kept
            keys = sink.write(plan.images.index(block.image), output_box(block.image, block.block.box), block.pixels)
            journal.mark(BlockRecord("block", block.index, keys, block.num_nonfinite))
            done += 1
            kept += block.block.box.num_pixels
            emit(StageProgress("predict", done, {"Mpx/s": kept / 1e6 / max(1e-9, time.monotonic() - begun)}))

        loop = PipelinedLoop(plan, BlockReader(source, plan, statistics), engine, write, should_stop)
        complete = loop.run(todo)
    emit(StageEnded("predict", time.monotonic() - begun, complete))
    return loop.times, complete


def _report(
    prediction: Prediction, plan: RunPlan, status: str, num_done: int, num_computed: int, times: LoopTimes, begun: float
) -> RunReport:
    folder = prediction.folder
    num_nonfinite = sum(r.num_nonfinite for r in latest_records(folder.path).values())
    warnings = list(prediction.planned.warnings)
    if num_nonfinite:
        warnings.append(f"{num_nonfinite} pixels of the input were not finite and were replaced by the volume's median")
    seconds = {
        "reading": times.read_s,
        "waiting for reading": times.wait_read_s,
        "network": times.network_s,
        "writing": times.write_s,
        "waiting for writing": times.wait_write_s,
        "loop": times.wall_s,
    }
    options = prediction.options
    report = RunReport(
        command="predict",
        input=prediction.input,
        output=str(folder.output),
        status=status,
        num_blocks=plan.num_blocks,
        num_done=num_done,
        num_computed=num_computed,
        num_pixels=times.num_pixels,
        elapsed_s=time.monotonic() - begun,
        seconds={k: round(v, 3) for k, v in seconds.items()},
        projected_bytes=prediction.planned.projection.host,
        peak_bytes=peak_memory(),
        num_nonfinite=num_nonfinite,
        notes=prediction.planned.notes,
        warnings=tuple(warnings),
        details={
            "task": plan.task,
            "fingerprint": plan.fingerprint,
            "keep": plan.keep,
            "threshold": plan.threshold,
            "device": plan.compute.device,
            "precision": plan.compute.precision,
            "part": list(options.part or ()),
            "num_tiles": times.num_tiles,
        },
    )
    report.save(folder.path / (f"report-{options.writer}.json" if options.part else "report.json"))
    return report
