"""The one loop of everything that trains.

A training is a `State`, which it changes, a step function and a `Plan`. The step is called with
`at`, the numbers of this step: `at.t`, how many steps were done before (int64, (1,)), and one
0-dimensional tensor for each of the plan's schedules. It draws its batch, updates the networks and
returns {name: a 0-dimensional tensor to record}. All of that stays on the device and nothing is
read on the host, so that on a GPU the step can be captured in a CUDA graph and replayed without
Python. `run` does everything else.
"""

import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from weakref import WeakKeyDictionary

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dlapps import runtime
from dlapps.files import Checkpoint, fingerprint
from dlapps.steps import Batches, ema

SECONDS_BETWEEN_CHECKPOINTS = 60
LOOK_EVERY = 50  # steps on a GPU between two looks at what they recorded
STEPS_IN_A_GRAPH = 10
WARM_UP = 3  # steps before a capture, in which libraries choose their kernels


@dataclass
class State:
    """What a training changes: networks, optimisers and running averages, each by its name.

    networks: on their device (see `steps.to_device`); optimizers: see `steps.optimizer`; averages:
    {name of a network: its running average}; batches: the `steps.Batches` drawn from.
    """

    networks: dict
    optimizers: dict
    batches: tuple = ()
    averages: dict = field(default_factory=dict)

    def parts(self) -> dict[str, dict]:
        """Return {kind: {name: what has a state dict}}."""
        kinds = "networks", "optimizers", "averages"
        return {kind: getattr(self, kind) for kind in kinds}


@dataclass(frozen=True)
class Plan:
    """How a `State` is trained.

    steps: how many; records: the names of what a step returns, 0 where it leaves one out.
    schedules: {name: a function of the number of steps done}; `learning_rate`, which must be among
    them, is that of all optimisers.
    seed: of everything that the steps draw; seeded once a run.
    decay: of the running averages, see `steps.ema`; in the first steps they move faster.
    watch, watch_at: `watch(t)` is called and its result kept after each number of steps t in
    `watch_at`, 0 being the start. It may read all and changes nothing.
    tf32: whether the steps' products of float32 may round their factors to 10 bits, on a GPU that
    does so; never those of `watch`.
    """

    steps: int
    records: tuple[str, ...]
    schedules: dict[str, Callable[[int], float]]
    seed: int = 0
    decay: float = 0.0
    watch: Callable | None = None
    watch_at: tuple = ()
    tf32: bool = True


@dataclass(frozen=True)
class Result:
    """What `run` returns.

    records: {name: float32 (T,) on the CPU} of the T steps done; watched: {t: what `watch`
    returned}; finite: whether all records are finite, otherwise the training ended with the first
    step of which one is not; seconds: the time per step on this machine, everything else left out.
    """

    records: dict
    watched: dict
    finite: bool
    seconds: float

    def means(self, epochs: int) -> dict[str, list[float]]:
        """Return {name: list of the mean record of each epoch, of as many steps}."""
        columns = self.records.items()
        return {name: values.view(epochs, -1).mean(1).tolist() for name, values in columns}

    def check(self) -> "Result":
        """Return this result; raise FloatingPointError if the training had to end early."""
        if not self.finite:
            last = {name: values[-1].item() for name, values in self.records.items()}
            steps = len(next(iter(self.records.values())))
            raise FloatingPointError(
                f"learning_rate is too high, or the data are not finite: step {steps:,} gave {last}"
            )
        return self


def run(
    step: Callable, state: State, plan: Plan, *, checkpoint: Path | None = None, made_from=(),
    description: str = "training",
) -> Result:  # fmt: skip
    """Train `state` in place by calling `step(at)` as `plan` says; return a `Result`.

    With `checkpoint`, a path, the training is saved each minute and goes on from there, on a CPU to
    the same bits as without the interruption. It stands for `made_from` (data, settings, and the
    functions and classes that compute), the plan and the weights at the start: what was made from
    anything else is kept beside it (see `Checkpoint`). A finished training is read.
    Raises MemoryError that names `batch_size` where the memory is too small.
    """
    kept = _checkpoint_of(Path(checkpoint), made_from, state, plan) if checkpoint else None
    runner = _Run(step, state, plan, description)
    saved, finished = kept.load() if kept else (None, False)
    if saved is not None:
        runner.restore(saved, finished)
    elif kept:
        kept.save(runner.saved(), finished=False)  # to begin again from there, not from the middle
    if not finished:
        runner.train(lambda done: kept and kept.save(runner.saved(), done))
    _INTERRUPTED.pop(_first(state), None)
    return runner.result()


