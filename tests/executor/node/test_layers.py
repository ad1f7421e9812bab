import pytest
import torch

from executor.node.layers import DisaggregatedLayer, TensorParallelLayer, make_layer, needed_bytes
from executor.node.shard import LayerShard, layer_shard
from profiles.cost.work import Deployment, Phase
from solver.plans import Plan
from tests.executor.plans import QUARTERS, Placement, tiny_plan, whole

DEPLOYMENTS: tuple[Deployment, ...] = ("disaggregated", "tensor_parallel")


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)


def dense(deployment: Deployment, placement: Placement) -> tuple[Plan, list[LayerShard]]:
    """Shards of a layer whose budgets cover the context: sparse attention is then exact."""
    plan = tiny_plan(placement, budgets=[256] * 4, deployment=deployment, batch_size=2)
    return plan, [layer_shard(plan, device, 0) for device in range(2)]


def test_tensor_parallel_devices_sum_to_the_whole_layer() -> None:
    plan, shards = dense("tensor_parallel", QUARTERS)
    layer = make_layer(plan.architecture, plan.workload.workload, "cpu")
    assert isinstance(layer, TensorParallelLayer)
    layer.partial.zero_()
    for shard in shards:
        layer.run(shard, layer.prepare(shard), "torch", None)
    hidden = layer.hidden.view(2, 256, -1)
    expected = torch.zeros_like(hidden)
    for head in range(4):
        weights = (layer.weight_q[head], layer.weight_k[head // 2], layer.weight_v[head // 2])
        q, k, v = (hidden @ weight for weight in weights)
        expected += attention(q, k, v) @ layer.weight_o[head]
    torch.testing.assert_close(layer.partial.view(2, 256, -1), expected, rtol=1e-3, atol=1e-3)


def test_decoding_devices_sum_to_the_whole_layer() -> None:
    """A head divided by devices comes to its sum only where they split sequences, not a list."""
    options = {"budgets": [256] * 4, "deployment": "tensor_parallel", "batch_size": 4}
    plan = tiny_plan(QUARTERS, phase="decode", **options)  # type: ignore[arg-type]
    layer = make_layer(plan.architecture, plan.workload.workload, "cpu")
    assert isinstance(layer, TensorParallelLayer)
    layer.partial.zero_()
    for device in range(2):
        shard = layer_shard(plan, device, 0)
        layer.run(shard, layer.prepare(shard), "torch", None)
    expected = torch.zeros_like(layer.partial)
    keys, values = layer.kv.cache.keys, layer.kv.cache.values
    for sequence in range(4):
        pages = slice(4 * sequence, 4 * sequence + 4)
        for head in range(4):
            q = layer.hidden[sequence] @ layer.weight_q[head]
            k, v = (x[pages, head // 2].reshape(256, 16) for x in (keys, values))
            weights = (k @ q / 4).softmax(0)
            expected[sequence] += weights @ v @ layer.weight_o[head]
    torch.testing.assert_close(layer.partial, expected, rtol=1e-3, atol=1e-3)


def test_a_decode_writes_its_new_token_and_nothing_else() -> None:
    plan = tiny_plan(whole(0, 0, 0, 0), context_tokens=130, batch_size=2, phase="decode")
    layer = make_layer(plan.architecture, plan.workload.workload, "cpu")
    assert isinstance(layer, DisaggregatedLayer)
    before = layer.kv.cache.keys.clone()
    shard = layer_shard(plan, 0, 0)
    work = layer.run(shard, layer.prepare(shard), "torch", None).work
    assert work["link_bytes"] == 2 * 2 * 2 * 16 * 2
    changed = (layer.kv.cache.keys != before).any(-1).nonzero().tolist()
    assert changed == [[page, group, 1] for page in (2, 5) for group in (0, 1)]
    assert torch.equal(layer.kv.cache.keys[2, :, 1], layer.sent_keys[:, 0])
    assert torch.equal(layer.kv.cache.values[5, :, 1], layer.sent_values[:, 1])


def test_disaggregated_devices_copy_their_groups_and_no_others() -> None:
    plan, (_, shard) = dense("disaggregated", whole(0, 0, 0, 1))
    layer = make_layer(plan.architecture, plan.workload.workload, "cpu")
    assert isinstance(layer, DisaggregatedLayer)
    layer.kv.cache.keys.zero_()
    layer.run(shard, layer.prepare(shard), "torch", None)
    assert shard.groups == (1,)
    assert torch.equal(layer.kv.cache.keys[1], layer.sent_keys[1])
    assert torch.equal(layer.kv.cache.values[1], layer.sent_values[1])
    assert not layer.kv.cache.keys[0].any()


def test_tensors_come_from_a_seed() -> None:
    plan = tiny_plan()
    first, again = (make_layer(plan.architecture, plan.workload.workload, "cpu") for _ in "ab")
    assert isinstance(first, DisaggregatedLayer)
    assert isinstance(again, DisaggregatedLayer)
    assert torch.equal(first.q, again.q)
    assert not torch.equal(first.sent_keys, first.sent_values)


@pytest.mark.parametrize("phase", ["prefill", "decode"])
@pytest.mark.parametrize("deployment", DEPLOYMENTS)
def test_needed_bytes_are_those_made(deployment: Deployment, phase: Phase) -> None:
    plan = tiny_plan(deployment=deployment, batch_size=3, context_tokens=100, phase=phase)
    layer = make_layer(plan.architecture, plan.workload.workload, "cpu")
    room = (layer.kv.cache.keys, layer.kv.cache.values, layer.kv.bounds)
    kept = [x for x in (*vars(layer).values(), *room) if isinstance(x, torch.Tensor)]
    made = sum(tensor.nbytes for tensor in kept)
    output = 3 * 4 * (100 if phase == "prefill" else 1) * 16 * 4
    needed = needed_bytes(plan.architecture, plan.workload.workload, torch.float32)
    assert needed == made + output


def test_a_part_that_rounds_to_nothing_is_no_work() -> None:
    """A decode's list of one piece: a tenth of it is none, though the head is the device's last."""
    plan = tiny_plan(
        [[(0, 1.0)], [(0, 0.9), (1, 0.1)]],
        kv_heads=1,
        budgets=[64, 64],
        phase="decode",
        deployment="tensor_parallel",
    )
    layer = make_layer(plan.architecture, plan.workload.workload, "cpu")
    shard = layer_shard(plan, 1, 0)
    assert (shard.heads, shard.shares) == ((1,), ())
    done = layer.run(shard, layer.prepare(shard), "torch", None)
    keys_and_values = 2 * 2 * 32 * 16
    assert done.work["projection_flops"] == keys_and_values
