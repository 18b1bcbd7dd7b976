"""The FPGA target: a run-ahead, sparse, event-driven accelerator, as images and a cycle model."""