class _Run:
    """A training under way: what its steps read and write on the device, and how far it is."""

    def __init__(self, step, state, plan, description):
        self.step, self.state, self.plan, self.description = step, state, plan, description
        self.device = next(_first(state).parameters()).device
        # An average moves faster at first: after t steps it is the mean of all t, not the start.
        weight = (
            {"ema_weight": lambda t: max(1 - plan.decay, 1 / (t + 1))} if state.averages else {}
        )
        schedules = plan.schedules | weight
        table = [[schedule(t) for schedule in schedules.values()] for t in range(plan.steps)]
        self.table = torch.tensor(table, dtype=torch.float32).to(self.device)
        self.now = self.table[0].clone()
        self.t = torch.zeros(1, dtype=torch.int64, device=self.device)
        self.zero = torch.zeros((), device=self.device)
        self.at = SimpleNamespace(t=self.t, **dict(zip(schedules, self.now, strict=True)))
        self.records = torch.zeros(plan.steps, len(plan.records), device=self.device)
        self.done, self.seconds, self.watched, self.finite = 0, 0.0, {}, True
        self.random_state = None
        self._set_rates()

    def _set_rates(self):
        for optimizer in self.state.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = self.at.learning_rate

    def advance(self):
        """Take one step. Nothing in it is read on the host."""
        self.now.copy_(self.table.index_select(0, self.t)[0])
        found = self.step(self.at)
        for name, average in self.state.averages.items():
            ema(average, self.state.networks[name], self.at.ema_weight)
        values = [found.get(name, self.zero).detach().float() for name in self.plan.records]
        self.records.index_copy_(0, self.t, torch.stack(values)[None])
        self.t.add_(1)

    def train(self, save):
        """Take the steps that are left; `save(finished)` is called each minute and at the end."""
        gpus = [self.device] if self.device.type == "cuda" else []
        size = next((batches.size for batches in self.state.batches), None)
        bar = runtime.progress(None, f"{self.description} training", self.plan.steps, self.done)
        with bar, runtime.naming_memory("batch_size", size), torch.random.fork_rng(gpus):
            self._seed()
            self._go_on(bar, save)
        for optimizer in self.state.optimizers.values():
            optimizer.zero_grad()  # on a GPU the gradients lie in the graph's memory

    def _go_on(self, bar, save):
        runner, saved_at = _StepRunner(self.advance, self.state, self.description), time.monotonic()
        while True:
            seen = self.done not in self.plan.watch_at and self.finite
            if self.plan.watch and not seen and self.done not in self.watched:
                self.watched[self.done] = self.plan.watch(self.done)
            if self.done == self.plan.steps or not self.finite:
                save(True)
                return
            if time.monotonic() - saved_at > SECONDS_BETWEEN_CHECKPOINTS:
                save(False)
                saved_at = time.monotonic()
            stops = [self.plan.steps, *self.plan.watch_at, self.done + runner.at_once]
            stops += [batches.load(self.done) for batches in self.state.batches]
            count = min(stop for stop in stops if stop > self.done) - self.done
            with runtime.chosen_kernels(self.device, self.plan.tf32):
                self.seconds += runner.take(count)
            sound = self.records[self.done : self.done + count].isfinite().all(1).tolist()
            self.finite = all(sound)
            count = count if self.finite else sound.index(False) + 1
            self.done += count
            bar.update(count)

    def _seed(self):
        if self.random_state is None:
            torch.manual_seed(self.plan.seed)
            return
        torch.set_rng_state(self.random_state["cpu"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(self.random_state["cuda"], self.device)

    def saved(self):
        """Return all that the training goes on from."""
        state = {
            kind: {name: part.state_dict() for name, part in parts.items()}
            for kind, parts in self.state.parts().items()
        }
        random_state = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            random_state["cuda"] = torch.cuda.get_rng_state(self.device)
        state |= {"random_state": random_state if self.done else None}
        state |= {"done": self.done, "records": self.records[: self.done].cpu()}
        return state | {"watched": self.watched, "finite": self.finite, "seconds": self.seconds}

    def restore(self, state, finished):
        """Take over what `saved` returned; of a finished training no more than what it gave."""
        for kind, parts in self.state.parts().items():
            for name, part in parts.items():
                if kind != "optimizers" or not finished:
                    part.load_state_dict(state[kind][name])
        self._set_rates()
        self.done, self.random_state = state["done"], state["random_state"]
        self.t.fill_(self.done)
        self.records[: self.done] = state["records"].to(self.device)
        self.watched, self.finite = state["watched"], state["finite"]
        self.seconds = state["seconds"]

    def result(self):
        columns = self.records[: self.done].cpu().T.contiguous()
        records = dict(zip(self.plan.records, columns, strict=True))
        return Result(records, self.watched, self.finite, self.seconds / self.done)


class _StepRunner:
    """Takes steps: on a GPU by replaying CUDA graphs of one and of several, else one by one."""

    def __init__(self, advance, state, description):
        self.advance, self.state, self.description = advance, state, description
        self.device = next(_first(state).parameters()).device
        self.captures = self.device.type == "cuda"
        self.at_once = LOOK_EVERY if self.captures else 1  # steps before somebody looks
        self.graphs, self.warm = {}, 0

    def take(self, count):
        """Take `count` steps; return the seconds that they took, what prepared them left out."""
        begun, prepared = runtime.clock(), 0.0
        while count and self.captures and not self.graphs:
            prepared -= runtime.clock()
            count -= self._prepare()
            prepared += runtime.clock()
        for steps, graph in self.graphs.items():
            while count >= steps:
                graph.replay()
                count -= steps
        for _ in range(count):
            self.advance()
        return runtime.clock() - begun - prepared

    def _prepare(self):
        """Take one step of the warm-up or, after it, capture; return how many steps were taken."""
        if self.warm == WARM_UP:
            self._capture()
            return 0
        self.warm += 1
        self._warm_up()
        return 1

    def _warm_up(self):
        stream = torch.cuda.Stream(self.device)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "This instance was constructed with capturable=True")
            with Synchronisations() if self.warm == WARM_UP else nullcontext() as heard:
                self.advance()
        torch.cuda.current_stream(self.device).wait_stream(stream)
        if heard and heard.found:
            self._give_up(f"it waits for the GPU in {', '.join(sorted(heard.found))}")

    def _capture(self):
        for optimizer in self.state.optimizers.values():
            optimizer.zero_grad()  # gradients are to lie in the graph's own memory
        try:
            for steps in (STEPS_IN_A_GRAPH, 1):
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph):
                    for _ in range(steps):
                        self.advance()
                self.graphs[steps] = graph
        except RuntimeError as error:
            if runtime.is_out_of_memory(error):
                raise
            self._give_up(error)

    def _give_up(self, reason):
        self.captures, self.graphs = False, {}
        print(f"{self.description}: its steps run one by one, as no graph holds them: {reason}.")


