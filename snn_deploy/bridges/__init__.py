"""Networks in other frameworks: torch modules, NIR's equations, ONNX; and what each makes of one.

Modules here import their framework late or are imported late themselves.
"""
