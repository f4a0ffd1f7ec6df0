"""The study's training runs on torchtitan: its Llama, its trainer, our layers, text and records.

Optional: torchtitan is in no lock. Every module here imports it, and `stand_ins.prepare` comes
before any of them.
"""
