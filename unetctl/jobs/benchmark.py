"""`unetctl benchmark`: how fast predict is beside the bare network, how good its answers are beside the labels."""

from unetctl.jobs.benchmark_accuracy import accuracy
from unetctl.jobs.benchmark_report import BenchmarkReport
from unetctl.jobs.benchmark_speed import speed
from unetctl.jobs.benchmark_train import train_speed

__all__ = ["BenchmarkReport", "accuracy", "speed", "train_speed"]
