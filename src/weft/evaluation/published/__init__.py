"""The metrics of the published evaluations, one file a family: the original's figure under a name of its own beside the
sound one. Every file scores rows of text against references and knows nothing of models."""
