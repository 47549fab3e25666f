"""Finding, naming and loading language models, the same way in every process.

`resolve_model(setting)` turns a setting into a folder of safetensors (no model library is imported until something has
to be converted), `base_digest(folder)` names its bytes, `load_model(config)` loads it with torch.
"""
