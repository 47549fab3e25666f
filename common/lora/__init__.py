"""The LoRA engine: many adapters on one frozen base. Used by the student and by the teacher's M-step.

The way in is common/lora/engine.py: `LoraEngine(base, config, load)` with `.train(jobs)`, `.answer(...)`,
`.prove(...)`, `.score(...)` and `.drift(...)`. All of it takes batches: N jobs, prompts x versions. One thread at a
time may use it.
"""
