"""What the tiny sizes share: the stages of the full size, on a model and samples that minutes suffice for."""

from __future__ import annotations

from weft.training.recipe import LanguageSource, ModelSpec, Recipe, Source

STEPS = 100  # of each stage
# A small Llama, with weft's own tokenizer.
LLAMA = LanguageSource(
    config={
        "model_type": "llama",
        "hidden_size": 96,
        "intermediate_size": 192,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 2048,
        "initializer_range": 0.05,
    }
)


def rehearsal(recipe: Recipe, model: ModelSpec, mixtures: tuple[tuple[Source, ...], ...]) -> Recipe:
    """``recipe`` on another model and other samples, a mixture for each stage.

    What trains in a stage, and the order of stages, stay; sizes of a step and rates are those of small models.
    """
    stages = tuple(
        stage.model_copy(
            update={
                "steps": STEPS,
                "optim": stage.optim.model_copy(
                    update={"lr": 3e-3, "min_lr": 1e-4, "warmup_steps": 5, "clip": 1.0, "weight_decay": 0.0}
                ),
                "mixture": mixture,
                "lessons": {},
                "row_tokens": 768,
                "accumulate": 1,
                "checkpoint_activations": False,
            }
        )
        for stage, mixture in zip(recipe.stages, mixtures, strict=True)
    )
    name = recipe.name.removesuffix("-tiny") + "-tiny"
    return recipe.model_copy(
        update={
            "name": name,
            "model": model,
            "stages": stages,
            "precision": "float32",
            "threads": 1,  # such small matrices take longer on more
            "checkpoint_every": 500,
        }
    )
