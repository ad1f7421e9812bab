"""Plans served by vLLM: `hplb_plan.json` beside the weights, found by a general plugin.

Written against vLLM 0.32.0, whose interfaces move: docs/vllm.md says what was tried.
"""


def register() -> None:
    """Make the plan's attention known to vLLM; called in each of its processes.

    On a CPU it takes the place of CPU_ATTN, on a GPU it is CUSTOM (`--attention-backend CUSTOM`). A
    model without a map has the stock attention's own classes. Entry point `vllm.general_plugins`.
    """
    from vllm.platforms import current_platform
    from vllm.v1.attention.backends.registry import AttentionBackendEnum, register_backend

    from executor.engines.vllm.metrics import export
    from executor.engines.vllm.moving import add_methods

    if current_platform.is_cpu():
        register_backend(AttentionBackendEnum.CPU_ATTN, "executor.engines.vllm.cpu.Backend")
    elif current_platform.is_cuda():
        register_backend(AttentionBackendEnum.CUSTOM, "executor.engines.vllm.cuda.Backend")
    else:
        return
    export()
    add_methods()
