"""A programmable neuron, for Loihi 2 and the simulator. Lava's compiler executes this folder."""