class Synchronisations(TorchDispatchMode):
    """Notes in `found` the operators of a block for which the host would have to wait for a GPU."""

    WAITING = frozenset({torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape})

    def __init__(self):
        super().__init__()
        self.found = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        name = function.overloadpacket.__name__
        waits = not self.WAITING.isdisjoint(function.tags)
        if name in ("index", "_unsafe_index", "index_put", "index_put_", "_index_put_impl_"):
            # What a mask marks has to be counted, but for a number that is put there.
            masks = any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1])
            waits = masks and ("put" not in name or args[2].ndim > 0)
        elif name in ("_to_copy", "copy_"):
            source = args[name == "copy_"]
            waits = source.device != result.device
        if waits:
            self.found.add(name)
        return result


# Networks in a training that has not come to its end: what it was made from, and its start.
_INTERRUPTED = WeakKeyDictionary()


def _checkpoint_of(path, made_from, state, plan):
    """Return the `Checkpoint` of a training, made from the weights that it began with.

    After Ctrl-C the same networks hold weights from the middle; a call like the interrupted one
    goes on, so it stands for the start that is remembered with them.
    """
    settings = [plan.steps, plan.records, list(plan.schedules), plan.seed, plan.decay]
    settings += [plan.watch_at, plan.tf32]
    rest = fingerprint(settings, *made_from, Batches, ema, _Run.advance)
    machine = runtime.machine()
    if rest in _INTERRUPTED.get(_first(state), {}):
        kept = Checkpoint(path, _INTERRUPTED[_first(state)][rest], machine)
        if kept.file.exists():
            return kept
    weights = [network.state_dict() for network in state.networks.values()]
    made_from = fingerprint(rest, *weights)
    _INTERRUPTED[_first(state)] = {rest: made_from}
    return Checkpoint(path, made_from, machine)


def _first(state):
    return next(iter(state.networks.values()))
