"""vLLM calls `register` in each of its processes, through the entry point ``vllm.general_plugins``."""


def register() -> None:
    from vllm import ModelRegistry

    import weft

    weft.register()
    name = "WeftForConditionalGeneration"  # registered by name, so that nothing is imported before a fork
    ModelRegistry.register_model(name, f"weft.serving.vllm.model:{name}")
